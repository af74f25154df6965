package lane

import (
	"context"
	"sync"
	"time"
)

// Gate is asked last, right before the first byte of a request goes out. Between
// the decision to attempt a delivery and that byte anything may wait: for a
// processor, a name server, a connection. What changes meanwhile shuts the gate.
type Gate interface {
	// Enter reports whether the request may still be begun. If so, Leave is called
	// once its first bytes were handed to the system, or could not be, and nothing but
	// that lies between the two. If not, nothing is written and the attempt has not
	// taken place: what the [Sender] returns is not looked at. It may be entered
	// several times, one after the other: before a connection is made, and for each.
	Enter() bool
	Leave()
	// First reports whether no other attempt of the lane was under way when this one
	// started.
	First() bool
	// Crowded says that the tenant has as many connections to the receiver's address as
	// it may. The attempt has not taken place, as if Enter had said so.
	Crowded()
}

// settleFor bounds how long the answer of a change waits for requests that are in
// the gate. Handing bytes to the system takes microseconds, or as long as the
// processors are busy with others; a connection that takes none must not hold up
// whoever changes something.
const settleFor = 250 * time.Millisecond

// passage counts who of a tenant's attempts is in the gate. Whoever enters it looks
// only then at what may have changed; whoever changes something replaces the passage
// after that and waits until the old one is empty. So each attempt either sees the
// change or has begun when it is answered.
type passage struct {
	mu     sync.Mutex
	inside int
	empty  chan struct{} // closed when the last one leaves; nil while nobody waits
}

func (p *passage) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inside++
}

func (p *passage) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside--; p.inside == 0 && p.empty != nil {
		close(p.empty)
		p.empty = nil
	}
}

// left tells when nobody is inside; nil for now.
func (p *passage) left() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside > 0 && p.empty == nil {
		p.empty = make(chan struct{})
	}
	return p.empty
}

// leaving tells when passages are empty.
type leaving []<-chan struct{}

// add has those counted who are in the gate for the tenant; nil for none. It is
// called after what they look at was changed, with Engine.mu held.
func (v *leaving) add(t *tenant) {
	if t == nil {
		return
	}
	if empty := t.passage.Load().left(); empty != nil {
		t.passage.Store(new(passage)) // who comes later sees the change and is not waited for
		*v = append(*v, empty)
	}
}

// settled returns what waits until all are empty, or settleFor is over; nil for
// nothing to wait for.
func (v leaving) settled() func() {
	if len(v) == 0 {
		return nil
	}
	return func() {
		over := time.NewTimer(settleFor)
		defer over.Stop()
		for _, empty := range v {
			select {
			case <-empty:
			case <-over.C:
				return
			}
		}
	}
}

// ended has [Store.MayAttempt] tell without waiting.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// turned is why an attempt was not begun at the gate.
type turned uint8

const (
	notTurned     turned = iota
	turnedBack           // it goes back to where it came from
	turnedCrowded        // the same, and its lane waits for a connection
	turnedErased         // its event's payload was erased
)

// Enter implements [Gate].
func (it *item) Enter() bool {
	e := it.lane.e
	it.passage = it.tenant.passage.Load()
	it.passage.enter()
	switch {
	case e.erased.has(it.work.Event):
		it.turned = turnedErased
	case !it.current(), !e.cfg.Store.MayAttempt(ended, it.work.Hold()):
		it.turned = turnedBack
	default:
		return true
	}
	it.Leave()
	return false
}

// Leave implements [Gate].
func (it *item) Leave() { it.passage.leave() }

// First implements [Gate].
func (it *item) First() bool { return it.alone }

// Crowded implements [Gate].
func (it *item) Crowded() { it.turned = turnedCrowded }
