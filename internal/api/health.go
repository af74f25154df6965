package api

import (
	"net/http"
	"time"

	"github.com/posthorn/posthorn"
)

// Health tells how an endpoint does.
type Health struct {
	Condition     string  `json:"condition" enum:"healthy,failing,paused"`
	Reason        *string `json:"reason" doc:"Who paused it: user, gone (it answered 410) or failing (five days without a success)."`
	Since         *string `json:"since" format:"date-time" doc:"Since when it fails or is paused."`
	LastSuccessAt *string `json:"last_success_at" format:"date-time"`
	LastFailureAt *string `json:"last_failure_at" format:"date-time"`
	NextAttemptAt *string `json:"next_attempt_at" format:"date-time" doc:"When something is sent next, as far as that is known."`
	PauseAt       *string `json:"pause_at" format:"date-time" doc:"When it will be paused if nothing succeeds."`
	Waiting       int     `json:"waiting" doc:"How many deliveries wait."`
	WaitingCapped bool    `json:"waiting_capped" doc:"More wait than were counted."`
	BlockedBy     *string `json:"blocked_by" doc:"The delivery that holds up an ordered endpoint: it failed and waits for its next attempt. Null while that is under way."`
}

// maxCounted bounds the waiting deliveries that a look at the health counts.
const maxCounted = 10_000

func (s *server) getHealth(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	h, waiting, next, err := s.Store.EndpointHealth(q.Context(), e.ID, maxCounted)
	if err != nil {
		return nil, missing(err, "endpoint")
	}
	var lane LaneView
	if s.Health != nil {
		lane = s.Health(e.ID)
	}
	var head posthorn.ID
	if e.Settings.Ordered {
		var at time.Time
		if head, at, err = s.Store.LineHead(q.Context(), e.ID); err != nil {
			return nil, err
		}
		if head != 0 && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	shown := showHealth(&e, h, lane, waiting, next, q.at)
	if head != 0 {
		shown.BlockedBy = maybe(head.Text(posthorn.DeliveryPrefix))
	}
	return ok(http.StatusOK, shown)
}

func showHealth(e *posthorn.Endpoint, h posthorn.Health, lane LaneView, waiting int, next, now time.Time) Health {
	shown := Health{
		Condition: "healthy", LastSuccessAt: maybeTime(h.LastSuccess), LastFailureAt: maybeTime(h.LastFailure),
		Waiting: min(waiting, maxCounted), WaitingCapped: waiting >= maxCounted,
	}
	switch {
	case e.Status.Shown() == posthorn.StatusPaused:
		shown.Condition, shown.Reason, shown.Since = "paused", maybe(string(e.PausedReason)), maybeTime(e.PausedAt)
		return shown
	case h.Failures > 0:
		shown.Condition, shown.Since, shown.PauseAt = "failing", maybeTime(h.FailingSince), maybeTime(h.PauseAt())
	}
	if waiting > 0 {
		shown.NextAttemptAt = maybeTime(nextAttempt(h, lane, next, now))
	}
	return shown
}

// nextAttempt is when something may be sent: not before the endpoint's own wish
// and the next probe, however early a delivery is due.
func nextAttempt(h posthorn.Health, lane LaneView, next, now time.Time) time.Time {
	if next.IsZero() || next.Before(now) {
		next = now
	}
	for _, floor := range []time.Time{h.HoldUntil, lane.HoldUntil, lane.NextProbe} {
		if floor.After(next) {
			next = floor
		}
	}
	return next
}
