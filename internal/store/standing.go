package store

import (
	"context"
	"sync"
	"time"
)

// Standing is a part of a process that has work and does not move.
type Standing struct {
	What string // "publisher", "recorder", "scheduler", "renewals of the lease"
	For  time.Duration
}

// Mover is a store, or another part of a process, that tells what of it has work and
// does not move.
type Mover interface {
	// Standing lists what has work, and for how long it has not succeeded with any.
	Standing() []Standing
}

// Moves tells for how long something has had work and not moved. The zero Moves has
// none. Its methods may be called concurrently.
type Moves struct {
	mu    sync.Mutex
	since time.Time
}

// Begin is called when there is work.
func (m *Moves) Begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = time.Now()
	}
}

// End is called after an attempt at it: moved tells that it succeeded, or that
// nothing is left to do.
func (m *Moves) End(moved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if moved {
		m.since = time.Time{}
	}
}

// Stand appends how long it has not moved, if it has work.
func (m *Moves) Stand(to []Standing, what string) []Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		return to
	}
	return append(to, Standing{what, time.Since(m.since)})
}

// Partitioned is a store whose history is kept in tables by time, which are made ahead.
type Partitioned interface {
	// HistoryUntil is the time from which on new events would find no table, were none
	// made: at least five weeks ahead while a node runs and can make them. It is zero
	// while there is none at all, for nothing was published yet.
	HistoryUntil(ctx context.Context, now time.Time) (time.Time, error)
}

// Holder is a store whose rows belong to processes, for the metrics.
type Holder interface {
	// Holdings returns how many deliveries this process holds now, and how many
	// rows were found so far that belonged to it and that nobody held: each of
	// them is a fault.
	Holdings() (held int, unheld int64)
}
