package lane

import (
	"container/heap"
	"slices"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

const (
	claimBatch = 512
	// lookInterval spaces out claims made only to learn what the store holds.
	lookInterval = 50 * time.Millisecond
	// storePause is how long the scheduler lets a failing store alone.
	storePause = time.Second
	// maxSleep bounds how late a step of the wall clock is noticed: the store's
	// times are wall times, timers run by the monotonic clock.
	maxSleep = time.Minute
)

// switchState is the installation's sending switch as the engine knows it.
type switchState uint8

const (
	sendingStale switchState = iota // to be read before the next attempt
	sendingOff
	sendingOn
)

// schedule is the scheduler: one goroutine and one timer for all that waits.
func (e *Engine) schedule() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed time.Time // when the store may be asked again
	var last time.Time
	for {
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.stopWork:
			return
		}
		now := e.cfg.Now()
		if failed.Sub(now) > storePause { // the clock has stepped back
			failed = now
		}
		if !now.Before(failed) {
			e.moves.Begin()
			err := e.consult(now)
			if e.moves.End(err == nil); err != nil {
				e.cfg.Log.Warn("the store did not answer the delivery engine", "error", err, "again_in", storePause)
				failed = now.Add(storePause)
			}
		}
		e.mu.Lock()
		if now.Before(last) { // the clock has stepped back
			e.wakeAll()
		}
		last = now
		e.wakeLanes(now)
		next := e.nextWake(failed)
		e.mu.Unlock()
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(min(max(next.Sub(e.cfg.Now()), 0), maxSleep))
		}
	}
}

// consult asks the store whatever must be asked now.
func (e *Engine) consult(now time.Time) error {
	if err := e.readSwitch(); err != nil {
		return err
	}
	if err := e.findBacklogs(); err != nil {
		return err
	}
	return e.claimDue(now)
}

// wakeLanes settles the lanes whose time came, each once: when the clock has
// stepped back since now was read, one may go to sleep again until a time that is
// not after now.
func (e *Engine) wakeLanes(now time.Time) {
	var due []*lane
	for len(e.wakes) > 0 && !e.wakes[0].wakeAt.After(now) {
		due = append(due, heap.Pop(&e.wakes).(*lane))
	}
	for _, l := range due {
		e.settle(l)
	}
	e.dispatch()
}

// wakeAll settles all that waits for a time: waits of the engine's own are
// shorter than the clock now says.
func (e *Engine) wakeAll() {
	for _, l := range slices.Clone(e.wakes) {
		e.settle(l)
	}
	e.dispatch()
}

// nextWake is when the scheduler has something to do next; zero for never.
func (e *Engine) nextWake(failed time.Time) (next time.Time) {
	if len(e.wakes) > 0 {
		next = e.wakes[0].wakeAt
	}
	at := e.nextDue
	if e.sending != sendingOn {
		at = time.Time{}
	}
	if e.sending == sendingStale || e.rescan {
		at = e.cfg.Now()
	}
	if !at.IsZero() {
		at = later(at, failed)
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// poke makes the scheduler look at its times again.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// due has ClaimDue called at a time, if it is not called earlier.
func (e *Engine) due(at time.Time) {
	if e.nextDue.IsZero() || at.Before(e.nextDue) {
		e.nextDue = at
		e.poke()
	}
}

// lookSoon has ClaimDue called soon to learn of times that only the store knows.
func (e *Engine) lookSoon() {
	now := e.cfg.Now()
	at := later(now, e.lastClaim.Add(lookInterval))
	if soon := now.Add(lookInterval); at.After(soon) { // the clock has stepped back
		at = soon
	}
	e.due(at)
}

// readSwitch reads the sending switch if a notice told that it may have moved.
func (e *Engine) readSwitch() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.sending == sendingStale {
		epoch := e.epoch.Load()
		e.mu.Unlock()
		on, err := e.cfg.Store.Sending(e.ctx)
		e.mu.Lock()
		if err != nil {
			return err
		}
		if epoch != e.epoch.Load() {
			continue
		}
		if e.sending = sendingOff; on {
			e.sending = sendingOn
			for _, l := range e.lanes {
				e.settle(l)
			}
		}
	}
	return nil
}

// findBacklogs looks for backlogs of endpoints that have no lane, when a notice
// told that there may be some.
func (e *Engine) findBacklogs() error {
	e.mu.Lock()
	wanted := e.rescan
	e.rescan = false
	e.mu.Unlock()
	if !wanted {
		return nil
	}
	ids, err := e.parkedEndpoints(e.ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.rescan = true
		return err
	}
	for _, id := range ids {
		e.backlogFound(id)
	}
	return nil
}

// claimDue takes over what is due, batch by batch.
func (e *Engine) claimDue(now time.Time) error {
	for {
		e.mu.Lock()
		if e.sending != sendingOn || e.nextDue.IsZero() || e.nextDue.After(now) {
			e.mu.Unlock()
			return nil
		}
		// What is recorded from here on sets nextDue itself.
		e.nextDue, e.lastClaim = time.Time{}, now
		canceled := e.canceled
		e.mu.Unlock()
		works, next, err := e.cfg.Store.ClaimDue(e.ctx, now, claimBatch)
		e.mu.Lock()
		e.receiveAll(works, canceled)
		switch {
		case err != nil:
			e.due(now)
		case !next.IsZero() && len(works) == 0 && !next.After(now):
			e.due(now.Add(time.Millisecond)) // the store's clock is coarser than ours
		case !next.IsZero():
			e.due(next)
		}
		e.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// receive gives a due delivery to its lane, or back to the store if the lane
// cannot take it.
func (e *Engine) receive(w *store.Work) {
	l := e.lane(w.Endpoint)
	it := &item{work: *w, cost: int64(len(w.Body)) + itemOverhead}
	beside := l.besides(w)
	switch {
	case l.gone:
		e.cfg.Store.Forget(w.Hold())
	case l.refuses(w):
		e.giveBack(l, []parking{parkingOf(w)})
	case beside != nil:
		e.count(it)
		beside.push(it)
	case l.sends == sendsAll && l.ordered && w.Aside && l.room() > 0:
		// It neither joins the backlog nor waits for it.
		e.count(it)
		l.queue.push(it)
	case l.ordered:
		// To its place in the line, or to where the next claim finds it.
		e.giveBack(l, []parking{parkingOf(w)})
		e.unblock(l)
	case l.backlog == backlogDraining, !l.takes(w.Tenant, it.cost):
		e.giveBack(l, []parking{parkingOf(w)})
	case l.backlog == backlogClosing:
		e.count(it)
		l.behind.push(it)
	default:
		e.count(it)
		l.queue.push(it)
	}
	e.settle(l)
}
