package posthorn

import "time"

// The five-day rule: an endpoint is paused when at least FailingAttempts failed
// over FailingAfter with no success between.
const (
	FailingAttempts = 10
	FailingAfter    = 5 * 24 * time.Hour
	// FailingWarning is how long before the pause its owner is warned.
	FailingWarning = 24 * time.Hour
)

// Health is what an endpoint's attempts tell of it.
type Health struct {
	// FailingSince is when the first attempt failed after the last success; zero
	// while nothing fails.
	FailingSince time.Time
	// Failures counts the failed attempts since then.
	Failures    int
	LastSuccess time.Time
	LastFailure time.Time
	// HoldUntil is how long the receiver asked to be left alone (Retry-After);
	// zero or past when it did not.
	HoldUntil time.Time
	// WarnedAt is when the coming pause was announced; zero if it was not.
	WarnedAt time.Time
	// LastError says why the last attempt failed; empty while nothing fails. The
	// failures of Posthorn's own events are not among it: an endpoint that fails
	// those alone is no news to its owner, or one such event would cause others.
	LastError string
}

// ObserveKind is [Health.Observe] for an attempt of an event of the given kind:
// tests change nothing, and what Posthorn's own events meet is no news.
func (h Health) ObserveKind(kind EventKind, a *Attempt, now time.Time) (Health, PausedReason) {
	if kind == EventTest {
		return h, ""
	}
	after, reason := h.Observe(a, now)
	if kind == EventOperational && after.LastError != "" {
		after.LastError = h.LastError
	}
	return after, reason
}

// Observe returns the health after an attempt that ended at now, and the
// reason to pause the endpoint, or "". Local faults change nothing.
func (h Health) Observe(a *Attempt, now time.Time) (Health, PausedReason) {
	switch a.Class {
	case ClassLocal:
		return h, ""
	case ClassOK:
		h = h.ReadAt(now)
		well := Health{LastSuccess: now, LastFailure: h.LastFailure}
		if h.HoldUntil.After(now) { // asked for by another attempt that was in flight
			well.HoldUntil = h.HoldUntil
		}
		return well, ""
	}
	h = h.ReadAt(now)
	if h.Failures == 0 {
		h.FailingSince = now
	}
	h.Failures++
	h.LastFailure = now
	h.LastError = a.Explain()
	if a.RetryAfter > 0 {
		if until := now.Add(min(a.RetryAfter, MaxRetryAfter)); until.After(h.HoldUntil) {
			h.HoldUntil = until
		}
	}
	switch {
	case a.Status == 410:
		return h, PausedGone
	case h.Failures >= FailingAttempts && now.Sub(h.FailingSince) >= FailingAfter:
		return h, PausedFailing
	}
	return h, ""
}

// ReadAt returns the health as it is to be read now. What lies ahead was written by a
// clock that was ahead: it counts as if it had happened now, so that nothing waits
// longer than it had to.
func (h Health) ReadAt(now time.Time) Health {
	if h.LastFailure.After(now) {
		if h.HoldUntil.After(h.LastFailure) {
			h.HoldUntil = now.Add(h.HoldUntil.Sub(h.LastFailure))
		} else {
			h.HoldUntil = time.Time{}
		}
		if h.FailingSince.After(now) {
			h.FailingSince = now.Add(h.FailingSince.Sub(h.LastFailure))
		}
		h.LastFailure = now
	}
	if h.LastSuccess.After(now) {
		h.LastSuccess = now
	}
	return h
}

// Resumed returns the health of an endpoint that a user set active again: the
// five-day rule starts anew.
func (h Health) Resumed() Health {
	return Health{LastSuccess: h.LastSuccess, LastFailure: h.LastFailure}
}

// PauseAt is when the five-day rule will pause the endpoint if nothing
// succeeds; zero while nothing fails.
func (h Health) PauseAt() time.Time {
	if h.FailingSince.IsZero() {
		return time.Time{}
	}
	return h.FailingSince.Add(FailingAfter)
}

// WarningDue reports whether the owner is to be told that the pause is near.
// Stores look for it by FailingSince.
func (h Health) WarningDue(now time.Time) bool {
	return !h.FailingSince.IsZero() && h.WarnedAt.IsZero() && h.LastError != "" &&
		now.Sub(h.FailingSince) >= FailingAfter-FailingWarning
}
