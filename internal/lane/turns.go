package lane

import (
	"container/heap"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/share"
)

// Turns: which lane starts the next attempt when several could. The tenant that
// holds fewest attempts does, and of its lanes the one that holds fewest. So a tenant
// with a thousand endpoints gets no more than one with a single endpoint, and who
// hangs never fills the places of those that work. While nothing is scarce no lane
// waits, and its turn comes as it is taken.

// Lanes whose last attempt succeeded and the others take their turns apart: what is
// kept for the former does not wait behind the latter.
const (
	turnProven = iota
	turnUnproven
)

// tenant is shared by the tenant's lanes.
type tenant struct {
	id    int64
	lanes int
	held  int     // attempts in flight
	seats [2]seat // proven, unproven
	// passage is entered by its attempts as they begin; see gate.go.
	passage atomic.Pointer[passage]
}

// seat is a tenant's place in the turns with its lanes that could start an attempt.
type seat struct {
	place  place
	tenant *tenant
	lanes  queue
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
		for i := range t.seats {
			s := &t.seats[i]
			s.tenant, s.place.seat = t, s
		}
		e.tenants[*id] = t
	}
	t.lanes++
	l.tenant = t
}

// takeTurn has a startable lane wait for its host, or sit down among its tenant's.
func (e *Engine) takeTurn(l *lane) {
	e.arrivals++
	if h := l.host; h != nil && (h.waiting[l.kind()].first() != nil || !e.admits(h)) {
		e.waitForHost(l, e.arrivals)
		return
	}
	e.sit(l, e.arrivals)
}

// kind is which turns the lane takes.
func (l *lane) kind() int {
	if l.pace.proven {
		return turnProven
	}
	return turnUnproven
}

// sit puts the lane in turn for an attempt, for which it has waited since.
func (e *Engine) sit(l *lane, since uint64) {
	kind := l.kind()
	s := &l.tenant.seats[kind]
	s.lanes.add(&l.turn, l.inFlight, since)
	l.seat = s
	if s.place.in == nil {
		e.turns[kind].add(&s.place, s.tenant.held, since)
	}
	if l.host != nil {
		l.host.seated[kind]++
	}
}

// stand takes the lane out of its seat. Its tenant goes behind others that hold as
// much.
func (e *Engine) stand(l *lane) {
	s := l.seat
	l.turn.remove()
	l.seat = nil
	if l.host != nil {
		l.host.seated[s.kind()]--
	}
	turns := s.place.in
	s.place.remove()
	if s.lanes.first() != nil {
		e.arrivals++
		turns.add(&s.place, s.tenant.held, e.arrivals)
	}
}

// kind is which turns the seat's lanes take.
func (s *seat) kind() int {
	if s == &s.tenant.seats[turnProven] {
		return turnProven
	}
	return turnUnproven
}

// reseat has a lane in turn leave the place that it took before its last attempt
// succeeded, or failed.
func (e *Engine) reseat(l *lane) {
	switch {
	case l.seat != nil && l.seat.kind() != l.kind():
		e.stand(l)
	case l.waitsForHost() && l.turn.in != &l.host.waiting[l.kind()]:
		l.turn.remove()
	}
}

// inTurn reports whether the lane waits for its turn, or for its host.
func (l *lane) inTurn() bool { return l.turn.in != nil }

// dispatch starts what may start. It is called after every change that could
// let an attempt begin.
func (e *Engine) dispatch() {
	for e.phase == phaseRunning && e.sending == sendingOn &&
		e.inFlight < e.cfg.MaxInFlight && e.unrecorded < e.cfg.MaxUnrecorded {
		l := e.next()
		if l == nil {
			return
		}
		since := l.turn.since
		e.stand(l)
		// The lane may have changed since it took its turn.
		h := l.host
		if _, early := l.early(); l.startable() && !early {
			if h == nil || e.admits(h) {
				e.start(l)
			} else {
				e.waitForHost(l, since)
			}
		}
		e.settle(l)
		if h != nil {
			e.callHost(h)
		}
	}
}

// next returns the lane whose turn it is, or nil when none may start. Where the first
// in turn may not, those behind it hold as much or more, and may not either.
func (e *Engine) next() *lane {
	next := e.turns[turnProven].first()
	if u := e.turns[turnUnproven].first(); u != nil && (next == nil || u.before(next)) && e.mayStartUnproven(u.seat.tenant) {
		next = u
	}
	if next == nil || !e.mayStart(next.seat.tenant) {
		return nil
	}
	return next.seat.lanes.first().lane
}

// mayStart reports whether the tenant may be given one more attempt: three quarters
// are for who comes first, the last one is for who holds little.
func (e *Engine) mayStart(t *tenant) bool {
	return !share.Scarce(int64(e.cfg.MaxInFlight), int64(e.inFlight)+1) || e.holdsLittle(t)
}

func (e *Engine) holdsLittle(t *tenant) bool {
	holders := e.holders
	if t.held == 0 {
		holders++
	}
	return share.Reserve(int64(e.cfg.MaxInFlight), int64(t.held)+1, holders)
}

// mayStartUnproven reports whether the tenant may be given an attempt of a lane whose
// last one did not succeed. Such attempts, and those that last too long, hold half of
// all: a quarter is for lanes that work, whosever they are. Who holds little may have
// them hold three quarters, and who holds nothing all but an eighth.
func (e *Engine) mayStartUnproven(t *tenant) bool {
	all := int64(e.cfg.MaxInFlight)
	half := all - 2*(all/4)
	if int64(e.inFlight) < half {
		return true // then those are fewer
	}
	if now := e.tick(); now-e.looked >= lookOverdue {
		e.markOverdue(now)
	}
	then := int64(e.unproven) + 1
	switch {
	case then <= half:
		return true
	case !share.Scarce(all, then):
		return e.holdsLittle(t)
	}
	return t.held == 0 && then <= all-max(all/8, min(all/4, 1))
}

// start begins an attempt of the lane's next delivery.
func (e *Engine) start(l *lane) {
	it := l.pick()
	e.uncount(it)
	it.started = e.tick()
	if rate := l.rate(); rate > 0 {
		l.pace.started(rate, it.started)
	}
	it.lane, it.target, it.tenant, it.host = l, l.target, l.tenant, l.host
	it.turned = notTurned
	it.epochs = l.epoch.Load() + e.epoch.Load()
	it.probe, it.proven, it.alone = l.pace.open(), l.pace.proven, l.inFlight == 0
	it.cancels = l.cancels
	if it.work.Replay {
		l.replaying++
	}
	if !it.work.Aside {
		l.inLine++
	}
	e.holds(it, 1)
	if it.host != nil {
		it.host.started(float64(e.cfg.HostRate), it.started)
	}
	if it.proven {
		e.flights.add(it)
	} else {
		e.unproven++
	}
	select {
	case e.hand <- it:
	default:
		e.attempts.Go(func() { e.carry(it) })
	}
}

// free gives back what start took.
func (e *Engine) free(it *item) {
	e.holds(it, -1)
	if it.proven {
		e.flights.remove(it)
	} else {
		e.unproven--
	}
	if it.host != nil {
		e.callHost(it.host)
		e.letGoHost(it.host)
	}
}

// holds counts an attempt that starts or ends.
func (e *Engine) holds(it *item, n int) {
	l, t := it.lane, it.tenant
	l.inFlight += n
	e.inFlight += n
	if t.held == 0 {
		e.holders++
	}
	if t.held += n; t.held == 0 {
		e.holders--
	}
	l.turn.hold(l.inFlight)
	for i := range t.seats {
		t.seats[i].place.hold(t.held)
	}
	if it.host != nil {
		it.host.inFlight += n
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
