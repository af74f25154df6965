package store

import (
	"time"

	"github.com/posthorn/posthorn"
)

// Waiting is an open delivery that waits, as [Waiting.Back] needs it.
type Waiting struct {
	ID       posthorn.ID
	Endpoint int64
	Progress posthorn.Progress // Waits and NextAt
	Log      []byte            // of its attempts
}

// Back returns when a delivery is due whose last attempt lies ahead of now: it waits
// no longer than the endpoint's policy can have it wait, or than its receiver asked
// for. changed is false for all others. Done again it moves nothing further, but what
// a receiver asked for; for that the endpoint is held, see [posthorn.Health.ReadAt].
func (w *Waiting) Back(now time.Time, p posthorn.Policy) (next time.Time, changed bool) {
	last := LastEnded(w.Log)
	next = now.Add(max(p.Longest(w.Progress), w.Progress.NextAt.Sub(last)))
	if !last.After(now) || !w.Progress.NextAt.After(next) {
		return w.Progress.NextAt, false
	}
	return next, true
}

// ReadBackSlice is how many rows one transaction reads back.
const ReadBackSlice = 500
