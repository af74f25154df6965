package sqlite

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// place is where an open delivery is; a finished one has none.
type place uint8

const (
	nowhere place = 0
	owned   place = 1 // in the memory of the running process
	waiting place = 2 // for its time
	parked  place = 3 // behind its lane's backlog
)

// ownedOffset is added to next_at of owned rows: no scan for due rows meets
// them, they are found together when the file is opened, and giving them back
// restores their time.
const ownedOffset = 1 << 62

// move is one delivery that changed its place.
type move struct {
	tenant, endpoint int64
	from, to         place
}

// openCounts counts open deliveries in memory, so that a publish can be held
// to its tenant's limit without counting rows.
type openCounts struct {
	mu        sync.Mutex
	all       int
	tenants   map[int64]int
	endpoints map[int64]endpointCount
	oldest    posthorn.ID // as the file was opened
}

type endpointCount struct{ due, parked int }

func newOpenCounts() *openCounts {
	return &openCounts{tenants: make(map[int64]int), endpoints: make(map[int64]endpointCount)}
}

func (c *openCounts) tenant(id int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tenants[id]
}

func (c *openCounts) endpoint(id int64) endpointCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints[id]
}

func (c *openCounts) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

func (c *openCounts) apply(moves []move) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range moves {
		c.add(m.tenant, m.endpoint, m.from, -1)
		c.add(m.tenant, m.endpoint, m.to, +1)
	}
}

func (c *openCounts) add(tenant, endpoint int64, p place, n int) {
	e := c.endpoints[endpoint]
	switch p {
	case nowhere:
		return
	case parked:
		e.parked += n
	default:
		e.due += n
	}
	c.all += n
	if c.tenants[tenant] += n; c.tenants[tenant] == 0 {
		delete(c.tenants, tenant)
	}
	if c.endpoints[endpoint] = e; e == (endpointCount{}) {
		delete(c.endpoints, endpoint)
	}
}

func (tx *txn) move(tenant, endpoint int64, from, to place) {
	if from == to {
		return
	}
	tx.moves = append(tx.moves, move{tenant, endpoint, from, to})
	tx.lineMoved(tenant, endpoint, from, to)
	switch nowhere {
	case from:
		tx.opened[tenant]++
	case to:
		tx.opened[tenant]--
	}
}

// recover takes over a file: what the last run owned waits again, with its
// time; ids go on above the highest; open deliveries are counted.
func (w *writer) recover(ctx context.Context) error {
	if err := w.execute("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	tx := newTxn(w)
	err := tx.recover()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = w.execute("COMMIT")
	}
	if err != nil {
		_ = w.execute("ROLLBACK")
		return err
	}
	w.last, w.lead = tx.last, tx.lead
	return nil
}

func (tx *txn) recover() error {
	now := nanos(tx.w.now())
	err := tx.exec(`UPDATE deliveries SET place = 2, next_at = min(next_at - ?1, ?2) WHERE place IN (1, 2) AND next_at >= ?1`,
		int64(ownedOffset), now)
	if err != nil {
		return err
	}
	lead, err := tx.meta("lead", int64(minLead))
	if err != nil {
		return err
	}
	tx.lead = time.Duration(lead)
	var last int64
	if _, err := tx.row(`SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(id) FROM deliveries), 0),
		coalesce((SELECT value FROM meta WHERE key = 'last_id'), 0))`, nil, &last); err != nil {
		return err
	}
	tx.last = posthorn.ID(last)
	if err := tx.restored(); err != nil {
		return err
	}
	if err := tx.recoverErasing(); err != nil {
		return err
	}
	if err := tx.recoverLines(); err != nil {
		return err
	}
	if err := tx.recoverPostings(); err != nil {
		return err
	}
	return tx.countOpen()
}

// recoverLines finds the ordered endpoints. What the last run owned of their lines
// stands in them again.
func (tx *txn) recoverLines() error {
	ids, err := tx.ids(`SELECT id FROM endpoints WHERE deleted_at = 0 AND settings ->> 'ordered' = 1`)
	if err != nil || len(ids) == 0 {
		return err
	}
	tx.w.lines = make(map[int64]struct{}, len(ids))
	for _, id := range ids {
		tx.w.lines[id] = struct{}{}
		if err := tx.joinLine(id); err != nil {
			return err
		}
	}
	tx.moves, tx.opened = nil, make(map[int64]int) // all is counted next
	return nil
}

// countOpen reads the two partial indexes of open rows, and no row.
func (tx *txn) countOpen() error {
	tenants := make(map[int64]int64)
	err := tx.rows(`SELECT id, tenant FROM endpoints`, nil, func(r scanner) error {
		var id, tenant int64
		err := r.Scan(&id, &tenant)
		tenants[id] = tenant
		return err
	})
	if err != nil {
		return err
	}
	c := tx.w.open
	count := func(p place) func(scanner) error {
		return func(r scanner) error {
			var endpoint, oldest int64
			var n int
			if err := r.Scan(&endpoint, &n, &oldest); err != nil {
				return err
			}
			c.add(tenants[endpoint], endpoint, p, n)
			if c.oldest == 0 || posthorn.ID(oldest) < c.oldest {
				c.oldest = posthorn.ID(oldest)
			}
			return nil
		}
	}
	err = tx.rows(`SELECT endpoint, count(*), min(id) FROM deliveries INDEXED BY deliveries_due
		WHERE place IN (1, 2) GROUP BY endpoint`, nil, count(waiting))
	if err != nil {
		return err
	}
	return tx.rows(`SELECT endpoint, count(*), min(id) FROM deliveries INDEXED BY deliveries_parked
		WHERE place = 3 GROUP BY endpoint`, nil, count(parked))
}

// Counts implements [store.Keeper]. The oldest is looked for from where it was
// found the last time, as rows finish about in the order of their ids.
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	if err := s.serving(); err != nil {
		return store.Counts{}, err
	}
	c := store.Counts{Open: s.writer.open.total()}
	if c.Open == 0 {
		return c, nil
	}
	from := max(s.oldest.Load(), int64(s.writer.open.oldest))
	var id int64
	err := s.readers.QueryRowContext(ctx, `SELECT coalesce(min(id), 0) FROM
		(SELECT id FROM deliveries NOT INDEXED WHERE id >= ? AND place <> 0 ORDER BY id LIMIT 1)`, from).Scan(&id)
	if err != nil {
		return store.Counts{}, fmt.Errorf("count open deliveries: %w", readError(ctx, err))
	}
	if id != 0 {
		s.oldest.Store(id)
		c.Oldest = posthorn.ID(id).Time()
	}
	return c, nil
}
