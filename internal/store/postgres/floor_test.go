package postgres

import (
	"math"
	"testing"
	"time"
)

// TestTheFloorHidesNothing: what is put below while a scan runs, which may not have
// seen it, is found by the next one.
func TestTheFloorHidesNothing(t *testing.T) {
	const hour = int64(time.Hour)
	var f scanFloor
	f.get()
	f.raise(hour)
	if got := f.get(); got != hour-int64(floorMargin) {
		t.Errorf("the floor is %d behind the earliest that waits", hour-got)
	}
	f.lower(2 * hour) // above: nothing to do
	f.raise(3 * hour)
	if got := f.get(); got != 2*hour {
		t.Errorf("the floor is %d; during the scan a row came to wait at %d", got, 2*hour)
	}
	f.reset()
	f.raise(5 * hour)
	if got := f.get(); got != math.MinInt64 {
		t.Errorf("the floor is %d, though all was to be looked at", got)
	}
	f.raise(hour)
	f.full = time.Now().Add(-fullScanEvery - time.Second)
	if got := f.get(); got != math.MinInt64 {
		t.Errorf("the floor is %d after %s", got, fullScanEvery)
	}
}
