package lane

import (
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// What goes between the lanes and the store: attendants load targets and fetch
// backlogs, each lane by one attendant at a time; the parker gives deliveries back.

const (
	minStoreRetry = 100 * time.Millisecond
	maxStoreRetry = 5 * time.Second
	parkBatch     = 1000
)

// attend serves lanes until the engine stops.
func (e *Engine) attend() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for e.services.Len() == 0 && e.phase == phaseRunning {
			e.attendant.Wait()
		}
		if e.phase != phaseRunning {
			return
		}
		l := e.services.Pop()
		l.inService, l.attended = false, true
		var err error
		switch {
		case l.gone:
		case l.needsTarget():
			err = e.load(l)
		case l.needsRefill():
			err = e.refill(l)
		}
		l.attended = false
		e.heard(l, err)
		e.settle(l)
		e.dispatch()
	}
}

// heard spaces out the questions to a store that fails.
func (e *Engine) heard(l *lane, err error) {
	if err == nil {
		l.failures, l.tryAgain = 0, time.Time{}
		return
	}
	wait := min(minStoreRetry<<min(l.failures, 10), maxStoreRetry)
	l.failures++
	l.tryAgain = e.cfg.Now().Add(wait)
	e.cfg.Log.Warn("the store did not answer the delivery engine", "endpoint", l.endpoint, "error", err, "again_in", wait)
}

// load reads the lane's target. It is called with the lock held and gives it
// up while it reads.
func (e *Engine) load(l *lane) error {
	epochs := l.epoch.Load() + e.epoch.Load()
	e.mu.Unlock()
	t, err := e.cfg.Store.Target(e.ctx, l.endpoint)
	e.mu.Lock()
	switch {
	case epochs != l.epoch.Load()+e.epoch.Load():
		return nil // a notice came meanwhile: what was read may be old
	case errors.Is(err, store.ErrNotFound), err == nil && !t.Endpoint.DeletedAt.IsZero():
		l.gone = true
		return nil
	case err != nil:
		return err
	}
	e.aim(l, &t)
	return nil
}

// aim gives the lane a new target.
func (e *Engine) aim(l *lane, t *store.Target) {
	first, wasActive := l.target == nil, l.sends == sendsAll
	resettled := first || l.target.Endpoint.SettingsVersion != t.Endpoint.SettingsVersion
	l.target, l.stale = t, false
	l.owned, l.ordered = t.Owned, t.Endpoint.Settings.Ordered
	l.blockedUntil = time.Time{}
	// What was taken over before is behind what the store has parked meanwhile.
	joins := l.owned && resettled
	l.sends = sendsOf(t)
	e.joinTenant(l, &t.Endpoint.Tenant)
	l.owner = t.Endpoint.Tenant
	e.joinHost(l, t.Endpoint.URL)
	// A lane knows its pace better than the stored health does, unless it was just
	// made or resumed: then the store has reset the health.
	if !wasActive || l.inFlight+l.unrecorded == 0 && t.Health.Failures < l.pace.failures {
		spent, usual := l.pace.spent, l.pace.usual
		l.pace = paceOf(t.Health, e.cfg.Now(), e.elapsed())
		if first && l.pace.open() {
			l.grant = newGrant(min(failingQueue, e.cfg.QueuePerLane))
		}
		l.pace.usual = usual
		if l.pace.spent = spent; first {
			l.paceItself(t.Health)
		}
	}
	switch {
	case l.sends != sendsAll:
		l.returns++
		e.giveBack(l, e.refused(l))
		l.fresh, l.asked = l.fresh || t.Parked, l.asked || t.Parked
	case t.Parked && (first || l.backlog == backlogNone), joins && l.queue.n+l.behind.n > 0:
		l.returns++
		// What is in memory goes behind what is parked. The store keeps the order.
		e.giveBack(l, append(e.empty(&l.queue), e.empty(&l.behind)...))
		l.fresh = l.fresh || t.Parked
	case t.Parked:
		l.fresh = true
	default:
		e.trim(l)
	}
	if back := e.standing(l); len(back) > 0 {
		e.giveBack(l, back)
	}
	if !t.Parked && l.backlog == backlogDraining && l.reservedParked+l.parking == 0 {
		l.fresh = true // the next claim closes the backlog
	}
}

// refill fetches a part of the lane's backlog, like load.
func (e *Engine) refill(l *lane) error {
	if l.backlog == backlogClosing && l.room() <= 0 {
		e.giveBack(l, nil)
		return nil
	}
	room := l.fetches() - l.kept()
	if l.sends == sendsByHand {
		room = maxManual - l.manual.n
	}
	// One is always fetched: a lane must not starve because others fill the memory.
	limit, coming, owner := 1, int64(itemOverhead), l.owner
	if fit := min(room, int(e.held.left(l.owner)/claimCost)); fit > 0 {
		limit, coming = fit, int64(fit)*claimCost
	}
	e.held.add(owner, coming)
	l.fresh, l.asked, l.blockedUntil = false, false, time.Time{}
	returns := l.returns
	e.mu.Unlock()
	works, more, next, err := e.cfg.Store.ClaimParked(e.ctx, l.endpoint, limit)
	e.mu.Lock()
	e.held.add(owner, -coming)
	var claimed itemList
	for i := range works {
		it := &item{work: works[i], cost: int64(len(works[i].Body)) + itemOverhead}
		e.count(it)
		claimed.push(it)
	}
	if returns != l.returns { // older ones may be on their way to the store
		e.giveBack(l, e.empty(&claimed))
	}
	e.sortOut(l, &claimed)
	if !next.IsZero() {
		e.due(next)
		if len(works) == 0 && more && !l.recheck {
			l.blockedUntil = next
		}
	}
	l.recheck = false
	again := err != nil || more && (len(works) > 0 || !next.IsZero())
	switch {
	case l.sends == sendsByHand:
		l.asked = l.asked || again // the rest waits for the resume
	case again:
		l.fresh = true
	case more: // it is paused or suspended by now, which a notice will tell
	case l.fresh || l.parking > 0: // something was parked during the claim
	case l.reservedParked > 0:
		l.backlog = backlogClosing
	default:
		l.backlog = backlogNone
		l.behind.appendTo(&l.queue)
	}
	return err
}

// sortOut puts what was claimed where it belongs.
func (e *Engine) sortOut(l *lane, claimed *itemList) {
	for claimed.n > 0 {
		it := claimed.pop()
		if beside := l.besides(&it.work); beside != nil {
			beside.push(it)
		} else {
			l.queue.push(it)
		}
	}
}

// backlogFound is told of an endpoint that has parked rows.
func (e *Engine) backlogFound(endpoint int64) {
	l := e.lane(endpoint)
	l.asked = true
	switch {
	case l.backlog != backlogNone:
		l.fresh = true
	case l.target == nil && l.queue.n+l.reserved == 0:
		l.backlog, l.fresh = backlogDraining, true
	default:
		l.stale = true // loading it finds the parked rows
	}
	e.settle(l)
}

// parking is a delivery on its way back to the store.
type parking struct {
	lane   *lane // set by giveBack
	hold   store.Hold
	byHand bool
}

func parkingOf(w *store.Work) parking {
	return parking{hold: w.Hold(), byHand: w.Progress.Manual}
}

// giveBack hands owned deliveries to the parker. From here on the lane has a
// backlog; what waited behind one that was closing goes with them. An engine that
// has stopped leaves them to the store, which gives up what it holds when it is closed.
func (e *Engine) giveBack(l *lane, list []parking) {
	if e.phase == phaseStopped {
		return
	}
	if l.backlog == backlogClosing {
		list = append(list, e.empty(&l.behind)...)
		l.returns++
	}
	l.backlog = backlogDraining
	if len(list) == 0 {
		return
	}
	l.returns++
	l.parking += len(list)
	for i := range list {
		list[i].lane = l
	}
	e.parking = append(e.parking, list...)
	e.parked.Broadcast()
}

// park is the parker: it gives deliveries back to the store, as many at once as
// there are, until the engine has stopped and none are left.
func (e *Engine) park() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for len(e.parking) == 0 && e.phase != phaseStopped {
			e.parked.Wait()
		}
		if len(e.parking) == 0 {
			return
		}
		n := min(len(e.parking), parkBatch)
		batch := e.parking[:n:n]
		if e.parking = e.parking[n:]; len(e.parking) == 0 {
			e.parking = nil
		}
		e.mu.Unlock()
		err := e.parkRows(batch)
		e.mu.Lock()
		for _, p := range batch {
			p.lane.parking--
			p.lane.fresh = p.lane.fresh || err == nil
			p.lane.asked = p.lane.asked || err == nil && p.byHand
			e.settle(p.lane)
		}
	}
}

// parkRows repeats until the rows are parked or the engine gives up on the
// store, which then finds them when it is opened again.
func (e *Engine) parkRows(batch []parking) error {
	holds := make([]store.Hold, len(batch))
	for i, p := range batch {
		holds[i] = p.hold
	}
	for wait := minStoreRetry; ; wait = min(2*wait, maxStoreRetry) {
		err := e.cfg.Store.Park(e.ctx, holds)
		if err == nil {
			return nil
		}
		e.cfg.Log.Warn("deliveries could not be given back to the store", "count", len(holds), "error", err)
		if !pause(e.ctx, wait) {
			return context.Cause(e.ctx)
		}
	}
}
