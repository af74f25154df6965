package postgres

import (
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
	maxWaiting      = 8192
	maxWaitingBytes = 64 << 20
)

// queue holds what waits for one of the writers.
type queue[T any] struct {
	size   func(*T) (rows, bytes int)
	blocks bool // add waits for room instead of refusing

	mu     sync.Mutex
	work   sync.Cond
	room   sync.Cond
	ops    []*T
	bytes  int
	closed bool
}

func newQueue[T any](blocks bool, size func(*T) (rows, bytes int)) *queue[T] {
	q := &queue[T]{size: size, blocks: blocks}
	q.work.L, q.room.L = &q.mu, &q.mu
	return q
}

func (q *queue[T]) add(o *T) error {
	_, bytes := q.size(o)
	q.mu.Lock()
	defer q.mu.Unlock()
	full := func() bool {
		return len(q.ops) > 0 && (len(q.ops) >= maxWaiting || q.bytes+bytes > maxWaitingBytes)
	}
	for q.blocks && full() && !q.closed {
		q.room.Wait()
	}
	switch {
	case q.closed:
		return store.ErrClosed
	case full():
		return store.ErrOverloaded
	}
	q.ops = append(q.ops, o)
	q.bytes += bytes
	q.work.Signal()
	return nil
}

// take waits for work and returns the next group; none when all is done and the
// queue closed.
func (q *queue[T]) take() []*T {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ops) == 0 && !q.closed {
		q.work.Wait()
	}
	n, sum := 0, 0
	for n < len(q.ops) && n < groupCallers {
		rows, bytes := q.size(q.ops[n])
		if sum += rows; n > 0 && sum > groupRows {
			break
		}
		q.bytes -= bytes
		n++
	}
	group := q.ops[:n:n]
	if q.ops = q.ops[n:]; len(q.ops) == 0 {
		q.ops = nil
	}
	q.room.Broadcast()
	return group
}

// empty reports whether nothing waits.
func (q *queue[T]) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ops) == 0
}

// close refuses further work; what is queued will still be taken.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.work.Broadcast()
	q.room.Broadcast()
}
