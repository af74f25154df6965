// Package lane is the delivery engine: it decides when which delivery is
// attempted, and nothing else. Each endpoint with something to do has a lane of
// its own (a bounded queue, a window of concurrent attempts, a breaker, holds),
// so that a slow, hanging or dead endpoint takes nothing from another. What
// does not fit into memory stays in the store, parked behind its lane.
//
// DESIGN.md tells the guarantees, the stages and what fails how.
package lane

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
)

// Store is the part of the store that the engine needs.
type Store interface {
	store.Queue
	// Target is [store.Endpoints.Target].
	Target(ctx context.Context, endpoint int64) (store.Target, error)
	// Sending is [store.Tenants.Sending].
	Sending(ctx context.Context) (bool, error)
}

// Sender makes exactly one attempt and never repeats it. Neither t nor w may be
// kept or changed. It enters the gate before the first byte goes out, and before
// anything that the receiver could notice. When ctx ends it returns soon, with
// [posthorn.ClassLocal] unless the answer is there. It is called concurrently.
type Sender interface {
	Send(ctx context.Context, t *store.Target, w *store.Work, g Gate) posthorn.Attempt
}

// Config is what an [Engine] is made of. Store and Sender are required; the
// zero value of every other field means its default.
type Config struct {
	Store  Store
	Sender Sender
	Policy posthorn.Policy // default: posthorn.DefaultPolicy
	// MaxInFlight bounds the attempts at a time (4,096). The last quarter of them is
	// kept for tenants that hold little, and of the others a third for lanes whose
	// last attempt succeeded.
	MaxInFlight int
	// HostInFlight bounds a tenant's attempts at a time to one host, HostRate how many
	// of them start in a second. 0 is no bound, and the default.
	HostInFlight, HostRate int
	// MaxUnrecorded is how many results may wait to be recorded before no attempt
	// starts (1,000). Attempts in flight then may still add theirs.
	MaxUnrecorded int
	// QueuePerLane bounds what one lane keeps in memory (1,024), QueueBurst what it
	// may keep of new deliveries while the queues together use less than half of
	// QueueBytes (16,384, or QueuePerLane if that is given): what fits need not be
	// read from the store again.
	QueuePerLane int
	QueueBurst   int
	// QueueBytes bounds what all queues keep in memory, bodies included (64 MiB);
	// each lane may have one delivery more. The last quarter is kept for tenants that
	// hold little.
	QueueBytes int64
	Now        func() time.Time
	Random     func() float64 // in [-1, 1)
	// Observe is called once for each attempt, after its result was recorded or
	// given up, concurrently, with no lock held.
	Observe func(Observation)
	Log     *slog.Logger
}

// Observation is one attempt and what was made of it.
type Observation struct {
	Work     *store.Work // as it was when the attempt began
	Target   *store.Target
	Attempt  posthorn.Attempt
	Recorded store.Recorded
	// Err is why the result could not be recorded before the engine stopped; nil
	// otherwise. The delivery will be attempted again after the next start.
	Err error
	// Lag is how long the attempt began after it could have: after the event's
	// acceptance or the delivery's NextAt.
	Lag time.Duration
}

const (
	defaultMaxInFlight   = 4096
	defaultMaxUnrecorded = 1000
	defaultQueuePerLane  = 1024
	defaultQueueBurst    = 16 * defaultQueuePerLane
	defaultQueueBytes    = 64 << 20

	// itemOverhead is what a queued delivery costs beside its body.
	itemOverhead = 384
	// claimCost is what one may cost that a claim brings.
	claimCost = itemOverhead + store.ClaimedBody
	// failingQueue is how much of its queue a failing lane keeps in memory.
	failingQueue = 16
	// maxResting bounds the lanes that are kept for their target alone.
	maxResting = 16_384
	// maxIdle is how many goroutines wait for another attempt to carry. Their
	// stacks have grown already, which cost a busy engine 3 % of its time.
	maxIdle = 64
	// attendants is how many goroutines load targets and fetch backlogs.
	attendants = 8
)

type phase uint8

const (
	phaseNew phase = iota
	phaseRunning
	phaseDraining
	phaseStopped
)

// Engine is the delivery engine. Its methods may be called concurrently.
//
// One mutex guards all lanes: the sections under it are a few hundred
// nanoseconds long and hold no call out of this package, which is cheaper and far
// easier to prove right than a lock per lane with a fair scheduler above.
type Engine struct {
	cfg  Config
	made time.Time

	// epoch counts the events that stop all lanes; see item.current.
	epoch atomic.Uint64
	// erased are events whose payload may be in memory and must not be sent.
	erased erased

	mu         sync.Mutex
	phase      phase
	sending    switchState
	lanes      map[int64]*lane
	tenants    map[int64]*tenant
	hosts      map[hostKey]*host
	turns      [2]queue // tenants that could start an attempt: [proven], [unproven]
	arrivals   uint64   // of those that took their turns
	inFlight   int
	holders    int           // tenants that have attempts in flight
	unproven   int           // of inFlight: started by lanes that were not proven, or too long
	flights    flights       // the others
	looked     time.Duration // when those were last looked through
	seen       time.Duration // the age when the clock was last asked
	unrecorded int
	queued     int
	held       heldBytes // of queues and reservations
	resting    restingList
	wakes      wakeHeap                  // lanes that wait for a time
	services   share.Queue[int64, *lane] // lanes that wait for an attendant, by tenant
	attendant  sync.Cond
	parking    []parking // to be given back to the store
	parked     sync.Cond // signals both ways between the parker and those that wait for it
	nextDue    time.Time // when ClaimDue is called next; zero for never
	lastClaim  time.Time
	canceled   uint64 // how often deliveries were canceled
	rescan     bool
	moves      store.Moves   // of the scheduler
	recording  store.Moves   // while no attempt starts for want of records
	wake       chan struct{} // of the scheduler; holds one
	quiet      chan struct{} // closed when a drain finds nothing in flight or unrecorded

	ctx            context.Context // ends when the engine gives up on the store
	cancel         context.CancelFunc
	attemptCtx     context.Context // ends when the attempts in flight are cut short
	cancelAttempts context.CancelFunc
	stopWork       chan struct{} // closed when nothing new begins
	stopped        chan struct{} // closed when all is over
	workers        sync.WaitGroup
	attempts       sync.WaitGroup
	hand           chan *item   // to a goroutine that has just carried another
	idle           atomic.Int32 // of those
	recordings     recordings
	parker         sync.WaitGroup
}

// New returns an engine that does nothing before [Engine.Start].
func New(c Config) *Engine {
	orDefault(&c.MaxInFlight, defaultMaxInFlight)
	orDefault(&c.MaxUnrecorded, defaultMaxUnrecorded)
	if c.QueuePerLane > 0 {
		orDefault(&c.QueueBurst, c.QueuePerLane)
	}
	orDefault(&c.QueuePerLane, defaultQueuePerLane)
	orDefault(&c.QueueBurst, defaultQueueBurst)
	orDefault(&c.QueueBytes, defaultQueueBytes)
	// An empty schedule alone means no retries.
	if c.Policy.Schedule == nil && c.Policy.LocalRetry == 0 {
		c.Policy = posthorn.DefaultPolicy()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = func() float64 { return 2*rand.Float64() - 1 }
	}
	if c.Observe == nil {
		c.Observe = func(Observation) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg:      c,
		held:     newHeldBytes(c.QueueBytes),
		made:     time.Now(),
		lanes:    make(map[int64]*lane),
		tenants:  make(map[int64]*tenant),
		hosts:    make(map[hostKey]*host),
		wake:     make(chan struct{}, 1),
		quiet:    make(chan struct{}),
		stopWork: make(chan struct{}),
		hand:     make(chan *item),
		stopped:  make(chan struct{}),
	}
	e.attendant.L = &e.mu
	e.parked.L = &e.mu
	return e
}

func orDefault[T int | int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Start begins with what the store holds and returns when every lane with a
// backlog is known. ctx bounds the start alone; [Engine.Drain] ends the engine.
// A second Start does nothing; a drained engine cannot be started again.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase == phaseRunning {
		return nil
	}
	if e.phase != phaseNew {
		return fmt.Errorf("lane: the engine was drained; make a new one")
	}
	e.mu.Unlock()
	backlogs, err := e.parkedEndpoints(ctx)
	e.mu.Lock()
	if err != nil {
		return fmt.Errorf("lane: reading what waits: %w", err)
	}
	if e.phase != phaseNew { // another Start or a Drain was faster
		return nil
	}
	e.phase = phaseRunning
	life := context.WithoutCancel(ctx)
	e.ctx, e.cancel = context.WithCancel(life)
	e.attemptCtx, e.cancelAttempts = context.WithCancel(life)
	e.nextDue = e.cfg.Now()
	for _, id := range backlogs {
		e.backlogFound(id)
	}
	for range attendants {
		e.workers.Go(e.attend)
	}
	e.workers.Go(e.schedule)
	e.parker.Go(e.park)
	for _, l := range e.lanes {
		e.settle(l)
	}
	return nil
}

// parkedEndpoints lists the endpoints that have a backlog to be sent.
func (e *Engine) parkedEndpoints(ctx context.Context) (all []int64, err error) {
	const page = 1000
	for after := int64(0); ; {
		ids, err := e.cfg.Store.ParkedEndpoints(ctx, after, page)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
		if len(ids) < page {
			return all, nil
		}
		after = ids[len(ids)-1]
	}
}

// Snapshot is what the engine knows of an endpoint now; zero when it has no
// lane.
type Snapshot struct {
	InFlight, Queued int
	// Backlogged: more waits in the store.
	Backlogged  bool
	BreakerOpen bool
	// NextProbe is when an open breaker lets one attempt through.
	NextProbe time.Time
	// HoldUntil is how long the receiver asked to be left alone; zero or past
	// when it did not.
	HoldUntil time.Time
}

// Snapshot returns what the engine knows of an endpoint.
func (e *Engine) Snapshot(endpoint int64) Snapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[endpoint]
	if l == nil {
		return Snapshot{}
	}
	return Snapshot{
		InFlight:    l.inFlight,
		Queued:      l.queued(),
		Backlogged:  l.backlog != backlogNone,
		BreakerOpen: l.pace.open(),
		NextProbe:   e.timeOf(l.pace.nextProbe),
		HoldUntil:   e.timeOf(l.pace.holdUntil),
	}
}

// timeOf is the time of a moment of the engine's life; zero for none.
func (e *Engine) timeOf(age time.Duration) time.Time {
	if age == 0 {
		return time.Time{}
	}
	return e.cfg.Now().Add(age - e.elapsed())
}

// Standing implements [store.Mover].
func (e *Engine) Standing() []store.Standing {
	return e.recording.Stand(e.moves.Stand(nil, "scheduler"), "recorder")
}

// Stats are figures of the whole engine.
type Stats struct {
	InFlight, Queued, Lanes, Unrecorded int
	// Unproven are those in flight of lanes whose last attempt did not succeed, and
	// those that last longer than twice their lane's usual time.
	Unproven int
	// WaitForHost are lanes that could start an attempt if their host's limits let them.
	WaitForHost int
	// QueuedBytes is what counts towards Config.QueueBytes.
	QueuedBytes int64
	// OldestQueued is when the oldest event was accepted of those at the head of
	// a queue; zero when nothing is queued.
	OldestQueued time.Time
}

// Stats takes time in proportion to the number of lanes.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.markOverdue(e.tick())
	s := Stats{InFlight: e.inFlight, Unproven: e.unproven, Queued: e.queued, Lanes: len(e.lanes), Unrecorded: e.unrecorded, QueuedBytes: e.held.taken}
	for _, l := range e.lanes {
		if l.waitsForHost() {
			s.WaitForHost++
		}
		if it := l.queue.head; it != nil && (s.OldestQueued.IsZero() || it.work.AcceptedAt.Before(s.OldestQueued)) {
			s.OldestQueued = it.work.AcceptedAt
		}
	}
	return s
}
