package lane

import (
	"github.com/posthorn/posthorn/internal/store"
)

// Slot is a delivery's place in a lane, taken before the commit so that the row
// is stored as what it will be: owned by the engine, or parked. Exactly one of
// Accept, Stored and Release must be called, once; a slot that is never settled
// keeps its lane's backlog open for good.
type Slot struct {
	lane   *lane
	tenant int64
	cost   int64
	parked bool
	// returns is the lane's count when the slot was granted.
	returns uint32
}

// Reserve takes a place for a delivery of size bytes. It is cheap, never blocks
// on the store, and never fails: without room the slot is parked.
//
// Publish order holds because a lane that answered Parked once goes on doing so
// until a claim that began after every such slot was settled found nothing
// more. Were it to grant as soon as its backlog looks empty, a delivery answered
// Parked whose commit is still under way would be overtaken by a later one.
func (e *Engine) Reserve(tenant, endpoint int64, size int) Slot {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lane(endpoint)
	l.owner = tenant
	cost := int64(size) + itemOverhead
	if e.phase != phaseRunning || l.backlog == backlogDraining || l.target != nil && l.sends != sendsAll || !l.takes(tenant, cost) {
		return e.reserveParked(l)
	}
	l.reserved++
	e.held.add(tenant, cost)
	e.settle(l)
	return Slot{lane: l, tenant: tenant, cost: cost, returns: l.returns}
}

// ReserveParked takes the place of a delivery that is stored parked in any case:
// one for an owned lane.
func (e *Engine) ReserveParked(endpoint int64) Slot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reserveParked(e.lane(endpoint))
}

func (e *Engine) reserveParked(l *lane) Slot {
	e.giveBack(l, nil)
	l.reservedParked++
	e.settle(l)
	return Slot{lane: l, parked: true}
}

// Parked reports whether the delivery is to be stored parked.
func (s Slot) Parked() bool { return s.parked }

// Accept hands the committed delivery over, which the store holds as owned. The
// slot must not be parked. w.Body may be shared and must not change any more. What comes
// to an engine that has stopped meanwhile is held until the store is closed, which gives it up.
func (s Slot) Accept(w store.Work) {
	l, e := s.lane, s.lane.e
	it := &item{work: w, cost: s.cost}
	e.mu.Lock()
	defer e.mu.Unlock()
	l.reserved--
	e.queued++ // the reservation's bytes become the item's
	switch {
	case l.gone:
		e.uncount(it)
		e.cfg.Store.Forget(w.Hold())
	case e.phase == phaseStopped:
		e.uncount(it) // held until the store is closed
	case l.owned, l.refuses(&w), l.backlog == backlogDraining && s.returns != l.returns:
		// Something older was parked since the slot was granted, or the lane became
		// an owned one.
		e.uncount(it)
		e.giveBack(l, []parking{parkingOf(&w)})
	case l.backlog == backlogClosing:
		l.behind.push(it)
	default:
		l.queue.push(it)
	}
	e.settle(l)
	e.dispatch()
}

// Stored tells that the delivery was committed, but not as owned: parked, due
// later, or expired.
func (s Slot) Stored() {
	e := s.lane.e
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lookSoon() // it may wait for a time that only the store knows
	s.vacate()
}

// Release tells that nothing was committed.
func (s Slot) Release() {
	e := s.lane.e
	e.mu.Lock()
	defer e.mu.Unlock()
	s.vacate()
}

// vacate is called with the lock held.
func (s Slot) vacate() {
	l := s.lane
	if s.parked {
		l.reservedParked--
		l.fresh = true
	} else {
		l.reserved--
		l.e.held.add(s.tenant, -s.cost)
	}
	l.e.settle(l)
}
