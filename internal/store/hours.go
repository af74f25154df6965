package store

import (
	"time"

	"github.com/posthorn/posthorn"
)

// hourBounds are the upper bounds of the durations that an hour's statistics
// count; the last bucket counts what took longer.
var hourBounds = [...]time.Duration{
	10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
}

// HourKey names an endpoint's hour, in Unix hours.
type HourKey struct{ Endpoint, Hour int64 }

// Hour is what a commit adds to an endpoint's statistics of an hour.
type Hour struct {
	OK, Failed                              int // attempts
	Succeeded, Exhausted, Canceled, Expired int // deliveries
	Buckets                                 [len(hourBounds) + 1]int
}

// Hours gathers the statistics of a commit.
type Hours map[HourKey]*Hour

// At is the hour of an endpoint that a time falls into.
func (h Hours) At(endpoint int64, at time.Time) *Hour {
	k := HourKey{endpoint, at.Unix() / 3600}
	s, ok := h[k]
	if !ok {
		s = &Hour{}
		h[k] = s
	}
	return s
}

// Count counts an attempt, unless the fault was ours, and the delivery if the
// attempt finished it. before is the progress without the attempt.
func (h Hours) Count(r *Result, before posthorn.Progress, after posthorn.State) {
	if r.Attempt.Class == posthorn.ClassLocal {
		return
	}
	s := h.At(r.Endpoint, r.EndedAt)
	if r.Attempt.Succeeded() {
		s.OK++
	} else {
		s.Failed++
	}
	i := 0
	for i < len(hourBounds) && r.Attempt.Duration > hourBounds[i] {
		i++
	}
	s.Buckets[i]++
	switch {
	case before.State == after:
	case after == posthorn.Succeeded && before.Extra && before.Before == after: // it had before
	case after == posthorn.Succeeded:
		s.Succeeded++
	case after == posthorn.Failed && !before.Extra:
		s.Exhausted++
	}
}
