package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// channel is what changes are told on. A message is
// "sender number kind tenant endpoint event place count": number counts the
// transactions that changed something (meta.changes) and place the notices
// within one. A sender has told itself already. A later version may add fields at
// the end, which are not read.
const channel = "posthorn_changes"

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
	seen map[int64]bool // numbers above base that were heard of
	base int64          // all up to here are told
	// doubts are the looks, oldest first, that found changes of which not all were
	// heard. What is not heard for missedAfter was missed.
	doubts []sight
	fresh  bool // nothing was heard on this connection before it looked
	// outbox is told, once at most, that rows may be waiting there.
	outbox chan struct{}
}

// sight is a look at meta.changes: when it was sent, and the last number then.
type sight struct {
	sent time.Time
	last int64
}

// missedAfter is how long what was committed before a look may be heard after it. It
// and two looks are less than the second within which changes are known everywhere.
const missedAfter = 400 * time.Millisecond

func newNotices(s *Store) (*notices, error) {
	n := &notices{s: s, name: rand.Text(), link: link{o: &s.o, purpose: "listen"}, seen: map[int64]bool{}, outbox: make(chan struct{}, 1)}
	conn, err := n.connect() // it hears from before it looks
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
		if err := tx.exec(`SELECT pg_notify($1, $2)`, channel, text); err != nil {
			return err
		}
	}
	return nil
}

// announceAll tells the other nodes that anything may have changed.
func (s *Store) announceAll(ctx context.Context) error {
	_, err := s.other.Exec(ctx, `WITH n AS (UPDATE meta SET value = value + 1 WHERE key = 'changes' RETURNING value)
		SELECT pg_notify($1, $2 || ' ' || value || ' 0 0 0 0 0 1') FROM n`, channel, s.notices.name)
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
	conn, err := n.connect()
	if err != nil {
		return err
	}
	for n.fresh, n.doubts = true, nil; ; n.fresh = false {
		now, err := n.look(conn)
		if err != nil {
			return err
		}
		if err := n.hear(conn, now.sent); err != nil { // what came with the answer
			return err
		}
		n.compare(now)
		if err := n.hear(conn, now.sent.Add(lookEvery)); err != nil {
			return err
		}
	}
}

func (n *notices) connect() (*pgx.Conn, error) {
	ctx, cancel := n.s.look(n.s.stop)
	defer cancel()
	conn, err := n.link.conn(ctx)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `LISTEN `+channel+`; LISTEN `+outboxChannel)
	return conn, err
}

// hear waits for messages until a time.
func (n *notices) hear(conn *pgx.Conn, until time.Time) error {
	ctx, cancel := context.WithDeadline(n.s.stop, until)
	defer cancel()
	for {
		m, err := conn.WaitForNotification(ctx)
		if err != nil {
			if ctx.Err() != nil && n.s.stop.Err() == nil && !conn.IsClosed() {
				return nil
			}
			return err
		}
		if m.Channel == outboxChannel {
			n.wakeOutbox()
			continue
		}
		n.message(m.Payload)
	}
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
	if place == count-1 && number > n.base {
		n.seen[number] = true
	}
	if sender == n.name {
		return
	}
	known := store.NoticeOf(kind)
	if known == store.NoticeAll {
		n.s.tellAll()
		return
	}
	n.s.watchers.tell(store.Notice{Kind: known, Tenant: tenant, Endpoint: endpoint, Event: posthorn.ID(event)})
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
func (n *notices) compare(now sight) {
	n.doubts = append(n.doubts, now)
	var known time.Time
	for len(n.doubts) > 0 && n.heard(n.doubts[0].last) {
		known = n.doubts[0].sent
		n.doubts = n.doubts[1:]
	}
	if len(n.doubts) > 0 && (n.fresh || now.sent.Sub(n.doubts[0].sent) >= missedAfter) {
		for number := range n.seen {
			if number <= now.last {
				delete(n.seen, number)
			}
		}
		n.base, n.doubts, known = now.last, nil, now.sent
		n.s.tellAll()
		n.s.watchers.tell(store.Notice{Kind: store.NoticeCanceled})
	}
	for ; n.seen[n.base+1]; n.base++ {
		delete(n.seen, n.base+1)
	}
	if n.s.lease != nil && !known.IsZero() {
		n.s.lease.saw(known)
	}
}

// heard reports whether all changes up to a number were heard of.
func (n *notices) heard(last int64) bool {
	for number := n.base + 1; number <= last; number++ {
		if !n.seen[number] {
			return false
		}
	}
	return true
}
