package lane

import (
	"container/heap"
	"sync/atomic"
	"time"
)

// The rings: which lane starts the next attempt when several could and the
// global limit binds. Proven lanes and the others take turns; among each,
// tenants take turns, and then the tenant's lanes. So a tenant with a thousand
// endpoints gets no more than one with a single endpoint, and lanes that
// hang never fill the places of those that work.

// The two rings.
const (
	ringProven = iota
	ringUnproven
)

// tenant is shared by the tenant's lanes.
type tenant struct {
	id    int64
	lanes int
	seats [2]seat // in each ring
	// passage is entered by its attempts as they begin; see gate.go.
	passage atomic.Pointer[passage]
}

// ring is a queue of tenants.
type ring struct{ head, tail *seat }

// seat is a tenant's place in a ring with its lanes in turn.
type seat struct {
	next       *seat
	inRing     bool
	head, tail *lane
}

// joinTenant moves the lane to the tenant, or with nil away from all.
func (e *Engine) joinTenant(l *lane, id *int64) {
	if l.tenant != nil {
		if id != nil && l.tenant.id == *id {
			return
		}
		if l.tenant.lanes--; l.tenant.lanes == 0 {
			delete(e.tenants, l.tenant.id)
		}
		l.tenant = nil
	}
	if id == nil {
		return
	}
	t := e.tenants[*id]
	if t == nil {
		t = &tenant{id: *id}
		t.passage.Store(new(passage))
		e.tenants[*id] = t
	}
	t.lanes++
	l.tenant = t
}

// takeTurn puts a startable lane at the end of its tenant's line.
func (e *Engine) takeTurn(l *lane) {
	which := ringUnproven
	if l.pace.proven {
		which = ringProven
	}
	s := &l.tenant.seats[which]
	l.inTurn, l.turnNext = true, nil
	if s.tail == nil {
		s.head = l
	} else {
		s.tail.turnNext = l
	}
	s.tail = l
	if !s.inRing {
		e.rings[which].push(s)
	}
}

func (r *ring) push(s *seat) {
	s.inRing, s.next = true, nil
	if r.tail == nil {
		r.head = s
	} else {
		r.tail.next = s
	}
	r.tail = s
}

// pop returns the lane whose turn it is, or nil. Its tenant goes to the end.
func (r *ring) pop() *lane {
	s := r.head
	if s == nil {
		return nil
	}
	if r.head = s.next; r.head == nil {
		r.tail = nil
	}
	s.inRing = false
	l := s.head
	if s.head = l.turnNext; s.head == nil {
		s.tail = nil
	} else {
		r.push(s)
	}
	l.inTurn, l.turnNext = false, nil
	return l
}

// dispatch starts what may start. It is called after every change that could
// let an attempt begin.
func (e *Engine) dispatch() {
	for e.phase == phaseRunning && e.sending == sendingOn &&
		e.inFlight < e.cfg.MaxInFlight && e.unrecorded < e.cfg.MaxUnrecorded {
		l := e.next()
		if l == nil {
			return
		}
		// The lane may have changed since it took its turn.
		if l.startable() {
			if _, early := l.early(); !early {
				e.start(l)
			}
		}
		e.settle(l)
	}
}

// next returns the lane whose turn it is, or nil when none may start.
func (e *Engine) next() *lane {
	for range e.rings {
		which := e.turn
		e.turn = 1 - e.turn
		if which == ringUnproven && e.unproven >= e.cfg.MaxInFlight-e.cfg.MaxInFlight/4 {
			continue
		}
		if l := e.rings[which].pop(); l != nil {
			return l
		}
	}
	return nil
}

// start begins an attempt of the lane's next delivery.
func (e *Engine) start(l *lane) {
	it := l.pick()
	e.uncount(it)
	if rate := l.rate(); rate > 0 {
		l.pace.started(rate, e.elapsed())
	}
	it.lane, it.target, it.tenant = l, l.target, l.tenant
	it.turned = notTurned
	it.epochs = l.epoch.Load() + e.epoch.Load()
	it.probe, it.proven = l.pace.open(), l.pace.proven
	it.cancels = l.cancels
	if it.work.Replay {
		l.replaying++
	}
	l.inFlight++
	e.inFlight++
	if !it.work.Aside {
		l.inLine++
	}
	if !it.proven {
		e.unproven++
	}
	select {
	case e.hand <- it:
	default:
		e.attempts.Go(func() { e.carry(it) })
	}
}

// wakeHeap holds lanes that wait for a time, the earliest first.
type wakeHeap []*lane

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wakeAt.Before(h[j].wakeAt) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].wakeIndex, h[j].wakeIndex = i, j
}

// Push implements [heap.Interface].
func (h *wakeHeap) Push(x any) {
	l := x.(*lane)
	l.wakeIndex = len(*h)
	*h = append(*h, l)
}

// Pop implements [heap.Interface].
func (h *wakeHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.wakeIndex = -1
	return l
}

func (h *wakeHeap) remove(l *lane) { heap.Remove(h, l.wakeIndex) }

// wakeLane has the lane settled again at a time. An earlier time that was set
// before stays: settling once too often does no harm.
func (e *Engine) wakeLane(l *lane, at time.Time) {
	switch {
	case l.wakeIndex < 0:
		l.wakeAt = at
		heap.Push(&e.wakes, l)
	case at.Before(l.wakeAt):
		l.wakeAt = at
		heap.Fix(&e.wakes, l.wakeIndex)
	default:
		return
	}
	if e.wakes[0] == l {
		e.poke()
	}
}
