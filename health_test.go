package posthorn_test

import (
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

func TestFiveDayRule(t *testing.T) {
	fail := &posthorn.Attempt{Class: posthorn.ClassTimeout}
	day := 24 * time.Hour
	for _, c := range []struct {
		name     string
		failures int
		over     time.Duration
		want     posthorn.PausedReason
	}{
		{"ten over five days", 10, 5 * day, posthorn.PausedFailing},
		{"ten over a second less", 10, 5*day - time.Second, ""},
		{"nine over six days", 9, 6 * day, ""},
		{"a thousand over a day", 1000, day, ""},
	} {
		var h posthorn.Health
		var reason posthorn.PausedReason
		for i := range c.failures {
			h, reason = h.Observe(fail, t0.Add(c.over*time.Duration(i)/time.Duration(c.failures-1)))
		}
		if reason != c.want {
			t.Errorf("%s: paused %q, want %q", c.name, reason, c.want)
		}
		if !h.PauseAt().Equal(t0.Add(5 * day)) {
			t.Errorf("%s: PauseAt %v", c.name, h.PauseAt())
		}
	}
}

func TestHealthForgetsFailuresAfterASuccess(t *testing.T) {
	h := posthorn.Health{FailingSince: t0, Failures: 50, LastFailure: t0, HoldUntil: t0.Add(time.Hour), WarnedAt: t0}
	now := t0.Add(10 * 24 * time.Hour) // the hold is over
	got, reason := h.Observe(&posthorn.Attempt{Class: posthorn.ClassOK, Status: 204}, now)
	if want := (posthorn.Health{LastSuccess: now, LastFailure: t0}); got != want || reason != "" {
		t.Errorf("after a success: %+v, %q", got, reason)
	}
}

// A success that was in flight when a 429 asked for an hour must not cut it short.
func TestSuccessKeepsTheHoldThatAnotherAttemptWasAskedFor(t *testing.T) {
	h := posthorn.Health{HoldUntil: t0.Add(time.Hour), Failures: 1, FailingSince: t0}
	got, _ := h.Observe(&posthorn.Attempt{Class: posthorn.ClassOK, Status: 204}, t0.Add(time.Second))
	if !got.HoldUntil.Equal(t0.Add(time.Hour)) || got.Failures != 0 {
		t.Errorf("after the success: %+v", got)
	}
}

func TestHealthLocalFaultsCountAgainstNobody(t *testing.T) {
	h := posthorn.Health{FailingSince: t0, Failures: 9}
	if got, reason := h.Observe(&posthorn.Attempt{Class: posthorn.ClassLocal}, t0.AddDate(0, 1, 0)); got != h || reason != "" {
		t.Errorf("a local fault made %+v of %+v, %q", got, h, reason)
	}
}

func TestGoneAndRetryAfter(t *testing.T) {
	if _, reason := (posthorn.Health{}).Observe(&posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410}, t0); reason != posthorn.PausedGone {
		t.Errorf("410: %q, want gone", reason)
	}
	h, _ := posthorn.Health{}.Observe(&posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 429, RetryAfter: time.Hour}, t0)
	if !h.HoldUntil.Equal(t0.Add(time.Hour)) {
		t.Errorf("Retry-After of an hour holds until %v", h.HoldUntil)
	}
	h, _ = h.Observe(&posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 429, RetryAfter: time.Minute}, t0.Add(time.Second))
	if !h.HoldUntil.Equal(t0.Add(time.Hour)) {
		t.Errorf("a shorter Retry-After moved the hold to %v", h.HoldUntil)
	}
}

func TestWarningADayBeforeThePause(t *testing.T) {
	h := posthorn.Health{FailingSince: t0, Failures: 3, LastError: "No answer."}
	at := t0.Add(4 * 24 * time.Hour)
	if h.WarningDue(at.Add(-time.Second)) || !h.WarningDue(at) {
		t.Error("the warning is not due exactly a day before the pause")
	}
	h.WarnedAt = at
	if h.WarningDue(at.Add(time.Hour)) {
		t.Error("the warning is due twice")
	}
	if (posthorn.Health{FailingSince: t0, Failures: 3}).WarningDue(at) {
		t.Error("a warning is due of what only Posthorn's own events met")
	}
}

func TestEveryClassIsExplained(t *testing.T) {
	for _, c := range posthorn.Classes() {
		for _, status := range []int{200, 302, 304, 401, 404, 410, 413, 418, 429, 500, 999} {
			a := posthorn.Attempt{Class: c, Status: status, Duration: 1234 * time.Millisecond, Detail: "why"}
			s := a.Explain()
			if len(s) < 30 || !strings.HasSuffix(s, ".") || strings.Contains(s, "%!") || s == "The attempt failed (why)." {
				t.Errorf("class %v, status %d: %q", c, status, s)
			}
		}
		if strings.Contains(c.String(), "class(") {
			t.Errorf("class %d has no name", c)
		}
	}
	for _, c := range posthorn.Codes() {
		if strings.Contains(c.String(), "code(") {
			t.Errorf("code %d has no name", c)
		}
	}
}
