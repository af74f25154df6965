package webhook

import (
	"context"
	"sync"
)

// Claim is what a [Seen] knows of an event's id.
type Claim uint8

const (
	Fresh   Claim = iota // nobody handled it: the caller does now
	Busy                 // somebody is handling it at this moment
	Handled              // it was handled
)

// Seen remembers which events were handled, so that one that is sent again is
// handled once. Its methods may be called concurrently, and for it to serve
// several processes they share one: a table with a unique column does.
type Seen interface {
	// Claim reports what is known of the id and, when that is Fresh, takes it for
	// the caller, in one step.
	Claim(ctx context.Context, id string) (Claim, error)
	// Release ends a claim: handled ids are remembered, others are Fresh again. It
	// is called once for each Fresh one, also when the request was given up.
	Release(ctx context.Context, id string, handled bool) error
}

// DefaultMemory is how many ids a [Memory] remembers.
const DefaultMemory = 100_000

// Memory is a [Seen] in this process's memory. It forgets the oldest ids first,
// and all when the process ends: where handling an event twice does harm, use a
// Seen on a database. The zero Memory is ready to use.
type Memory struct {
	// Limit is how many handled ids are remembered; 0 for [DefaultMemory]. Set it
	// before first use.
	Limit int

	mu   sync.Mutex
	ids  map[string]Claim // Busy or Handled
	ring []string         // handled ids, the oldest at next once it is full
	next int
}

// Claim implements [Seen]. It never fails.
func (m *Memory) Claim(_ context.Context, id string) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.ids[id]; ok {
		return known, nil
	}
	if m.ids == nil {
		m.ids = map[string]Claim{}
	}
	m.ids[id] = Busy
	return Fresh, nil
}

// Release implements [Seen]. It never fails.
func (m *Memory) Release(_ context.Context, id string, handled bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !handled {
		delete(m.ids, id)
		return nil
	}
	limit := m.Limit
	if limit <= 0 {
		limit = DefaultMemory
	}
	m.ids[id] = Handled
	if len(m.ring) < limit {
		m.ring = append(m.ring, id)
		return nil
	}
	delete(m.ids, m.ring[m.next])
	m.ring[m.next] = id
	m.next = (m.next + 1) % limit
	return nil
}
