package postgres

import (
	"math"
	"testing"
	"time"
)

// TestTheFloorHidesNothing: what is put below while a scan runs, which may not have
// seen it, is found by the next one.
func TestTheFloorHidesNothing(t *testing.T) {
	const now = int64(1000 * time.Hour)
	var f scanFloor
	is := func(what string, want place) {
		t.Helper()
		if got := f.get(); got != want {
			t.Errorf("%s: the floor is %v, want %v", what, got, want)
		}
	}
	is("at first", lowest)
	f.raise(place{now - 5, 77}, now)
	is("due rows are left", place{now - 5, 77})
	f.raise(place{now + int64(time.Hour), 1}, now)
	is("the earliest is an hour ahead", place{now - 5, 77}) // later than five seconds ago already
	f.raise(place{now + int64(time.Hour), 1}, now+int64(time.Minute))
	is("a minute later", place{now + int64(time.Minute-floorMargin), math.MinInt64})
	f.lower(now + 7)
	f.raise(place{now + int64(time.Minute), 9}, now+int64(time.Minute))
	is("a row came to wait during the scan", place{now + 7, math.MinInt64})
	f.reset()
	f.raise(place{now + int64(time.Hour), 1}, now)
	is("all is to be looked at", lowest)
	f.raise(place{now, 1}, now)
	f.full = time.Now().Add(-fullScanEvery - time.Second)
	is("the full scan is due", lowest)
}
