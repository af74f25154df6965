package store

import (
	"time"

	"github.com/posthorn/posthorn"
)

// Aging is what a process that sweeps remembers, so that a clock that is wrong
// deletes nothing: nothing is judged by its age until the process has run for
// SureAfter with a clock that did not jump, and nothing goes before its final state
// stood for ExpiredShown of such time. It is not safe for concurrent use.
type Aging struct {
	ran   time.Duration
	marks []settledMark // oldest first
	shown posthorn.ID
}

// settledMark: when the process had run for so long, all below the bound was settled.
type settledMark struct {
	ran   time.Duration
	bound posthorn.ID
}

// SureAfter is for how long a clock must not have jumped until it may say what is old.
const SureAfter = time.Hour

// markEvery spaces out the marks: what goes by its age goes so much later at most.
const markEvery = time.Minute

// Sure takes in for how long the process has run with a clock that did not jump, and
// reports whether anything may be judged by its age.
func (a *Aging) Sure(ran time.Duration) bool {
	if ran < a.ran { // it jumped
		*a = Aging{}
	}
	a.ran = ran
	for len(a.marks) > 0 && a.marks[0].ran <= ran-ExpiredShown {
		a.shown = a.marks[0].bound
		a.marks = a.marks[1:]
	}
	return ran >= SureAfter
}

// Wants reports whether it is time to find out whether all below a bound is settled.
func (a *Aging) Wants() bool {
	return len(a.marks) == 0 || a.ran-a.marks[len(a.marks)-1].ran >= markEvery
}

// Settled takes in that all below a bound has its final state.
func (a *Aging) Settled(bound posthorn.ID) {
	a.marks = append(a.marks, settledMark{a.ran, bound})
}

// Shown is the bound below which everything has had its final state for
// ExpiredShown of a running service: nothing from it on may go by its age.
func (a *Aging) Shown() posthorn.ID { return a.shown }
