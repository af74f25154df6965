package sqlite

import (
	"context"
	"sync"

	"github.com/posthorn/posthorn/internal/store"
)

// A group takes at most groupCallers operations and groupRows deliveries; one
// with more commits alone.
const (
	groupCallers = 1024
	groupRows    = 5000
)

// What may wait to be written before publishes are refused and results block.
const (
	maxPublishes    = 8192
	maxPublishBytes = 64 << 20
	maxResults      = 8192
)

type opKind uint8

const (
	opChange  opKind = iota // of a tenant, token, endpoint or the queue's places
	opPublish               // refused when too much waits
	opResult                // blocks when too much waits
	opSweep                 // gives way to all others
	opKinds
)

// op is one caller's work in a group. apply may run more than once, each time
// in a transaction that starts from the same state. done is called once, from
// the writer's goroutine.
type op struct {
	kind  opKind
	ctx   context.Context
	rows  int
	bytes int
	apply func(*txn) error
	done  func(error)
	err   error // what apply refused with

	notices  []store.Notice
	settling store.Settling // what the answer waits for
}

// queue holds what waits for the writer.
type queue struct {
	wake chan struct{} // cap 1: there is work, or the queue was closed

	mu     sync.Mutex
	room   sync.Cond // results were taken
	ops    []*op
	sweeps []*op
	passed int // groups taken since a sweep had its turn
	count  [opKinds]int
	bytes  int
	closed bool
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1)}
	q.room.L = &q.mu
	return q
}

func (q *queue) add(o *op) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for o.kind == opResult && q.count[opResult] >= maxResults && !q.closed {
		q.room.Wait()
	}
	switch {
	case q.closed:
		return store.ErrClosed
	case o.kind == opPublish && q.count[opPublish] > 0 &&
		(q.count[opPublish] >= maxPublishes || q.bytes+o.bytes > maxPublishBytes):
		return store.ErrOverloaded
	}
	q.count[o.kind]++
	q.bytes += o.bytes
	if o.kind == opSweep {
		q.sweeps = append(q.sweeps, o)
	} else {
		q.ops = append(q.ops, o)
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
	if len(q.sweeps) > 0 && (len(q.ops) == 0 || q.passed >= sweepTurn) {
		group, q.sweeps, q.passed = q.sweeps[:1:1], q.sweeps[1:], 0
	} else {
		n := groupSize(q.ops)
		group, q.ops = q.ops[:n:n], q.ops[n:]
		q.passed++
	}
	for _, o := range group {
		q.count[o.kind]--
		q.bytes -= o.bytes
	}
	if len(q.ops) == 0 {
		q.ops = nil
	}
	if len(q.ops)+len(q.sweeps) > 0 || q.closed { // the writer has to see that, too
		q.signal()
	}
	q.room.Broadcast()
	return group, q.closed
}

// groupSize is how many of the first ops go together.
func groupSize(ops []*op) int {
	rows := 0
	for i, o := range ops {
		rows += o.rows
		if i == groupCallers || i > 0 && rows > groupRows {
			return i
		}
	}
	return len(ops)
}

// close refuses further work; what is queued will still be taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.room.Broadcast()
	q.signal()
}
