package store

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
)

// hourBounds are the upper bounds of the durations that an hour's statistics
// count, each within its bucket; the last bucket counts what took longer.
var hourBounds = [...]time.Duration{
	10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
}

// HourKey names an endpoint's hour, in Unix hours.
type HourKey struct{ Endpoint, Hour int64 }

// Hour is what a commit adds to an endpoint's statistics of an hour, or takes back.
type Hour struct {
	OK, Failed                              int // attempts
	Succeeded, Exhausted, Canceled, Expired int // deliveries
	Buckets                                 [len(hourBounds) + 1]int
}

// Hours gathers the statistics of a commit.
type Hours map[HourKey]*Hour

// At is the hour of an endpoint that a time falls into.
func (h Hours) At(endpoint int64, at time.Time) *Hour {
	return h.of(HourKey{endpoint, at.Unix() / 3600})
}

func (h Hours) of(k HourKey) *Hour {
	s, ok := h[k]
	if !ok {
		s = &Hour{}
		h[k] = s
	}
	return s
}

// Add adds other hours, which are copied.
func (h Hours) Add(other Hours) {
	for k, o := range other {
		if s, ok := h[k]; ok {
			s.Add(o)
		} else {
			c := *o
			h[k] = &c
		}
	}
}

// Count counts an attempt, unless the fault was ours, and by [Hours.Move] what it made
// of its delivery, of which it returns where that is counted. The hour is that of the
// attempt's time in the log, so that the log can be counted again. Tests are not
// counted.
func (h Hours) Count(r *Result, before, after posthorn.Progress, counted int64) int64 {
	if r.Attempt.Class == posthorn.ClassLocal || r.Kind == posthorn.EventTest {
		return counted
	}
	s := h.At(r.Endpoint, r.Attempt.At)
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
	return h.Move(r.Endpoint, r.Kind, before, after, counted, r.Attempt.At)
}

// CountedIn is the hour in which the delivery is counted that the result ends; 0 for
// none, of a test.
func (r *Result) CountedIn() int64 {
	if r.Kind == posthorn.EventTest {
		return 0
	}
	return r.Attempt.At.Unix() / 3600
}

// Move counts a delivery that goes from before to after at a time, unless it is a
// test's: each is counted once, by the final state that it has and in the hour in which
// it got that. counted is the hour in which it has been counted, and what comes back the
// one in which it is then; 0 for none. What a version counted that did not note the hour
// cannot be taken back.
func (h Hours) Move(endpoint int64, kind posthorn.EventKind, before, after posthorn.Progress, counted int64, at time.Time) int64 {
	from, to := before.Ended(), after.Ended()
	if kind == posthorn.EventTest || from == to {
		return counted
	}
	if from.Final() && counted != 0 {
		h.of(HourKey{endpoint, counted}).ended(from, -1)
	}
	if !to.Final() {
		return 0
	}
	k := HourKey{endpoint, at.Unix() / 3600}
	h.of(k).ended(to, 1)
	return k.Hour
}

// ended adds to how many deliveries have a final state.
func (s *Hour) ended(state posthorn.State, n int) {
	switch state {
	case posthorn.Succeeded:
		s.Succeeded += n
	case posthorn.Failed:
		s.Exhausted += n
	case posthorn.Canceled:
		s.Canceled += n
	case posthorn.Expired:
		s.Expired += n
	}
}

// StatsFilter selects hours of an endpoint or, with Endpoint 0, of all endpoints
// of the tenant, deleted ones too for as long as they have rows.
type StatsFilter struct {
	Tenant, Endpoint int64
	// From and Until are Unix hours: From <= hour < Until. Step is how many of
	// them make one slot, counted from From; at least 1.
	From, Until, Step int64
}

// Slot is the sum of a filter's hours from Start (a Unix hour) on.
type Slot struct {
	Start int64
	Hour
}

// StatsSlice is how many hours of endpoints a slice of [Statistics].Stats adds up.
const StatsSlice = 10 * WalkSlice

// SlicesOf cuts a tenant's endpoints into slices of a walk over their hours.
func (f *StatsFilter) SlicesOf(endpoints []int64) iter.Seq[[]int64] {
	return slices.Chunk(endpoints, int(max(1, StatsSlice/max(1, f.Until-f.From))))
}

// AddSlots adds up the slots of two slices, oldest first.
func AddSlots(a, b []Slot) []Slot {
	if len(a) == 0 {
		return b
	}
	sum := make([]Slot, 0, max(len(a), len(b)))
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Start < b[0].Start:
			sum, a = append(sum, a[0]), a[1:]
		case len(a) == 0 || b[0].Start < a[0].Start:
			sum, b = append(sum, b[0]), b[1:]
		default:
			sum = append(sum, a[0])
			sum[len(sum)-1].Add(&b[0].Hour)
			a, b = a[1:], b[1:]
		}
	}
	return sum
}

// Statistics reads what the commits counted, without looking at deliveries.
type Statistics interface {
	// Stats returns the slots in which anything was counted, oldest first. Of an
	// endpoint that is not the tenant's there are none. Of a tenant it is a walk:
	// ErrBusy when too many wait.
	Stats(ctx context.Context, f StatsFilter) ([]Slot, error)
}

// Add adds another hour's counts.
func (s *Hour) Add(o *Hour) {
	s.OK += o.OK
	s.Failed += o.Failed
	s.Succeeded += o.Succeeded
	s.Exhausted += o.Exhausted
	s.Canceled += o.Canceled
	s.Expired += o.Expired
	for i, n := range o.Buckets {
		s.Buckets[i] += n
	}
}

// Quantile is a duration of which only the bucket is known. The exact one is
// over Low and at most High; High is 0 when it took longer than all bounds.
type Quantile struct{ Estimate, Low, High time.Duration }

// Quantile finds the duration that the share q of the attempts (0 < q <= 1)
// stayed within. The estimate lies in the bucket as if that were evenly filled.
// ok is false when nothing was counted.
func (s *Hour) Quantile(q float64) (found Quantile, ok bool) {
	total := 0
	for _, n := range s.Buckets {
		total += n
	}
	if total == 0 {
		return found, false
	}
	rank := min(max(int(math.Ceil(q*float64(total))), 1), total) // of the attempts in order
	i := 0
	for rank > s.Buckets[i] {
		rank -= s.Buckets[i]
		i++
	}
	if i > 0 {
		found.Low = hourBounds[i-1]
	}
	found.Estimate = found.Low
	if i < len(hourBounds) {
		found.High = hourBounds[i]
		found.Estimate += time.Duration(float64(found.High-found.Low) * float64(rank) / float64(s.Buckets[i]))
	}
	return found, true
}

// Counts lists the counts in the order of the columns of statistics: ok, failed,
// succeeded, exhausted, canceled, expired and b0 to b9.
func (s *Hour) Counts() []*int {
	all := []*int{&s.OK, &s.Failed, &s.Succeeded, &s.Exhausted, &s.Canceled, &s.Expired}
	for i := range s.Buckets {
		all = append(all, &s.Buckets[i])
	}
	return all
}

// Scan lists where the columns of a row of statistics go, as [Hour.Counts].
func (s *Hour) Scan() []any {
	var to []any
	for _, n := range s.Counts() {
		to = append(to, n)
	}
	return to
}

// SumColumns are the columns of [Hour.Scan], each summed up.
var SumColumns = func() string {
	columns := []string{"ok", "failed", "succeeded", "exhausted", "canceled", "expired"}
	for i := range len(hourBounds) + 1 {
		columns = append(columns, fmt.Sprint("b", i))
	}
	for i, c := range columns {
		columns[i] = "sum(s." + c + ")"
	}
	return strings.Join(columns, ", ")
}()
