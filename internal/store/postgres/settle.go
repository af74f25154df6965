package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// What becomes of a commit whose answer does not come is found out beside: whoever
// sent it waits no longer than its deadline, and what the commit took over or gave
// up is looked after by whoever finds out.

// fate is what became of a commit.
type fate int

const (
	fateOpen fate = iota // it may still take place
	fateCommitted
	fateAborted
)

// asking looks what became of a commit. Nothing of it is under way any more.
type asking func(context.Context, *pgxpool.Conn) (fate, error)

func (m mark) fate(ctx context.Context, c *pgxpool.Conn) (fate, error) {
	var took bool
	err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM commits WHERE key = $1 AND value = $2)`, m.key, m.value).Scan(&took)
	switch {
	case err != nil:
		return fateOpen, err
	case took:
		return fateCommitted, nil
	}
	return fateAborted, nil
}

// party is the server's side of a connection that broke.
type party struct {
	pid  uint32
	name string
}

func partyOf(c *pgx.Conn) party {
	return party{c.PgConn().PID(), c.Config().RuntimeParams["application_name"]}
}

// settle finds out what became of what a broken connection was doing. It first
// ends the connection's other side, so that the answer stays true, and asks until
// it gets one or the store is closed.
func (s *Store) settle(broken party, ask asking) (committed bool, err error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		f, err := s.askFate(broken, ask)
		if err == nil && f != fateOpen {
			return f == fateCommitted, nil
		}
		if !s.pause(wait) {
			return false, fmt.Errorf("%w: closed before it was known: %w", store.ErrUnsettled, err)
		}
	}
}

// pause waits and reports whether the store is open.
func (s *Store) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.stop.Done():
		return false
	case <-t.C:
		return true
	}
}

func (s *Store) askFate(broken party, ask asking) (fate, error) {
	ctx, cancel := context.WithTimeout(s.stop, s.o.Deadlines.Walk)
	defer cancel()
	c, err := s.other.Acquire(ctx)
	if err != nil {
		return fateOpen, err
	}
	defer c.Release()
	if ended, err := broken.end(ctx, c); err != nil || !ended {
		return fateOpen, err
	}
	return ask(ctx, c)
}

// end ends it and reports whether it is gone.
func (p party) end(ctx context.Context, c querier) (gone bool, err error) {
	const end = `SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2`
	var stays int
	err = c.QueryRow(ctx, end, int64(p.pid), p.name).Scan(&stays)
	return stays == 0, err
}

// abandon ends, beside, the server's side of a connection that broke. A server that
// heard only a part of what was sent waits for the rest, for ever if nobody tells it,
// and keeps the rows that it locked and the state that it saw. (No time-out of
// PostgreSQL counts while it reads.)
func (s *Store) abandon(c *pgx.Conn) {
	if !c.IsClosed() {
		return
	}
	broken := partyOf(c)
	s.beside(func() {
		for wait := 20 * time.Millisecond; wait < 10*time.Second; wait *= 2 {
			ctx, cancel := context.WithTimeout(s.stop, s.o.Deadlines.Walk)
			gone, err := broken.end(ctx, s.other)
			cancel()
			if err == nil && gone || !s.pause(wait) {
				return
			}
		}
	})
}

// outcome is what becomes of a commit, for whoever waits for it.
type outcome struct {
	known chan struct{}

	mu        sync.Mutex
	left      bool
	committed bool
	err       error // it will not be known
}

// tell reports whether somebody waits.
func (o *outcome) tell(committed bool, err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.committed, o.err = committed, err
	close(o.known)
	return !o.left
}

// leave reports whether it was not known before.
func (o *outcome) leave() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.known:
		return false
	default:
		o.left = true
		return true
	}
}

// await finds out what became of a transaction whose commit was not answered, why
// says for what reason, and returns nil if it took place. It waits until a time, the
// zero one for as long as it takes; after that the error is ErrUnsettled, and the rest
// is done beside.
func (s *Store) await(tx *txn, until time.Time, why error) error {
	s.log.Warn("a commit was not answered; finding out what became of it", "error", why)
	o := &outcome{known: make(chan struct{})}
	broken := partyOf(tx.c)
	s.beside(func() {
		committed, err := s.settle(broken, tx.mark.fate)
		if !o.tell(committed, err) {
			s.lookAfter(tx, committed, err)
		}
	})
	var over <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-o.known:
	case <-over:
		if o.leave() {
			return fmt.Errorf("%w: %w", store.ErrUnsettled, why)
		}
	}
	switch {
	case o.err != nil:
		return errors.Join(o.err, why)
	case o.committed:
		s.committed(tx)
		return nil
	}
	s.undo(tx)
	return why
}

// lookAfter ends a transaction that nobody waits for any more.
func (s *Store) lookAfter(tx *txn, committed bool, err error) {
	switch {
	case err != nil: // closing: the run's end gives back all it owns
	case committed:
		s.committed(tx)
		s.letGo(tx.taken)
		s.floor.reset() // its caller knew what waits now
		s.watchers.Tell(store.Notice{Kind: store.NoticeDue})
	default:
		s.undo(tx)
		s.letGo(tx.given) // whoever held it has let go of it
	}
}

// letGo gives rows back that nobody holds any more: they are due now at the
// latest, or, of an owned lane, parked in their place. It does not wait for that.
func (s *Store) letGo(holds []store.Hold) {
	if len(holds) == 0 {
		return
	}
	s.beside(func() {
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			n, err := s.release(holds)
			if err == nil {
				s.log.Info("deliveries that nobody waited for any more are due again", "deliveries", n)
				return
			}
			s.log.Warn("deliveries that nobody waited for could not be given back; trying again", "error", err)
			if !s.pause(wait) {
				return
			}
		}
	})
}

// release gives rows back in one transaction and returns how many were held so.
func (s *Store) release(holds []store.Hold) (n int, err error) {
	return s.letWaitLocked(func(tx *txn) ([]int64, error) { return tx.lockHeld(holds) })
}

// letWaitLocked gives back the rows that lock returns, having locked them, and
// returns how many there were.
func (s *Store) letWaitLocked(lock func(*txn) ([]int64, error)) (n int, err error) {
	var first int64
	err = s.transact(s.stop, s.patient(), func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		ids, err := lock(tx)
		if err != nil {
			return err
		}
		_, err = tx.row(`WITH r AS (SELECT unnest($1::bigint[]) AS id)`+letThoseWait, []any{ids, nanos(tx.now())}, &n, &first)
		return err
	})
	if err == nil && n > 0 {
		s.floor.lower(first)
		s.watchers.Tell(store.Notice{Kind: store.NoticeDue})
	}
	return n, err
}

// lockHeld locks rows that are to be given up, and returns those that this node still
// has by these holds: while they are locked nobody takes them. All holds go from
// memory when it is committed.
func (tx *txn) lockHeld(holds []store.Hold) (ids []int64, err error) {
	tx.given = append(tx.given, holds...)
	gens := make(map[int64]store.Hold, len(holds))
	for _, h := range holds {
		gens[int64(h.ID)] = h
	}
	err = tx.rows(`SELECT id, run FROM due WHERE id = ANY ($1) AND run > 0 ORDER BY endpoint, id FOR UPDATE`, []any{idsOf(holds)}, func(r scanner) error {
		var id, run int64
		err := r.Scan(&id, &run)
		if tx.holdings.hasFor(run, gens[id]) {
			ids = append(ids, id)
		}
		return err
	})
	return ids, err
}

func idsOf(holds []store.Hold) []int64 {
	ids := make([]int64, len(holds))
	for i, h := range holds {
		ids[i] = int64(h.ID)
	}
	return ids
}

func holdsOf(ids []posthorn.ID, gen uint64) []store.Hold {
	holds := make([]store.Hold, len(ids))
	for i, id := range ids {
		holds[i] = store.Hold{ID: id, Gen: gen}
	}
	return holds
}

// side is what runs beside the store's own goroutines until it is closed.
type side struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// beside runs fn in a goroutine of its own. After Close it runs nothing.
func (s *Store) beside(fn func()) {
	s.aside.mu.Lock()
	defer s.aside.mu.Unlock()
	if !s.aside.closed {
		s.aside.running.Go(fn)
	}
}

func (d *side) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.running.Wait()
}
