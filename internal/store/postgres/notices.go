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

// pollEvery is how often meta.changes is looked at, for what was not heard.
// What was committed just before a poll may be heard just after it, so that it
// counts as missed at the next one.
const pollEvery = 400 * time.Millisecond

// notices hears what other processes changed. What it does not hear it finds by
// polling and passes on as NoticeAll.
type notices struct {
	s    *Store
	name string
	seen map[int64]bool // numbers above base that were heard of
	base int64          // all up to here are told
	last int64          // the last number at the last poll
	// outbox is told, once at most, that rows may be waiting there.
	outbox chan struct{}
}

func newNotices(ctx context.Context, s *Store) (*notices, error) {
	n := &notices{s: s, name: rand.Text(), seen: map[int64]bool{}, outbox: make(chan struct{}, 1)}
	err := s.other.QueryRow(ctx, `SELECT value FROM meta WHERE key = 'changes'`).Scan(&n.base)
	n.last = n.base
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
		if err := n.listen(); err != nil && n.s.stop.Err() == nil {
			n.s.log.Warn("changes by other nodes cannot be heard; trying again", "error", err)
			select {
			case <-time.After(pollEvery):
			case <-n.s.stop.Done():
			}
		}
	}
}

func (n *notices) listen() error {
	ctx := n.s.stop
	config, err := n.s.o.connConfig("listen")
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `LISTEN `+channel+`; LISTEN `+outboxChannel); err != nil {
		return err
	}
	for {
		if err := n.hear(ctx, conn); err != nil {
			return err
		}
		if err := n.poll(ctx, conn); err != nil {
			return err
		}
	}
}

// hear waits for messages until it is time to poll.
func (n *notices) hear(ctx context.Context, conn *pgx.Conn) error {
	until, cancel := context.WithTimeout(ctx, pollEvery)
	defer cancel()
	for {
		m, err := conn.WaitForNotification(until)
		if err != nil {
			if until.Err() != nil && ctx.Err() == nil && !conn.IsClosed() {
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

// poll finds out whether something changed that was not heard.
func (n *notices) poll(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var last int64
	if err := conn.QueryRow(ctx, `SELECT value FROM meta WHERE key = 'changes'`).Scan(&last); err != nil {
		return err
	}
	missed := false
	for number := n.base + 1; number <= n.last; number++ {
		missed = missed || !n.seen[number]
		delete(n.seen, number)
	}
	n.base, n.last = n.last, last
	if missed {
		n.s.tellAll()
		n.s.watchers.tell(store.Notice{Kind: store.NoticeCanceled})
	}
	return nil
}
