package store

import "time"

// Standing is a part of a process that has work and does not move.
type Standing struct {
	What string // "publisher", "recorder", "scheduler", "renewals of the lease"
	For  time.Duration
}

// Mover is a store, or another part of a process, that tells what of it has work and
// does not move.
type Mover interface {
	// Standing lists what has work, and since when it did not succeed with any.
	Standing() []Standing
}

// Holder is a store whose rows belong to processes, for the metrics.
type Holder interface {
	// Holdings returns how many deliveries this process holds now, and how many
	// rows were found so far that belonged to it and that nobody held: each of
	// them is a fault.
	Holdings() (held int, unheld int64)
}
