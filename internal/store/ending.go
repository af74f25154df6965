package store

import (
	"github.com/posthorn/posthorn"
)

// Ended is where a delivery stands that was ended without an attempt.
type Ended struct {
	posthorn.Progress
	Reason posthorn.Reason
}

// End ends an open delivery without an attempt, as canceled or expired, for a reason.
// One that was opened for one attempt gets back what it had, of which old is the reason.
func End(p posthorn.Progress, as posthorn.State, old, reason posthorn.Reason) Ended {
	move := posthorn.Cancel
	if as == posthorn.Expired {
		move = posthorn.Expire
	}
	next, err := posthorn.Policy{}.Step(p, posthorn.Input{Move: move})
	if err != nil {
		return Ended{p, old} // it is so already
	}
	return Ended{next, ReasonAfter(p, next, old, reason)}
}

// ReasonAfter is the reason of a delivery that went from before to after: the old one
// while it has the final state that it had, else the new one.
func ReasonAfter(before, after posthorn.Progress, old, reason posthorn.Reason) posthorn.Reason {
	if before.Ended() == after.Ended() {
		return old
	}
	return reason
}

// Reopened reports whether a delivery may have been opened when all of its age had its
// final state: by hand, by a replay, or, late, as one that an event lacked. When its
// time is over, its event is kept for [ExpiredShown] more, as a process that sweeps
// cannot know from its own marks ([Aging]) since when it is final.
func Reopened(p posthorn.Progress, late bool) bool { return p.Extra || p.Round > 0 || late }
