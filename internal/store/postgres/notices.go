package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Changes are told on a channel of which only those know the name who may read our
// tables: whoever may log in can notify on any that they can name. A message is
// "sender number kind tenant endpoint event place count": number counts the
// transactions that changed something (meta.changes) and place the notices
// within one. A sender has told itself already. A later version may add fields at
// the end, which are not read.
const (
	changesChannel = `(SELECT 'posthorn_changes_' || to_hex(value) FROM meta WHERE key = 'channel')`
	outboxChannel  = `(SELECT 'posthorn_outbox_' || to_hex(value) FROM meta WHERE key = 'channel')`
	// formerChannel is what nodes up to schema version 1 hear, and tell on. Theirs is
	// not heard here: anybody may tell there. What they change is found by looking.
	formerChannel = "posthorn_changes"
)

// notifyAll tells a text on both channels of changes, unless somebody has filled the
// queue of messages: then one more fails the commit, and changes are found by looking.
const notifyAll = `SELECT pg_notify(c, $1) FROM unnest(ARRAY[` + changesChannel + `, '` + formerChannel + `']) c WHERE pg_notification_queue_usage() < 0.5`

// lookEvery is how often the switches are looked at: meta.changes, for what was not
// heard, and whether nothing may be sent.
const lookEvery = 250 * time.Millisecond

// notices hears what other processes changed. What it does not hear it finds by
// looking, four times a second, and passes on as NoticeAll. Only while it looks may
// attempts begin: see lease.saw.
type notices struct {
	s    *Store
	name string
	link link
	seen map[int64]time.Time // numbers above base that were heard of, and when; at most seenAhead above it
	base int64               // all up to here are told
	// doubts are the looks, oldest first, that found changes of which not all were
	// heard. What is not heard for missedAfter was missed.
	doubts []sight
	fresh  bool // the connection is new, and what was told before it is not known
	// passed is how many notices were passed on since the last look, and whether
	// there were more, or more than one about everything.
	passed        int
	passedAll     bool
	more          bool
	outboxChannel string
	// outbox is told, once at most, that rows may be waiting there.
	outbox chan struct{}
}

const (
	// seenAhead is how far above what is known a number is noted; what is beyond is
	// found by looking.
	seenAhead = 4096
	// passedPerLook is how many notices are passed on from one look to the next.
	// Beyond it one is, at the look, that all may have changed.
	passedPerLook = 1000
)

// sight is a look at meta.changes: when it was sent, and the last number then.
type sight struct {
	sent time.Time
	last int64
}

// missedAfter is how long what was committed before a look may be heard after it. It
// and two looks are less than the second within which changes are known everywhere.
const missedAfter = 400 * time.Millisecond

func newNotices(s *Store) (*notices, error) {
	n := &notices{s: s, name: rand.Text(), link: link{o: &s.o, purpose: "listen"}, seen: map[int64]time.Time{}, outbox: make(chan struct{}, 1)}
	n.link.notified = n.heardOf
	conn, _, err := n.connect() // it hears from before it looks
	if err != nil {
		return nil, err
	}
	now, err := n.look(conn)
	n.base = now.last
	return n, err
}

// announce tells other processes of a transaction's notices, within it.
func (tx *txn) announce(s *Store) error {
	if len(tx.notices) == 0 {
		return nil
	}
	var number int64
	if err := tx.c.QueryRow(tx.ctx, `UPDATE meta SET value = value + 1 WHERE key = 'changes' RETURNING value`).Scan(&number); err != nil {
		return err
	}
	for i, n := range tx.notices {
		text := fmt.Sprintf("%s %d %d %d %d %d %d %d", s.notices.name, number, n.Kind, n.Tenant, n.Endpoint, n.Event, i, len(tx.notices))
		if err := tx.exec(notifyAll, text); err != nil {
			return err
		}
	}
	return nil
}

// announceAll tells the other nodes that anything may have changed.
func (s *Store) announceAll(ctx context.Context) error {
	_, err := s.other.Exec(ctx, `WITH n AS (UPDATE meta SET value = value + 1 WHERE key = 'changes' RETURNING value)
		SELECT pg_notify(c, $1 || ' ' || value || ' 0 0 0 0 0 1') FROM n, unnest(ARRAY[`+changesChannel+`, '`+formerChannel+`']) c
		WHERE pg_notification_queue_usage() < 0.5`, s.notices.name)
	return err
}

func (n *notices) run() {
	for n.s.stop.Err() == nil {
		err := n.listen()
		n.link.close()
		if n.s.stop.Err() == nil {
			n.s.log.Warn("changes by other nodes cannot be heard; trying again", "error", err)
			n.s.pause(lookEvery)
		}
	}
}

func (n *notices) listen() error {
	conn, fresh, err := n.connect()
	if err != nil {
		return err
	}
	for n.fresh = n.fresh || fresh; ; {
		now, err := n.look(conn) // which hears what comes with the answer
		if err != nil {
			return err
		}
		n.compare(now)
		n.fresh = false
		if err := n.hear(conn, now.sent.Add(lookEvery)); err != nil {
			return err
		}
	}
}

// connect returns the connection and whether it is a new one.
func (n *notices) connect() (conn *pgx.Conn, fresh bool, err error) {
	ctx, cancel := n.s.look(n.s.stop)
	defer cancel()
	before := n.link.c
	if conn, err = n.link.conn(ctx); err != nil || conn == before {
		return conn, false, err
	}
	var changes string
	if err := conn.QueryRow(ctx, `SELECT `+changesChannel+`, `+outboxChannel).Scan(&changes, &n.outboxChannel); err != nil {
		n.link.close()
		return nil, false, err
	}
	if _, err = conn.Exec(ctx, `LISTEN `+changes+`; LISTEN `+n.outboxChannel); err != nil {
		n.link.close() // it would be taken for one that listens
	}
	return conn, true, err
}

// hear waits for messages until a time. They come to [notices.heardOf], one at a time:
// none is kept for later, however many there are.
func (n *notices) hear(conn *pgx.Conn, until time.Time) error {
	ctx, cancel := context.WithDeadline(n.s.stop, until)
	defer cancel()
	for {
		if err := conn.PgConn().WaitForNotification(ctx); err != nil {
			if ctx.Err() != nil && n.s.stop.Err() == nil && !conn.IsClosed() {
				return nil
			}
			return err
		}
	}
}

// heardOf is called with each message, by whatever is reading the connection.
func (n *notices) heardOf(_ *pgconn.PgConn, m *pgconn.Notification) {
	if m.Channel == n.outboxChannel {
		n.wakeOutbox()
		return
	}
	n.message(m.Payload)
}

func (n *notices) wakeOutbox() {
	select {
	case n.outbox <- struct{}{}:
	default: // told already
	}
}

func (n *notices) message(text string) {
	var sender string
	var number, tenant, endpoint, event int64
	var kind, place, count int
	if _, err := fmt.Sscan(text, &sender, &number, &kind, &tenant, &endpoint, &event, &place, &count); err != nil {
		return // not ours
	}
	if place == count-1 && number > n.base && number <= n.base+seenAhead {
		n.seen[number] = time.Now()
	}
	if sender == n.name {
		return
	}
	n.pass(store.Notice{Kind: store.NoticeOf(kind), Tenant: tenant, Endpoint: endpoint, Event: posthorn.ID(event)})
}

// pass passes on a notice, or notes that there were more than are passed on.
func (n *notices) pass(notice store.Notice) {
	all := notice.Kind == store.NoticeAll
	if n.passed >= passedPerLook || all && n.passedAll {
		n.more = true
		return
	}
	n.passed++
	if n.passedAll = n.passedAll || all; all {
		n.s.tellAll()
		return
	}
	n.s.watchers.Tell(notice)
}

// look reads the number of the last change.
func (n *notices) look(conn *pgx.Conn) (now sight, err error) {
	ctx, cancel := context.WithTimeout(n.s.stop, sightFor)
	defer cancel()
	now.sent = time.Now()
	return now, conn.QueryRow(ctx, `SELECT value FROM meta WHERE key = 'changes'`).Scan(&now.last)
}

// compare finds out whether something changed that was not heard, and tells it. It
// notes up to when all is known.
//
// On a new connection all is told, whatever was heard: a message that was lost with the
// one before may have had any number. A number that was heard before the look and is
// above what it found was never given out.
func (n *notices) compare(now sight) {
	for number, heard := range n.seen {
		if number > now.last && heard.Before(now.sent) {
			delete(n.seen, number)
		}
	}
	n.doubts = append(n.doubts, now)
	var known time.Time
	for len(n.doubts) > 0 && n.heard(n.doubts[0].last) {
		known = n.doubts[0].sent
		n.doubts = n.doubts[1:]
	}
	missed := n.fresh || len(n.doubts) > 0 && now.sent.Sub(n.doubts[0].sent) >= missedAfter
	if missed {
		for number := range n.seen {
			if number <= now.last {
				delete(n.seen, number)
			}
		}
		n.base, n.doubts, known = now.last, nil, now.sent
	}
	if missed || n.more {
		n.s.tellAll()
		n.s.watchers.Tell(store.Notice{Kind: store.NoticeCanceled})
	}
	n.passed, n.passedAll, n.more = 0, false, false
	for ; !n.seen[n.base+1].IsZero(); n.base++ {
		delete(n.seen, n.base+1)
	}
	if n.s.lease != nil && !known.IsZero() {
		n.s.lease.saw(known)
	}
}

// heard reports whether all changes up to a number were heard of.
func (n *notices) heard(last int64) bool {
	for number := n.base + 1; number <= last; number++ {
		if n.seen[number].IsZero() {
			return false
		}
	}
	return true
}
