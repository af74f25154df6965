package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// errLeaseOver: what this node owns may be taken by others.
var errLeaseOver = fmt.Errorf("%w: this node's lease is over and could not be renewed", store.ErrUnavailable)

// errRunTaken: another node took what this one's run owned.
var errRunTaken = fmt.Errorf("%w: another node took over from this one", store.ErrUnavailable)

// ErrTooManyNodes: all node numbers are in use.
var ErrTooManyNodes = errors.New("256 nodes use this database; no more are possible")

// lease is the node's run: a row of runs that is renewed. All times are of the
// monotonic clock: no clock of another machine matters.
type lease struct {
	s    *Store
	link link // of the keeper alone

	mu     sync.Mutex
	run    int64 // 0 between a loss and the new run
	node   uint8
	until  time.Time     // others wait at least so long
	looked time.Time     // when the last complete look at the switches was sent
	change chan struct{} // closed, and replaced, when one of these moves
	moves  store.Moves
}

// sightFor is for how long a look at the switches holds: a node that is cut off
// from its database starts no attempt after that (CONTRACT 6).
const sightFor = 2 * time.Second

func newLease(ctx context.Context, s *Store) (*lease, error) {
	l := &lease{s: s, link: link{o: &s.o, purpose: "lease"}, change: make(chan struct{}), looked: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadlines.Walk)
	defer cancel()
	c, err := l.link.conn(ctx)
	if err != nil {
		return l, err
	}
	if err := s.clocks.look(ctx, c, true); err != nil {
		return l, err
	}
	return l, l.register(ctx)
}

// register begins a run under the lowest node number that nobody used lately.
func (l *lease) register(ctx context.Context) error {
	began := time.Now()
	var run int64
	var node int
	err := l.s.transact(ctx, l.s.brief(), func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		if err := tx.exec(`LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		found, err := tx.row(`SELECT n FROM generate_series(0, 255) n WHERE NOT EXISTS (SELECT 1 FROM runs WHERE node = n) ORDER BY n LIMIT 1`, nil, &node)
		if err != nil {
			return err
		}
		if !found {
			return ErrTooManyNodes
		}
		return tx.c.QueryRow(tx.ctx, `INSERT INTO runs (node, host, started_at) VALUES ($1, $2, $3) RETURNING id`, node, l.s.o.Host, nanos(l.s.now())).Scan(&run)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run, l.node, l.until = run, uint8(node), began.Add(l.s.o.Lease)
	l.changed()
	return nil
}

// changed wakes who waits for the lease. It is called with the lock held.
func (l *lease) changed() {
	close(l.change)
	l.change = make(chan struct{})
}

// saw is told of a complete look at the switches, and when it was sent.
func (l *lease) saw(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent.After(l.looked) {
		l.looked = sent
	}
	l.changed()
}

// current returns the run, or errRunTaken between two.
func (l *lease) current() (run int64, node uint8, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run == 0 {
		return 0, 0, errRunTaken
	}
	return l.run, l.node, nil
}

// working returns the run of a node that may take something on.
func (l *lease) working() (run int64, node uint8, err error) {
	if !l.s.clocks.trusted() {
		return 0, 0, errClock
	}
	return l.current()
}

// wake wakes who waits for the lease.
func (l *lease) wake() {
	if l == nil {
		return // it is being made
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed()
}

func (l *lease) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.run != 0 && time.Now().Before(l.until)
}

// may reports whether an attempt may begin now, and for which run, 0 between two.
// change is closed when that may have changed.
func (l *lease) may() (may bool, run int64, change <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return l.run != 0 && now.Before(l.until) && now.Sub(l.looked) < sightFor && l.s.clocks.trusted(), l.run, l.change
}

// keep renews the lease until the store is closed, on a connection of its own and
// behind nothing else.
func (l *lease) keep() {
	defer l.link.close()
	renew := time.NewTicker(l.s.o.Lease * 3 / 10)
	defer renew.Stop()
	again := time.NewTicker(l.s.o.Lease / 20)
	defer again.Stop()
	late := false // the last renewal failed: try again soon
	for {
		select {
		case <-l.s.stop.Done():
			return
		case <-renew.C:
			late = !l.renew()
		case <-again.C:
			if late {
				late = !l.renew()
			}
		}
	}
}

// renew reports whether the lease holds for the whole time again. Before, the clocks
// are compared: a node whose clock stays wrong ends its run, and begins another once
// the clock is right.
func (l *lease) renew() (done bool) {
	l.moves.Begin()
	defer func() { l.moves.End(done) }()
	ctx, cancel := context.WithTimeout(l.s.stop, l.s.o.Deadlines.Renew)
	defer cancel()
	c, err := l.link.conn(ctx)
	if err == nil {
		err = l.s.clocks.look(ctx, c, false)
	}
	if err != nil {
		if l.s.stop.Err() == nil {
			l.s.log.Warn("the clocks could not be compared; trying again", "error", err)
		}
		return false
	}
	run, _, err := l.current()
	switch {
	case l.s.clocks.hopeless():
		return err != nil || l.give(ctx, run)
	case err == nil:
		began := time.Now()
		kept, err := l.beat(ctx, run)
		if err != nil {
			if l.s.stop.Err() == nil {
				l.s.log.Warn("the node's lease could not be renewed; trying again", "error", err)
			}
			return false
		}
		if kept {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.until = began.Add(l.s.o.Lease)
			l.changed()
			return true
		}
		l.s.log.Error("another node took over from this one, which could not be heard; going on as a new run", "run", run)
		l.lose()
	}
	if err := l.register(ctx); err != nil {
		l.s.log.Warn("no new run could be begun; trying again", "error", err)
		return false
	}
	l.s.tellAll()
	return true
}

// give ends the run before its time: what it owns is due for the others.
func (l *lease) give(ctx context.Context, run int64) (done bool) {
	l.lose()
	if err := l.end(ctx, run); err != nil {
		l.s.log.Warn("what this node owns could not be given to the others, who take it over when its lease ends", "error", err)
	}
	return true
}

// lose has the node own nothing any more.
func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = 0
	l.changed()
}

// beat moves the run's row on, unless another node took it.
func (l *lease) beat(ctx context.Context, run int64) (kept bool, err error) {
	c, err := l.link.conn(ctx)
	if err != nil {
		return false, err
	}
	tag, err := c.Exec(ctx, `UPDATE runs SET beats = beats + 1 WHERE id = $1 AND taken_at = 0`, run)
	return tag.RowsAffected() == 1, err
}

// letThoseWait gives back rows that were found as r, with the time now as $2, and
// returns how many there were and the earliest time.
const letThoseWait = `, u AS (
		UPDATE due d SET run = CASE WHEN EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = d.endpoint) THEN -1 ELSE 0 END, next_at = least(d.next_at, $2)
		FROM r WHERE d.id = r.id RETURNING d.next_at)
	SELECT count(*), coalesce(min(next_at), 0) FROM u`

// letWait gives back what a run owns, in slices: it is due now at the latest, or,
// of an owned lane, parked in its place.
func (s *Store) letWait(ctx context.Context, run int64) (total int, err error) {
	const slice = `WITH r AS (SELECT id FROM due WHERE run > 0 AND run = $1 ORDER BY id LIMIT 5000 FOR UPDATE SKIP LOCKED)` + letThoseWait
	for {
		var n int
		var first int64
		if err := s.other.QueryRow(ctx, slice, run, nanos(s.now())).Scan(&n, &first); err != nil || n == 0 {
			return total, err
		}
		s.floor.lower(first)
		total += n
	}
}

// releaseTries is how often a node that ends tries to say so: its connections may
// have broken while they rested.
const releaseTries = 5

// release ends the run: what it owns is due again, for whoever comes first.
func (l *lease) release() error {
	run, _, err := l.current()
	if err != nil {
		return nil // taken already
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	for range releaseTries {
		if err = l.end(ctx, run); err == nil || !lost(err) || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (l *lease) end(ctx context.Context, run int64) error {
	if _, err := l.s.letWait(ctx, run); err != nil {
		return fmt.Errorf("give back what this node owns: %w", classify(err))
	}
	if _, err := l.s.other.Exec(ctx, `DELETE FROM runs WHERE id = $1`, run); err != nil {
		return fmt.Errorf("end the node's run: %w", classify(err))
	}
	if err := l.s.announceAll(ctx); err != nil {
		return classify(err)
	}
	return nil
}
