package lane

import (
	"sync"
	"sync/atomic"

	"github.com/posthorn/posthorn"
)

// keptErased bounds how many erased events are remembered. What is in memory is
// sent or given back long before as many others are erased.
const keptErased = 10_000

// erased remembers the events whose payload was erased last: the store has
// finished their deliveries, but some may be in a queue with their body.
type erased struct {
	some atomic.Bool // spares every attempt the lock while nothing was erased

	mu    sync.Mutex
	set   map[posthorn.ID]bool
	order []posthorn.ID // a ring once it is full
	next  int
}

func (s *erased) add(id posthorn.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = make(map[posthorn.ID]bool)
	}
	if s.set[id] {
		return
	}
	if len(s.order) < keptErased {
		s.order = append(s.order, id)
	} else {
		delete(s.set, s.order[s.next])
		s.order[s.next] = id
		s.next = (s.next + 1) % keptErased
	}
	s.set[id] = true
	s.some.Store(true)
}

func (s *erased) has(id posthorn.ID) bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[id]
}
