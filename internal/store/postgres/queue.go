package postgres

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// maxResults may wait to be written before further ones block.
const maxResults = 8192

// queue holds what waits for one of the writers.
type queue[T any] struct {
	size    func(*T) (tenant int64, rows, bytes int)
	waiting *store.WaitingRoom // nil when add waits for room instead of refusing

	mu     sync.Mutex
	work   sync.Cond
	room   sync.Cond
	groups store.Groups[*T]
	closed bool
}

func newQueue[T any](blocks bool, size func(*T) (tenant int64, rows, bytes int)) *queue[T] {
	q := &queue[T]{size: size}
	if !blocks {
		q.waiting = store.NewWaitingRoom()
	}
	q.groups = store.NewGroups(func(o *T) (int64, int) {
		tenant, rows, _ := size(o)
		return tenant, rows
	})
	q.work.L, q.room.L = &q.mu, &q.mu
	return q
}

func (q *queue[T]) add(o *T) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.waiting == nil && q.groups.Len() >= maxResults && !q.closed {
		q.room.Wait()
	}
	if q.closed {
		return store.ErrClosed
	}
	if q.waiting != nil {
		tenant, _, bytes := q.size(o)
		if err := q.waiting.Enter(tenant, bytes); err != nil {
			return err
		}
	}
	q.groups.Add(o)
	q.work.Signal()
	return nil
}

// take waits for work and returns the next group; none when all is done and the
// queue closed.
func (q *queue[T]) take() []*T {
	q.mu.Lock()
	defer q.mu.Unlock()
	group := q.next()
	for len(group) == 0 && (!q.closed || q.groups.Len() > 0) {
		q.work.Wait()
		group = q.next()
	}
	if q.waiting != nil {
		for _, o := range group {
			tenant, _, bytes := q.size(o)
			q.waiting.Leave(tenant, bytes)
		}
	}
	q.room.Broadcast()
	return group
}

// next is the next group, if it need not wait.
func (q *queue[T]) next() []*T {
	if q.closed {
		return q.groups.All()
	}
	group, wait := q.groups.Take()
	if wait > 0 {
		time.AfterFunc(wait, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.work.Broadcast()
		})
	}
	return group
}

// written tells that the group that was taken last is written.
func (q *queue[T]) written() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.groups.Written()
}

// empty reports whether nothing waits.
func (q *queue[T]) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.groups.Len() == 0
}

// close refuses further work; what is queued will still be taken.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.work.Broadcast()
	q.room.Broadcast()
}
