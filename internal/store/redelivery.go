package store

import (
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
)

// Why a delivery cannot be sent again, or not be canceled.
var (
	// ErrInFlight: an attempt is being made, or is about to be, by an engine that
	// did not let go of the delivery.
	ErrInFlight = errors.New("store: the delivery is being attempted")
	// ErrSuspended: the tenant is suspended. (What is asked for by hand of a paused
	// endpoint is done.)
	ErrSuspended = errors.New("store: the tenant is suspended")
	// ErrGone: the endpoint was deleted.
	ErrGone = errors.New("store: the endpoint is deleted")
	// ErrErased: the event's payload is not kept any more.
	ErrErased = errors.New("store: the payload was erased")
	// ErrFinal: the delivery or the replay is finished already.
	ErrFinal = errors.New("store: already in a final state")
	// ErrReplaying: the endpoint has a replay that is not finished.
	ErrReplaying = errors.New("store: the endpoint has a running replay")
	// ErrElsewhere: another node works on the replay.
	ErrElsewhere = errors.New("store: another node works on it")
)

// RetryOrder names what is to be attempted once more: one delivery, or those of
// an event, at one endpoint or at all (0).
type RetryOrder struct {
	Tenant   int64
	Delivery posthorn.ID
	Event    posthorn.ID
	Endpoint int64
	// Held are deliveries that this process owned and that its engine has let go
	// of: no attempt is made unless they are claimed anew.
	Held []Hold
}

// Holds reports whether this process' engine has let go of the delivery.
func (o *RetryOrder) Holds(id posthorn.ID) bool { return len(o.Hold(id)) > 0 }

// Hold is what the engine held the delivery by; empty if it did not.
func (o *RetryOrder) Hold(id posthorn.ID) []Hold {
	for i, h := range o.Held {
		if h.ID == id {
			return o.Held[i : i+1 : i+1]
		}
	}
	return nil
}

// Retried is what became of one delivery of a RetryOrder.
type Retried struct {
	ID       posthorn.ID
	Endpoint int64
	Progress posthorn.Progress // after it
	Refused  error             // ErrInFlight, ErrSuspended, ErrGone, ErrErased; nil if it will be attempted
}

// CancelFilter selects open deliveries of an endpoint.
type CancelFilter struct {
	Tenant, Endpoint int64
	Types            []posthorn.Pattern // empty for all
	Until            time.Time          // accepted before it
}

// Wants reports whether events of the type are selected.
func (f *CancelFilter) Wants(eventType string, accepted time.Time) bool {
	s := posthorn.ReplaySelection{Types: f.Types}
	return s.WantsType(eventType) && accepted.Before(f.Until)
}

// Redelivery sends again by hand, and stops what waits. Where a method takes
// answer, that is called within the transaction and its result is what
// [Change.Once] remembers; nil for what Once holds.
type Redelivery interface {
	// Retry has deliveries attempted once more, now: finished ones are opened for
	// one attempt, open ones have their next attempt moved to now. They wait, due,
	// at a paused endpoint too; one in an ordered endpoint's line is parked in its
	// place.
	// When none is taken, nothing is changed and the error is why the first was
	// refused; ErrNotFound when there is none.
	Retry(ctx context.Context, c Change, o RetryOrder, answer func([]Retried) []byte) ([]Retried, error)
	// CancelDelivery cancels an open delivery: ErrFinal for another one. One that was
	// opened for one attempt gets its final state and its reason back. No new attempt
	// begins once the watchers know; one in flight ends.
	CancelDelivery(ctx context.Context, c Change, tenant int64, id posthorn.ID, answer func(Ended) []byte) (Ended, error)
	// CancelEvent cancels all open deliveries of an event.
	CancelEvent(ctx context.Context, c Change, tenant int64, event posthorn.ID, answer func(canceled int) []byte) (canceled int, err error)
	// CountPending counts what CancelPending would cancel. It is a walk, as the search
	// of CancelPending is.
	CountPending(ctx context.Context, f CancelFilter) (int, error)
	// CancelPending cancels open deliveries, at most limit in one commit, and
	// reports whether more are left.
	CancelPending(ctx context.Context, c Change, f CancelFilter, limit int, answer func(canceled int, more bool) []byte) (canceled int, more bool, err error)
}

// ReplaySample is one of what a replay would send.
type ReplaySample struct {
	Delivery posthorn.ID // 0 for one that is missing
	Event    posthorn.ID
	EventRef string
	Type     string
	State    posthorn.ShownState // "" for one that is missing
	Accepted time.Time
}

// ReplayPlan is what a replay would send. It is counted in slices: of what changes
// meanwhile, below Bound, some may be counted as it was and some as it is.
type ReplayPlan struct {
	Total int
	// Samples are the first and the last of them, in order.
	Samples []ReplaySample
	// Bound is above the ids that are looked at; From is where to begin.
	From, Bound posthorn.ID
	At          time.Time // when it was made
}

// ReplaySamples is how many samples a plan has at most.
const ReplaySamples = 6

// Sample adds to the samples of a plan: the first ones and the last ones.
func (p *ReplayPlan) Sample(s ReplaySample) {
	p.Total++
	if len(p.Samples) < ReplaySamples {
		p.Samples = append(p.Samples, s)
		return
	}
	const half = ReplaySamples / 2
	copy(p.Samples[half:], p.Samples[half+1:])
	p.Samples[ReplaySamples-1] = s
}

// Fed is what one step of a replay did.
type Fed struct {
	Replay posthorn.Replay
	// Work is what was opened, owned by this process.
	Work []Work
	// More tells that more is to be looked at; otherwise the replay is completed.
	More bool
}

// Replays keeps replays and carries them on, little by little.
type Replays interface {
	// PlanReplay counts exactly what a replay would send; it changes nothing. It is a
	// walk: ErrBusy when too many of the tenant wait.
	PlanReplay(ctx context.Context, tenant, endpoint int64, sel posthorn.ReplaySelection) (ReplayPlan, error)
	// CreateReplay stores a replay of a plan, completed if it is empty. ErrReplaying
	// when the endpoint has one that is not finished, ErrNotFound when the endpoint
	// is gone.
	CreateReplay(ctx context.Context, c Change, r posthorn.Replay, plan ReplayPlan, answer func(posthorn.Replay) []byte) (posthorn.Replay, error)
	ReplayByRef(ctx context.Context, tenant int64, ref string) (posthorn.Replay, error)
	// Replays lists by id, newest first, of one endpoint or all (0): those with an
	// id below before (0 for all).
	Replays(ctx context.Context, tenant, endpoint, before int64, limit int) ([]posthorn.Replay, error)
	// SetReplay pauses, resumes or cancels; one that is already so is not changed.
	// ErrFinal for one that is finished.
	SetReplay(ctx context.Context, c Change, tenant int64, ref string, state posthorn.ReplayState, answer func(posthorn.Replay) []byte) (posthorn.Replay, error)
	// RunningReplays lists replays that run, with an id above after.
	RunningReplays(ctx context.Context, after int64, limit int) ([]posthorn.Replay, error)
	// FeedReplay opens the next at most limit deliveries of a running replay, and
	// moves its cursor in the same commit. Errors: ErrElsewhere, ErrNotFound, and
	// ErrFinal for one that does not run (any more) or was fed meanwhile.
	FeedReplay(ctx context.Context, id int64, limit int, now time.Time) (Fed, error)
}

// ReplayCounts is what a commit adds to the counts of replays.
type ReplayCounts map[int64]*ReplayCount

// ReplayCount is what a commit adds to the counts of one replay, or takes back.
type ReplayCount struct{ Succeeded, Failed int }

// Count counts a delivery of a replay that goes from before to after: by the final
// state that it has since the replay opened it, once.
func (c ReplayCounts) Count(replay int64, before, after posthorn.Progress) {
	from, to := before.Ended(), after.Ended()
	if replay == 0 || from == to {
		return
	}
	n := c[replay]
	if n == nil {
		n = &ReplayCount{}
		c[replay] = n
	}
	n.ended(from, -1)
	n.ended(to, 1)
}

func (n *ReplayCount) ended(state posthorn.State, by int) {
	switch {
	case !state.Final():
	case state == posthorn.Succeeded:
		n.Succeeded += by
	default:
		n.Failed += by
	}
}
