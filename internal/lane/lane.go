package lane

import (
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// lane is all that the engine keeps of one endpoint. Engine.mu guards it, but
// for epoch.
type lane struct {
	e        *Engine
	endpoint int64
	// epoch counts the notices about this endpoint; see item.current.
	epoch atomic.Uint64

	// target is what the attempts use, nil until it was loaded. A stale one is
	// loaded again before the next attempt.
	target *store.Target
	stale  bool
	sends  sends // by the target
	// owned and ordered are the target's settings; see line.go.
	owned, ordered bool
	gone           bool // deleted: nothing is kept and nothing is sent any more
	// owner is whose the lane is, as far as that is known before its target is; tenant
	// follows the target.
	owner  int64
	tenant *tenant
	host   *host // of its url; nil without one, or without limits

	queue itemList
	// behind are deliveries taken while the backlog was closing: they follow what
	// is still parked.
	behind  itemList
	manual  itemList // see redeliver.go
	replays itemList
	backlog backlogState
	// fresh: the store may hold parked rows that no claim has looked for. asked: some
	// of them may have been asked for by hand, which is all that matters while the
	// endpoint is paused.
	fresh, asked bool
	// returns counts how often deliveries were parked, or found parked, that may
	// be older than a slot granted before.
	returns uint32
	// cancels counts how often deliveries were canceled.
	cancels uint32

	// What is between the engine and the store.
	reserved       int // slots granted and not yet settled
	reservedParked int // slots answered Parked and not yet settled
	parking        int // deliveries on their way back to the store
	unrecorded     int
	suspects       int // unrecorded results that will pause the endpoint

	pace     pace
	grant    grant
	inFlight int
	// replaying counts deliveries of replays in flight or unrecorded.
	replaying int
	// inLine counts the deliveries not aside that are in flight or unrecorded.
	inLine int
	// blockedUntil: the store has nothing for this lane before, however much is
	// parked; the head of the line waits for its time. Zero for not blocked.
	blockedUntil time.Time
	// recheck: what blocks the lane may have gone since a claim began.
	recheck bool

	// attended: an attendant works on it. tryAgain is when the store may be asked
	// again after it failed.
	attended bool
	tryAgain time.Time
	failures int // of the store, in a row

	// Places in the engine's lists.
	turn         place // among its tenant's lanes, or those that wait for its host
	seat         *seat // whose lane it is while it is in turn; else nil
	inService    bool
	wakeAt       time.Time
	wakeIndex    int // in the heap; -1 when absent
	restingPrev  *lane
	restingNext  *lane
	restingState bool
}

// sends is what of a lane's deliveries may be attempted.
type sends uint8

const (
	// sendsNothing: the tenant is suspended, the endpoint's status is of a newer
	// version, or the target was not read yet.
	sendsNothing sends = iota
	// sendsByHand: the endpoint is paused; what a user asks for now is attempted.
	sendsByHand
	sendsAll
)

func sendsOf(t *store.Target) sends {
	switch {
	case t.TenantSuspended:
		return sendsNothing
	case t.Endpoint.Active():
		return sendsAll
	case t.Endpoint.Status == posthorn.StatusPaused:
		return sendsByHand
	}
	return sendsNothing
}

// refuses reports whether the delivery is not to be attempted by the lane's target.
func (l *lane) refuses(w *store.Work) bool {
	return l.known() && (l.sends == sendsNothing || l.sends == sendsByHand && !w.Progress.Manual)
}

// backlogState says what new deliveries do while older ones may be parked.
type backlogState uint8

const (
	// backlogNone: nothing is parked; new deliveries join the queue.
	backlogNone backlogState = iota
	// backlogDraining: new deliveries are parked.
	backlogDraining
	// backlogClosing: a claim emptied the backlog, but slots answered Parked are
	// not yet settled; new deliveries wait in behind until those were fetched.
	backlogClosing
)

// item is an owned delivery in memory, queued or in flight.
type item struct {
	work store.Work
	next *item
	cost int64 // of Engine.bytes while queued

	// Set when the attempt starts.
	lane    *lane
	target  *store.Target
	tenant  *tenant
	host    *host
	started time.Duration // since the engine was made
	passage *passage      // that it entered last
	epochs  uint64        // of lane and engine together
	probe   bool          // the breaker is open
	proven  bool          // the lane was, and it does not last too long
	alone   bool          // no other of the lane was under way as it started
	earlier *item         // in flights
	later   *item
	suspect bool   // the result will pause the endpoint
	turned  turned // not begun, at the gate
	cancels uint32 // of the lane
}

// current reports whether no notice came since the attempt was decided on. It is
// asked before anything is done for it, and last at the gate. Each count only
// grows, so the sum tells any change.
func (it *item) current() bool {
	return it.lane.epoch.Load()+it.lane.e.epoch.Load() == it.epochs
}

// itemList is a queue.
type itemList struct {
	head, tail *item
	n          int
}

func (q *itemList) push(it *item) {
	if it.next = nil; q.tail == nil {
		q.head = it
	} else {
		q.tail.next = it
	}
	q.tail = it
	q.n++
}

func (q *itemList) pushFront(it *item) {
	it.next = q.head
	q.head = it
	if q.tail == nil {
		q.tail = it
	}
	q.n++
}

func (q *itemList) pop() *item {
	it := q.head
	if q.head = it.next; q.head == nil {
		q.tail = nil
	}
	it.next = nil
	q.n--
	return it
}

// appendTo empties the queue and appends it to other.
func (q *itemList) appendTo(other *itemList) {
	if q.n == 0 {
		return
	}
	if other.tail == nil {
		other.head = q.head
	} else {
		other.tail.next = q.head
	}
	other.tail = q.tail
	other.n += q.n
	*q = itemList{}
}

// lane returns the endpoint's lane, made if need be.
func (e *Engine) lane(endpoint int64) *lane {
	l := e.lanes[endpoint]
	if l == nil {
		l = &lane{e: e, endpoint: endpoint, wakeIndex: -1, pace: pace{window: 1}, grant: newGrant(e.cfg.QueuePerLane)}
		l.turn.lane = l
		e.lanes[endpoint] = l
	}
	return l
}

// known reports whether the target is loaded and nothing is known against it.
func (l *lane) known() bool { return l.target != nil && !l.stale }

// capacity is how many deliveries the lane may keep in memory.
func (l *lane) capacity() int {
	if l.ordered {
		return min(orderedQueue, l.e.cfg.QueuePerLane)
	}
	if l.pace.open() || l.pace.holdUntil > 0 {
		if now := l.e.elapsed(); l.pace.failing(now) {
			return l.failingRows(now)
		}
	}
	return l.e.cfg.QueuePerLane
}

// kept is how many deliveries the lane has in memory, or will have.
func (l *lane) kept() int { return l.queue.n + l.behind.n + l.reserved }

// room is how many deliveries the lane may have in memory more.
func (l *lane) room() int { return l.capacity() - l.kept() }

// fetches is how many it may have in memory of those that it fetches.
func (l *lane) fetches() int { return min(l.capacity(), l.grant.rows) }

// takes reports whether a delivery of that cost may join the lane in memory. A
// lane that works may grow into the half of the memory that nobody else uses.
func (l *lane) takes(tenant, cost int64) bool {
	switch c := &l.e.cfg; {
	case l.room() > 0:
		return l.e.held.fits(tenant, cost)
	case l.capacity() < c.QueuePerLane:
		return false
	default:
		return l.kept() < c.QueueBurst && l.e.held.taken+cost <= c.QueueBytes/2
	}
}

// startable reports whether the lane could start an attempt if its time came.
func (l *lane) startable() bool {
	if !l.known() || l.sends == sendsNothing {
		return false
	}
	return l.manualReady() || l.sends == sendsAll && l.suspects == 0 &&
		(l.queueReady() || l.replayReady()) && l.inFlight < l.pace.limit(l.target.Endpoint.Settings.InFlight())
}

// early reports whether it is too early for the lane's next attempt, and until
// when. Nearly always nothing holds it back, and the clock is not asked.
func (l *lane) early() (until time.Time, early bool) {
	at, rate := l.pace.notBefore(), l.rate()
	if l.manualReady() {
		at = l.pace.localUntil
	}
	if at == 0 && rate <= 0 {
		return time.Time{}, false
	}
	age := l.e.elapsed()
	wait := at - age
	if rate > 0 {
		wait = max(wait, l.pace.wait(rate, age))
	}
	if wait <= 0 {
		return time.Time{}, false
	}
	return l.e.cfg.Now().Add(wait), true
}

// paced reports whether the rate, or its host's, lets nothing start now.
func (l *lane) paced() bool {
	return l.pace.wait(l.rate(), l.e.elapsed()) > 0 || l.host != nil && l.host.wait(float64(l.e.cfg.HostRate), l.e.elapsed()) > 0
}

// rate is the target's limit of attempts started per second; 0 for none.
func (l *lane) rate() float64 {
	if l.target == nil {
		return 0
	}
	return l.target.Endpoint.Settings.RatePerSecond
}

// settle puts the lane where its state belongs: in turn for an attempt, to an
// attendant, asleep until a time, at rest, or away. It is called after
// every change of a lane.
func (e *Engine) settle(l *lane) {
	if l.gone {
		e.leave(l)
		return
	}
	if e.phase == phaseRunning {
		e.settleWork(l)
	}
	e.settleRest(l)
}

func (e *Engine) settleWork(l *lane) {
	if l.waitsForHost() {
		e.callHost(l.host)
	} else if l.startable() && !l.inTurn() {
		if at, early := l.early(); early {
			e.wakeLane(l, at)
		} else {
			e.takeTurn(l)
		}
	}
	if l.unseen() && l.blocked() {
		e.wakeLane(l, l.blockedUntil)
	}
	if !l.attended && !l.inService && (l.needsTarget() || l.needsRefill()) {
		now := e.cfg.Now()
		if l.tryAgain.Sub(now) > maxStoreRetry { // the clock has stepped back
			l.tryAgain = now
		}
		if l.tryAgain.After(now) {
			e.wakeLane(l, l.tryAgain)
			return
		}
		l.inService = true
		e.services.Push(l.owner, l)
		e.attendant.Signal()
	}
}

// needsTarget: a lane exists because something asked for it, so it is loaded at
// once.
func (l *lane) needsTarget() bool { return !l.known() }

// unseen reports whether the store may hold parked rows that the lane would be given.
func (l *lane) unseen() bool {
	if l.sends == sendsByHand {
		return l.backlog != backlogNone && l.asked
	}
	return l.backlog != backlogNone && l.fresh
}

// needsRefill: the backlog is fetched when half of the queue is sent, but not
// before what is on its way to the store has got there: it may be older.
func (l *lane) needsRefill() bool {
	if !l.unseen() || !l.known() || l.parking > 0 || l.e.sending != sendingOn || l.blocked() {
		return false
	}
	switch l.sends {
	case sendsByHand:
		return l.manual.n <= maxManual/2 && l.queue.n == 0
	case sendsAll:
		return l.queue.n <= l.fetches()/2 && (l.queue.n == 0 || l.e.held.fits(l.owner, claimCost))
	}
	return false
}

// settleRest keeps lanes with nothing to do for their target, the last used
// longest, up to maxResting.
func (e *Engine) settleRest(l *lane) {
	rest := l.queued()+l.inFlight+l.unrecorded+l.reserved+l.reservedParked+l.parking == 0 &&
		!l.attended && !l.inService && !l.inTurn() && l.known() && (l.sends == sendsNothing || !l.unseen() && (l.sends == sendsByHand || l.backlog == backlogNone))
	if rest == l.restingState {
		return
	}
	if !rest {
		e.resting.remove(l)
		return
	}
	e.resting.push(l)
	if e.resting.n > maxResting {
		e.forget(e.resting.head)
	}
}

// forget lets go of a resting lane. All that is lost can be loaded again.
func (e *Engine) forget(l *lane) {
	if l.restingState {
		e.resting.remove(l)
	}
	if l.wakeIndex >= 0 {
		e.wakes.remove(l)
	}
	e.joinTenant(l, nil)
	e.joinHost(l, "")
	delete(e.lanes, l.endpoint)
}

// leave drops what a deleted endpoint's lane holds (the store cancels the rows)
// and the lane itself once nobody refers to it.
func (e *Engine) leave(l *lane) {
	e.letGo(e.all(l))
	l.backlog, l.fresh = backlogNone, false
	if l.inFlight+l.unrecorded+l.reserved+l.reservedParked+l.parking == 0 && !l.attended && !l.inService && !l.inTurn() {
		e.forget(l)
	}
}

// letGo lets go of deliveries that the store settles by itself.
func (e *Engine) letGo(list []parking) {
	for _, p := range list {
		e.cfg.Store.Forget(p.hold)
	}
}

// count and uncount keep the figures of what is queued.
func (e *Engine) count(it *item) {
	e.queued++
	e.held.add(it.work.Tenant, it.cost)
}

func (e *Engine) uncount(it *item) {
	e.queued--
	e.held.add(it.work.Tenant, -it.cost)
}

// restingList is a list of lanes with nothing to do, the longest first.
type restingList struct {
	head, tail *lane
	n          int
}

func (r *restingList) push(l *lane) {
	l.restingState, l.restingPrev, l.restingNext = true, r.tail, nil
	if r.tail == nil {
		r.head = l
	} else {
		r.tail.restingNext = l
	}
	r.tail = l
	r.n++
}

func (r *restingList) remove(l *lane) {
	if l.restingPrev == nil {
		r.head = l.restingNext
	} else {
		l.restingPrev.restingNext = l.restingNext
	}
	if l.restingNext == nil {
		r.tail = l.restingPrev
	} else {
		l.restingNext.restingPrev = l.restingPrev
	}
	l.restingState, l.restingPrev, l.restingNext = false, nil, nil
	r.n--
}

// empty takes the deliveries out of the queue, to be given back.
func (e *Engine) empty(q *itemList) []parking {
	list := make([]parking, 0, q.n)
	for q.n > 0 {
		it := q.pop()
		e.uncount(it)
		list = append(list, parkingOf(&it.work))
	}
	return list
}
