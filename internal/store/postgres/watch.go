package postgres

import (
	"context"
	"sync/atomic"
	"time"
)

// watch looks after the other nodes: it takes over from those that died, and gives
// back what belongs to runs that are over.
type watch struct {
	s      *Store
	seen   map[int64]sighting
	looked time.Time
	head   overdue      // of the sweeps alone: at the last one
	others atomic.Int64 // nodes that live
}

// overdue is the earliest row that waits; zero for none that is late.
type overdue struct{ at, id int64 }

// sighting is when a run was first seen at a beat.
type sighting struct {
	beats int64
	since time.Time
}

// keepWatch looks until the store is closed. What may take long is done beside, so
// that nobody is taken for dead because somebody was slow to look.
func (s *Store) keepWatch() {
	w := &watch{s: s, seen: map[int64]sighting{}}
	s.running.Go(func() { s.every(s.o.Lease/20, w.look) })
	s.running.Go(func() { s.every(s.o.Lease/20, s.lookAtLanes) })
	s.running.Go(func() { s.every(s.o.Lease, w.sweep) })
	s.running.Go(func() { s.keepCounting(func() bool { return w.others.Load() > 0 }) })
	s.running.Go(func() {
		s.every(recountEvery, func() {
			if w.others.Load() > 0 {
				s.open.recount(s.stop, s)
			}
		})
	})
}

// sweep finds what was left behind.
func (w *watch) sweep() {
	w.takeOrphans(w.s.stop)
	w.findForgotten(w.s.stop)
}

// every calls fn again and again until the store is closed.
func (s *Store) every(d time.Duration, fn func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-s.stop.Done():
			return
		case <-tick.C:
			fn()
		}
	}
}

// look finds runs that do not move on. A run is taken when it was seen at the
// same beat for a whole lease without a gap in the watching: after an outage of
// the database everybody has a lease's time to renew.
func (w *watch) look() {
	ctx, cancel := context.WithTimeout(w.s.stop, w.s.o.Deadlines.Look)
	defer cancel()
	run, _, err := w.s.lease.current()
	if err != nil {
		return
	}
	now := time.Now()
	rows, err := w.s.other.Query(ctx, `SELECT id, beats FROM runs WHERE taken_at = 0 AND id <> $1`, run)
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
	if err != nil || answered.Sub(w.looked) > w.s.o.Lease/2 {
		clear(w.seen)
	}
	if w.looked = answered; err != nil {
		return
	}
	for id := range w.seen {
		if _, ok := alive[id]; !ok {
			delete(w.seen, id)
		}
	}
	for id, beats := range alive {
		s, ok := w.seen[id]
		if !ok || s.beats != beats {
			w.seen[id] = sighting{beats, answered}
			continue
		}
		if now.Sub(s.since) > w.s.o.Lease {
			w.take(id, beats)
		}
	}
	w.others.Store(int64(len(alive)))
}

// take marks a run as taken, unless it moved on, and takes what it owned.
func (w *watch) take(run, beats int64) {
	ctx := w.s.stop
	tag, err := w.s.other.Exec(ctx, `UPDATE runs SET taken_at = $3 WHERE id = $1 AND beats = $2 AND taken_at = 0`, run, beats, nanos(w.s.now()))
	if err != nil || tag.RowsAffected() == 0 {
		return
	}
	w.s.log.Warn("a node cannot be heard; taking over what it owned", "run", run)
	w.takeOrphans(ctx)
	// Lanes look for backlogs that nobody else may know of.
	if err := w.s.announceAll(ctx); err != nil {
		w.s.log.Warn("the other nodes were not told of the takeover", "error", err)
	}
	w.s.tellAll()
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
func (w *watch) takeOrphans(ctx context.Context) {
	runs, err := all(ctx, w.s, w.s.other, func(r scanner) (id int64, err error) { return id, r.Scan(&id) }, orphans)
	for _, run := range runs {
		var n int
		if n, err = w.s.letWait(ctx, run); err != nil {
			break
		}
		if n > 0 {
			w.s.log.Info("deliveries of a run that is over are due again", "run", run, "deliveries", n)
			w.s.tellAll()
		}
	}
	if err == nil {
		_, err = w.s.other.Exec(ctx, `DELETE FROM runs WHERE taken_at <> 0 AND taken_at < $1`, nanos(w.s.now().Add(-forgetAfter)))
	}
	if err != nil && w.s.stop.Err() == nil {
		w.s.log.Warn("runs that are over could not be looked for", "error", err)
	}
}

// findForgotten has everybody look if the earliest row that waits should have been
// claimed a lease ago and did not move since: whoever knew of it is gone.
func (w *watch) findForgotten(ctx context.Context) {
	var head overdue
	err := w.s.other.QueryRow(ctx, `SELECT coalesce(min(next_at), 0), coalesce(min(id), 0) FROM (
		SELECT next_at, id FROM due WHERE run = 0 ORDER BY next_at, id LIMIT 1) d WHERE next_at < $1`,
		nanos(w.s.now().Add(-w.s.o.Lease))).Scan(&head.at, &head.id)
	if err != nil {
		return // the next sweep asks again
	}
	if head.id != 0 && head == w.head {
		w.s.tellAll()
	}
	w.head = head
}
