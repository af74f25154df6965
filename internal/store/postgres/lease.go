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
	s *Store

	mu     sync.Mutex
	run    int64 // 0 between a loss and the new run
	node   uint8
	until  time.Time     // others wait at least so long
	change chan struct{} // closed and made anew when until or run moves

	// of the keeper alone
	seen   map[int64]sighting
	looked time.Time
	swept  time.Time
	head   overdue // at the last sweep
}

// overdue is the earliest row that waits; zero for none that is late.
type overdue struct{ at, id int64 }

// sighting is when a run was first seen at a beat.
type sighting struct {
	beats int64
	since time.Time
}

func newLease(ctx context.Context, s *Store) (*lease, error) {
	l := &lease{s: s, change: make(chan struct{}), seen: map[int64]sighting{}}
	return l, l.register(ctx)
}

// register begins a run under the lowest node number that nobody used lately.
func (l *lease) register(ctx context.Context) error {
	began := time.Now()
	var run int64
	var node int
	err := l.s.write(ctx, func(tx *txn) error {
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

// current returns the run, or errRunTaken between two.
func (l *lease) current() (run int64, node uint8, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run == 0 {
		return 0, 0, errRunTaken
	}
	return l.run, l.node, nil
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
	return l.run != 0 && time.Now().Before(l.until), l.run, l.change
}

// keep renews the lease, looks after others and takes over from the dead, until
// the store is closed.
func (l *lease) keep() {
	o := l.s.o
	renew := time.NewTicker(o.Lease * 3 / 10)
	defer renew.Stop()
	look := time.NewTicker(o.Lease / 20)
	defer look.Stop()
	late := false // the last renewal failed: try again at each look
	for {
		select {
		case <-l.s.stop.Done():
			return
		case <-renew.C:
			late = !l.renew()
		case <-look.C:
			if late {
				late = !l.renew()
			}
			if !late {
				l.look()
			}
		}
	}
}

// renew reports whether the lease holds for the whole time again.
func (l *lease) renew() bool {
	ctx, cancel := context.WithTimeout(l.s.stop, l.s.o.Lease/4)
	defer cancel()
	run, _, err := l.current()
	if err == nil {
		began := time.Now()
		tag, err := l.s.hot.Exec(ctx, `UPDATE runs SET beats = beats + 1 WHERE id = $1 AND taken_at = 0`, run)
		if err != nil {
			if l.s.stop.Err() == nil {
				l.s.log.Warn("the node's lease could not be renewed; trying again", "error", err)
			}
			return false
		}
		if tag.RowsAffected() == 1 {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.until = began.Add(l.s.o.Lease)
			l.changed()
			return true
		}
		l.s.log.Error("another node took over from this one, which could not be heard; going on as a new run", "run", run)
		l.mu.Lock()
		l.run = 0
		l.changed()
		l.mu.Unlock()
	}
	if err := l.register(ctx); err != nil {
		l.s.log.Warn("no new run could be begun; trying again", "error", err)
		return false
	}
	l.s.tellAll()
	return true
}

// look finds runs that do not move on. A run is taken when it was seen at the
// same beat for a whole lease without a gap in the watching: after an outage of
// the database everybody has a lease's time to renew.
func (l *lease) look() {
	ctx, cancel := context.WithTimeout(l.s.stop, l.s.o.Lease/4)
	defer cancel()
	run, _, err := l.current()
	if err != nil {
		return
	}
	now := time.Now()
	rows, err := l.s.hot.Query(ctx, `SELECT id, beats FROM runs WHERE taken_at = 0 AND id <> $1`, run)
	alive := map[int64]int64{}
	if err == nil {
		err = eachRow(rows, func(r scanner) error {
			var id, beats int64
			err := r.Scan(&id, &beats)
			alive[id] = beats
			return err
		})
	}
	answered := time.Now()
	if err != nil || answered.Sub(l.looked) > l.s.o.Lease/2 {
		clear(l.seen)
	}
	if l.looked = answered; err != nil {
		return
	}
	for id := range l.seen {
		if _, ok := alive[id]; !ok {
			delete(l.seen, id)
		}
	}
	for id, beats := range alive {
		s, ok := l.seen[id]
		if !ok || s.beats != beats {
			l.seen[id] = sighting{beats, answered}
			continue
		}
		if now.Sub(s.since) > l.s.o.Lease {
			l.take(ctx, id, beats)
		}
	}
	l.lookAtLanes()
	if len(alive) > 0 && answered.Sub(l.s.open.counted()) > recountEvery {
		l.s.open.recount(ctx, l.s)
	}
	if answered.Sub(l.swept) > l.s.o.Lease {
		l.swept = answered
		l.takeOrphans(ctx)
		l.findForgotten(ctx)
	}
}

// take marks a run as taken, unless it moved on, and takes what it owned.
func (l *lease) take(ctx context.Context, run, beats int64) {
	tag, err := l.s.hot.Exec(ctx, `UPDATE runs SET taken_at = $3 WHERE id = $1 AND beats = $2 AND taken_at = 0`, run, beats, nanos(l.s.now()))
	if err != nil || tag.RowsAffected() == 0 {
		return
	}
	l.s.log.Warn("a node cannot be heard; taking over what it owned", "run", run)
	l.takeOrphans(ctx)
	// Lanes look for backlogs that nobody else may know of.
	if err := l.s.announceAll(ctx); err != nil {
		l.s.log.Warn("the other nodes were not told of the takeover", "error", err)
	}
	l.s.tellAll()
}

// orphans are the runs that are named by rows and do not live. They are found in
// the index, which is hopped over from run to run.
const orphans = `WITH RECURSIVE r (run) AS (
		(SELECT run FROM due WHERE run > 0 ORDER BY run LIMIT 1)
		UNION ALL
		SELECT (SELECT d.run FROM due d WHERE d.run > 0 AND d.run > r.run ORDER BY d.run LIMIT 1) FROM r WHERE r.run IS NOT NULL)
	SELECT r.run FROM r WHERE r.run IS NOT NULL AND NOT EXISTS (SELECT 1 FROM runs WHERE id = r.run AND taken_at = 0)`

// forgetAfter is how long a taken run keeps its node number from others.
const forgetAfter = time.Hour

// takeOrphans lets everything wait that is owned by runs that are over, and
// forgets those runs.
func (l *lease) takeOrphans(ctx context.Context) {
	runs, err := all(ctx, l.s, l.s.hot, func(r scanner) (id int64, err error) { return id, r.Scan(&id) }, orphans)
	for _, run := range runs {
		var n int
		if n, err = l.s.letWait(ctx, run); err != nil {
			break
		}
		if n > 0 {
			l.s.log.Info("deliveries of a run that is over are due again", "run", run, "deliveries", n)
			l.s.tellAll()
		}
	}
	if err == nil {
		_, err = l.s.hot.Exec(ctx, `DELETE FROM runs WHERE taken_at <> 0 AND taken_at < $1`, nanos(l.s.now().Add(-forgetAfter)))
	}
	if err != nil && l.s.stop.Err() == nil {
		l.s.log.Warn("runs that are over could not be looked for", "error", err)
	}
}

// findForgotten has everybody look if the earliest row that waits should have been
// claimed a lease ago and did not move since: whoever knew of it is gone.
func (l *lease) findForgotten(ctx context.Context) {
	var head overdue
	err := l.s.hot.QueryRow(ctx, `SELECT coalesce(min(next_at), 0), coalesce(min(id), 0) FROM (
		SELECT next_at, id FROM due WHERE run = 0 ORDER BY next_at, id LIMIT 1) d WHERE next_at < $1`,
		nanos(l.s.now().Add(-l.s.o.Lease))).Scan(&head.at, &head.id)
	if err != nil {
		return // the next sweep asks again
	}
	if head.id != 0 && head == l.head {
		l.s.tellAll()
	}
	l.head = head
}

// letWait gives back what a run owns, in slices: it is due now at the latest, or,
// of an owned lane, parked in its place.
func (s *Store) letWait(ctx context.Context, run int64) (total int, err error) {
	const slice = `WITH r AS (SELECT id FROM due WHERE run > 0 AND run = $1 ORDER BY id LIMIT 5000 FOR UPDATE SKIP LOCKED),
		u AS (UPDATE due d SET run = CASE WHEN EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = d.endpoint) THEN -1 ELSE 0 END, next_at = least(d.next_at, $2) FROM r WHERE d.id = r.id RETURNING d.next_at)
		SELECT count(*), coalesce(min(next_at), 0) FROM u`
	for {
		var n int
		var first int64
		if err := s.hot.QueryRow(ctx, slice, run, nanos(s.now())).Scan(&n, &first); err != nil || n == 0 {
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
	if _, err := l.s.hot.Exec(ctx, `DELETE FROM runs WHERE id = $1`, run); err != nil {
		return fmt.Errorf("end the node's run: %w", classify(err))
	}
	if err := l.s.announceAll(ctx); err != nil {
		return classify(err)
	}
	return nil
}
