package webhook

import (
	"container/list"
	"context"
	"sync"
	"time"
)

const (
	// DefaultMemory is how many ids a [Memory] remembers beyond the time for which it
	// must.
	DefaultMemory = 100_000
	// DefaultMaxSeen is how many ids a [Memory] has room for: 1,600 events a second with
	// [DefaultTolerance]. So many take some 200 MB.
	DefaultMaxSeen = 1_000_000
)

// Memory is a [Seen] in this process's memory. It keeps each handled id for twice the
// tolerance since it came last, and longer while it has no more than [DefaultMemory].
// When it is full of ids that it must keep, Claim returns a [FullError]. It forgets all
// when the process ends: where handling an event twice does harm, use a Seen on a
// database. The zero Memory is ready to use.
type Memory struct {
	// Limit is how many ids there is room for, those that are being handled too; 0 for
	// [DefaultMaxSeen]. Set it before first use.
	Limit int
	// Keep is for how long ids are kept at least, if that is more than twice the tolerance:
	// that of the [Receiver]'s verifier, or [DefaultTolerance] without one. Set it before
	// first use.
	Keep time.Duration

	mu  sync.Mutex
	ids map[string]*remembered
	// handled has those that were handled, who came last at its end.
	handled list.List
	// last is the end of the time of what came last.
	last int64
}

// remembered is an id that a Memory knows.
type remembered struct {
	id    string
	claim Claim         // Busy or Handled
	until int64         // the last second in which it must be known
	place *list.Element // in handled; nil if it is Busy
}

// Claim implements [Seen]. Its only error is [FullError].
func (m *Memory) Claim(_ context.Context, id string) (Claim, error) {
	return m.claim(id, time.Now(), m.keep(DefaultTolerance))
}

// keep is for how many seconds ids are kept if requests are good for the tolerance.
func (m *Memory) keep(tolerance time.Duration) int64 {
	return max(wholeSeconds(m.Keep), 2*wholeSeconds(tolerance))
}

// claim is Claim at a time. A request that was verified now may be dated ahead by the
// tolerance and is good for as long behind that: twice in all. Times are seconds, as
// those that Verify compares.
func (m *Memory) claim(id string, at time.Time, keep int64) (Claim, error) {
	now := at.Unix()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = now + keep
	if r := m.ids[id]; r != nil {
		r.until = max(r.until, m.last)
		if r.place != nil {
			m.handled.MoveToBack(r.place)
		}
		return r.claim, nil
	}
	if err := m.makeRoom(now); err != nil {
		return Busy, err
	}
	m.put(&remembered{id: id, claim: Busy, until: m.last})
	return Fresh, nil
}

// makeRoom forgets what may be forgotten and is in the way.
func (m *Memory) makeRoom(now int64) error {
	limit := m.Limit
	if limit <= 0 {
		limit = DefaultMaxSeen
	}
	oldest := m.handled.Front()
	for range 2 { // so that it shrinks again after a rush
		if oldest == nil || len(m.ids) < min(limit, DefaultMemory) || oldest.Value.(*remembered).until >= now {
			break
		}
		delete(m.ids, m.handled.Remove(oldest).(*remembered).id)
		oldest = m.handled.Front()
	}
	if len(m.ids) < limit {
		return nil
	}
	full := &FullError{Limit: limit}
	if oldest != nil {
		full.After = time.Duration(oldest.Value.(*remembered).until+1-now) * time.Second
	}
	return full
}

func (m *Memory) put(r *remembered) {
	if m.ids == nil {
		m.ids = map[string]*remembered{}
	}
	m.ids[r.id] = r
}

// Release implements [Seen]. It never fails.
func (m *Memory) Release(_ context.Context, id string, handled bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.ids[id]
	switch {
	case r != nil && r.claim == Handled:
	case !handled:
		delete(m.ids, id)
	default:
		if r == nil {
			r = &remembered{id: id}
			m.put(r)
		}
		// At the end of the row, and so with the time that is due there.
		r.claim, r.until = Handled, max(r.until, m.last)
		r.place = m.handled.PushBack(r)
	}
	return nil
}
