package sim

import (
	"context"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// point is a place between two steps of a delivery, where a process may die.
type point string

const (
	beforePublish point = "before the publish commits"
	afterPublish  point = "after the publish committed, before the hand-over"
	beforeAttempt point = "before the attempt's request"
	afterArrival  point = "after the request arrived, before the answer"
	beforeRecord  point = "after the answer, before the record"
	afterRecord   point = "after the record committed, before the engine knows"
	afterClaim    point = "after due deliveries were claimed, before the engine has them"
	afterFetch    point = "after parked deliveries were claimed, before the engine has them"
	beforePark    point = "before deliveries are given back"
	afterPark     point = "after deliveries were given back"
)

var points = []point{
	beforePublish, afterPublish, beforeAttempt, afterArrival, beforeRecord, afterRecord,
	afterClaim, afterFetch, beforePark, afterPark,
}

// gate stops whoever comes to an armed point until the process is dead.
type gate struct {
	mu       sync.Mutex
	armed    point
	skip     int
	reached  chan struct{} // closed when somebody stands at the armed point
	released chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), released: make(chan struct{})} }

// arm stops the one who comes to p after skip others passed.
func (g *gate) arm(p point, skip int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed, g.skip = p, skip
}

func (g *gate) pass(p point) {
	g.mu.Lock()
	if g.armed != p {
		g.mu.Unlock()
		return
	}
	if g.skip > 0 {
		g.skip--
		g.mu.Unlock()
		return
	}
	select {
	case <-g.reached:
	default:
		close(g.reached)
	}
	g.mu.Unlock()
	<-g.released
}

func (g *gate) release() { close(g.released) }

// gatedStore is the store with gates between it and the engine. What a dead
// process asks is refused.
type gatedStore struct {
	*sqlite.Store
	run *run
}

func (s gatedStore) Record(r store.Result, done func(store.Recorded, error)) {
	s.run.gate.pass(beforeRecord)
	if s.run.dead.Load() {
		done(store.Recorded{}, store.ErrClosed)
		return
	}
	s.Store.Record(r, func(rec store.Recorded, err error) {
		// The store's own goroutine must not stand at the gate.
		go func() {
			s.run.gate.pass(afterRecord)
			done(rec, err)
		}()
	})
}

func (s gatedStore) ClaimDue(ctx context.Context, now time.Time, limit int) ([]store.Work, time.Time, error) {
	if s.run.dead.Load() {
		return nil, time.Time{}, store.ErrClosed
	}
	w, next, err := s.Store.ClaimDue(ctx, now, limit)
	if len(w) > 0 {
		s.run.gate.pass(afterClaim)
	}
	return w, next, err
}

func (s gatedStore) ClaimParked(ctx context.Context, endpoint int64, limit int) ([]store.Work, bool, error) {
	if s.run.dead.Load() {
		return nil, false, store.ErrClosed
	}
	w, more, err := s.Store.ClaimParked(ctx, endpoint, limit)
	if len(w) > 0 {
		s.run.gate.pass(afterFetch)
	}
	return w, more, err
}

func (s gatedStore) Park(ctx context.Context, ids []posthorn.ID) error {
	s.run.gate.pass(beforePark)
	if s.run.dead.Load() {
		return store.ErrClosed
	}
	err := s.Store.Park(ctx, ids)
	s.run.gate.pass(afterPark)
	return err
}
