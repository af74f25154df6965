package sim

import "sync"

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

// waits reports whether anybody who passes p could have to wait.
func (g *gate) waits(p point) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.armed == p
}
