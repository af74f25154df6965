package lane

import (
	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// What stands outside the line: attempts that users asked for go before all
// others and do not wait for a probe or a hold; what a replay opened goes behind
// them all.

const (
	// maxManual bounds what a lane keeps in memory of the first kind.
	maxManual = 64
	// replayWindow is how many deliveries of replays a lane takes at a time, and
	// maxReplays how many it keeps with those that failed and are due again.
	replayWindow = 128
	maxReplays   = 256
)

// besides is the list of those that stand outside the line; nil when the
// delivery stands in it, or that list is full.
func (l *lane) besides(w *store.Work) *itemList {
	switch {
	case l.ordered && !w.Aside: // its place is in the line
		return nil
	case w.Progress.Manual && l.manual.n < maxManual:
		return &l.manual
	case !w.Progress.Manual && w.Replay && l.replays.n < maxReplays:
		return &l.replays
	}
	return nil
}

// manualReady: what a user asked for spends no probe and waits for none, also when
// it is the queue's.
func (l *lane) manualReady() bool {
	return (l.manual.n > 0 || l.nextByHand()) && l.inFlight < l.target.Endpoint.Settings.InFlight()
}

// nextByHand reports whether the queue's next was asked for by hand: it stands in a
// line, or there was no room for it beside.
func (l *lane) nextByHand() bool {
	return l.queue.n > 0 && l.queue.head.work.Progress.Manual && (!l.ordered || l.inLine == 0)
}

// replayReady: new deliveries go first, those that are parked too. A line that
// waits for its head holds up no replay.
func (l *lane) replayReady() bool {
	switch {
	case l.replays.n == 0:
		return false
	case l.ordered:
		return !l.queueReady()
	}
	return l.queue.n+l.behind.n == 0 && l.backlog == backlogNone
}

// pick takes the lane's next delivery; the lane is startable.
func (l *lane) pick() *item {
	switch {
	case l.manualReady() && l.manual.n > 0:
		return l.manual.pop()
	case l.manualReady():
		return l.queue.pop()
	case l.queueReady():
		return l.nextInLine()
	}
	return l.replays.pop()
}

// leave undoes what start counted of a delivery's kind, when its attempt was
// recorded or not made.
func (l *lane) leave(it *item) {
	if it.work.Replay {
		l.replaying--
	}
	if !it.work.Aside {
		l.inLine--
	}
}

// queued counts what the lane has in memory.
func (l *lane) queued() int { return l.queue.n + l.behind.n + l.manual.n + l.replays.n }

// all empties the lane's lists.
func (e *Engine) all(l *lane) []parking {
	return append(e.ordinary(l), e.empty(&l.manual)...)
}

// ordinary empties them but for that of what was asked for by hand.
func (e *Engine) ordinary(l *lane) []parking {
	return append(append(e.empty(&l.queue), e.empty(&l.behind)...), e.empty(&l.replays)...)
}

// refused takes out what the target forbids: of a paused endpoint all but what was
// asked for by hand. What of that stands in its line is found there again.
func (e *Engine) refused(l *lane) []parking {
	if l.sends == sendsByHand {
		return e.ordinary(l)
	}
	return e.all(l)
}

// Recall lets go of a delivery that waits in memory and reports whether there was
// one: no attempt of it is made or about to be. The caller gives it back with
// GiveBack, or has the store do something else with it.
func (e *Engine) Recall(endpoint int64, id posthorn.ID) (store.Hold, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[endpoint]
	if l == nil || e.phase != phaseRunning {
		return store.Hold{}, false
	}
	for _, q := range []*itemList{&l.queue, &l.behind, &l.manual, &l.replays} {
		if it := q.remove(id); it != nil {
			e.uncount(it)
			e.settle(l)
			return it.work.Hold(), true
		}
	}
	return store.Hold{}, false
}

// GiveBack hands a delivery that was recalled back to the store.
func (e *Engine) GiveBack(endpoint int64, h store.Hold) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lane(endpoint)
	e.giveBack(l, []parking{{hold: h, byHand: true}}) // it may be one
	e.settle(l)
}

// remove takes a delivery out of the queue; nil when it is not there.
func (q *itemList) remove(id posthorn.ID) *item {
	var before *item
	for it := q.head; it != nil; before, it = it, it.next {
		if it.work.ID != id {
			continue
		}
		if before == nil {
			q.head = it.next
		} else {
			before.next = it.next
		}
		if q.tail == it {
			q.tail = before
		}
		it.next = nil
		q.n--
		return it
	}
	return nil
}

// Wake has the store asked for what is due, because something was made so.
func (e *Engine) Wake() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.due(e.cfg.Now())
}

// Canceled tells how often deliveries were canceled so far: see Take.
func (e *Engine) Canceled() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.canceled
}

// Take hands over what a replay opened, or the test of an endpoint, owned by this
// process. canceled is what Canceled returned before it was opened: what was canceled
// since is not kept.
func (e *Engine) Take(works []store.Work, canceled uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.receiveAll(works, canceled)
}

func (e *Engine) receiveAll(works []store.Work, canceled uint64) {
	for i := range works {
		if canceled != e.canceled || e.phase == phaseStopped {
			l := e.lane(works[i].Endpoint)
			e.giveBack(l, []parking{parkingOf(&works[i])})
			e.settle(l)
			continue
		}
		e.receive(&works[i])
	}
	e.dispatch()
}

// ReplayRoom is how many deliveries of replays the endpoint's lane would take now:
// none while it is paused, asked to be left alone or has a backlog, and one at a
// time as a probe while it fails.
func (e *Engine) ReplayRoom(endpoint int64) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != phaseRunning || e.sending != sendingOn {
		return 0
	}
	l := e.lane(endpoint)
	defer e.settle(l)
	now := e.elapsed()
	switch {
	case !l.known() || l.sends != sendsAll || l.backlog != backlogNone && !l.ordered, l.pace.holdUntil > now, l.pace.localUntil > now:
		return 0
	case l.pace.open():
		return max(0, 1-l.queued()-l.inFlight)
	}
	if free := replayWindow - l.replays.n - l.replaying; free >= replayWindow/2 {
		return free
	}
	return 0 // few at a time would cost a commit each
}

// takeBack takes back what the endpoint's lane (0: all of them) has in memory: the
// store parks what is still open and forgets what was canceled. Attempts that were
// decided on and have not begun are given back, too.
func (e *Engine) takeBack(endpoint int64) {
	e.canceled++
	if endpoint == 0 {
		for _, l := range e.lanes {
			if l.queued()+l.inFlight+l.reserved > 0 {
				e.takeBackFrom(l)
			}
		}
	} else if l := e.lanes[endpoint]; l != nil {
		e.takeBackFrom(l)
	}
}

func (e *Engine) takeBackFrom(l *lane) {
	l.epoch.Add(1)
	l.cancels++
	l.returns++
	e.giveBack(l, e.all(l))
	l.fresh = l.fresh || l.parking == 0
	e.settle(l)
}
