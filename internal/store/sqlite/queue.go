package sqlite

import (
	"context"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// maxResults may wait to be written before further ones block.
const maxResults = 8192

type opKind uint8

const (
	opChange  opKind = iota // of a tenant, token, endpoint or the queue's places
	opPublish               // refused when too much waits: see [store.WaitingRoom]
	opResult                // blocks when too much waits
	opSweep                 // gives way to all others
	opKinds
)

// op is one caller's work in a group. apply may run more than once, each time
// in a transaction that starts from the same state. done is called once, from
// the writer's goroutine.
type op struct {
	kind   opKind
	tenant int64 // whose it is; 0 for the engine's and the operators'
	ctx    context.Context
	rows   int // about what it costs: deliveries that are stored
	bytes  int // of a publish's bodies
	apply  func(*txn) error
	done   func(error)
	err    error // what apply refused with

	notices  []store.Notice
	settling store.Settling // what the answer waits for
}

// queue holds what waits for the writer.
type queue struct {
	wake chan struct{} // cap 1: there is work, or the queue was closed

	mu      sync.Mutex
	room    sync.Cond // results were taken
	groups  store.Groups[*op]
	sweeps  []*op
	passed  int // groups taken since a sweep had its turn
	count   [opKinds]int
	waiting *store.WaitingRoom // of publishes
	resting *time.Timer        // wakes the writer; nil before the first time
	closed  bool
}

func newQueue() *queue {
	q := &queue{
		wake: make(chan struct{}, 1), waiting: store.NewWaitingRoom(),
		groups: store.NewGroups(func(o *op) (int64, int) { return o.tenant, o.rows }),
	}
	q.room.L = &q.mu
	return q
}

func (q *queue) add(o *op) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for o.kind == opResult && q.count[opResult] >= maxResults && !q.closed {
		q.room.Wait()
	}
	if q.closed {
		return store.ErrClosed
	}
	if o.kind == opPublish {
		if err := q.waiting.Enter(o.tenant, o.bytes); err != nil {
			return err
		}
	}
	q.count[o.kind]++
	if o.kind == opSweep {
		q.sweeps = append(q.sweeps, o)
	} else {
		q.groups.Add(o)
	}
	q.signal()
	return nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// sweepTurn is how many groups may pass before a waiting sweep has its turn:
// lowest priority, but retention never stands still.
const sweepTurn = 16

// take returns the next group; empty with closed set when all is done.
func (q *queue) take() (group []*op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.sweeps) == 0 || q.groups.Len() > 0 && q.passed < sweepTurn {
		group = q.next()
		q.passed++
	}
	if len(group) == 0 && len(q.sweeps) > 0 {
		group, q.sweeps, q.passed = q.sweeps[:1:1], q.sweeps[1:], 0
	}
	for _, o := range group {
		q.count[o.kind]--
		if o.kind == opPublish {
			q.waiting.Leave(o.tenant, o.bytes)
		}
	}
	if len(group) > 0 && q.groups.Len()+len(q.sweeps) > 0 || q.closed { // the writer has to see that, too
		q.signal()
	}
	q.room.Broadcast()
	return group, q.closed
}

// next is the next group of what is no sweep. Where it has to wait, the writer is woken.
func (q *queue) next() []*op {
	if q.closed {
		return q.groups.All()
	}
	group, wait := q.groups.Take()
	if wait > 0 {
		if q.resting == nil {
			q.resting = time.AfterFunc(wait, q.signal)
		} else {
			q.resting.Reset(wait)
		}
	}
	return group
}

// written tells that the group that was taken last is written.
func (q *queue) written() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.Written()
}

// close refuses further work; what is queued will still be taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.room.Broadcast()
	q.signal()
}
