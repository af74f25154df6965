package publish

import (
	"sync"
	"sync/atomic"
)

// followers are those who wait for events of a tenant.
type followers struct {
	n  atomic.Int64 // nearly always 0, and then publishing takes no lock for it
	mu sync.Mutex
	of map[int64]map[chan struct{}]struct{}
}

// Follow returns a channel that is sent to, without being waited for, after events
// of the tenant were committed by this process, and what ends that. Those of other
// nodes are not told.
func (s *Service) Follow(tenant int64) (wake <-chan struct{}, leave func()) {
	f := &s.followers
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = make(map[int64]map[chan struct{}]struct{})
	}
	if f.of[tenant] == nil {
		f.of[tenant] = make(map[chan struct{}]struct{})
	}
	f.of[tenant][c] = struct{}{}
	f.n.Add(1)
	return c, sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.of[tenant], c)
		if len(f.of[tenant]) == 0 {
			delete(f.of, tenant)
		}
		f.n.Add(-1)
	})
}

func (f *followers) wake(tenant int64) {
	if f.n.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.of[tenant] {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}
