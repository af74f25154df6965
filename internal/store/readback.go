package store

import (
	"context"
	"errors"
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
// for. changed is false for all others. Done again it moves nothing further, but what a
// receiver asked for, for which the endpoint is held, see [posthorn.Health.ReadAt]; and
// what waits by a schedule that was made shorter since, which waits by the new one then.
func (w *Waiting) Back(now time.Time, p posthorn.Policy) (next time.Time, changed bool) {
	last := LastEnded(w.Log)
	next = now.Add(max(p.Longest(w.Progress), w.Progress.NextAt.Sub(last)))
	if !last.After(now) || !w.Progress.NextAt.After(next) {
		return w.Progress.NextAt, false
	}
	return next, true
}

// Backs decides about many deliveries, each by its endpoint's own policy, which is
// looked up once.
type Backs struct {
	Now    time.Time
	Policy posthorn.Policy
	// Target is the store's; see [Endpoints].
	Target func(ctx context.Context, endpoint int64) (Target, error)

	known map[int64]posthorn.Policy
}

// Back is [Waiting.Back] by the endpoint's policy.
func (b *Backs) Back(ctx context.Context, w *Waiting) (next time.Time, changed bool, err error) {
	policy, known := b.known[w.Endpoint]
	if !known {
		policy = b.Policy
		switch t, err := b.Target(ctx, w.Endpoint); {
		case err == nil:
			policy = policy.For(t.Endpoint.Settings)
		case !errors.Is(err, ErrNotFound): // of a deleted one nothing is sent
			return time.Time{}, false, err
		}
		if b.known == nil {
			b.known = map[int64]posthorn.Policy{}
		}
		b.known[w.Endpoint] = policy
	}
	next, changed = w.Back(b.Now, policy)
	return next, changed, nil
}

// ReadBackSlice is how many rows one transaction reads back.
const ReadBackSlice = 500
