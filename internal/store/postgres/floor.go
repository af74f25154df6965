package postgres

import (
	"math"
	"sync"
	"time"
)

// scanFloor spares the scan for due rows the dead entries at the index's head,
// which a held snapshot keeps from being removed.
type scanFloor struct {
	scanning sync.Mutex // held during a scan

	mu   sync.Mutex
	at   int64
	low  int64     // the lowest that was put there since the scan began
	full time.Time // when all was scanned
}

// The floor stays floorMargin behind what was claimed; every fullScanEvery
// all is scanned, for what other nodes put below.
const (
	floorMargin   = 5 * time.Second
	fullScanEvery = 30 * time.Second
)

// get begins a scan.
func (f *scanFloor) get() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.full) > fullScanEvery {
		f.at, f.full = math.MinInt64, now
	}
	f.low = math.MaxInt64
	return f.at
}

// lower is told of rows that wait.
func (f *scanFloor) lower(next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.low = min(f.at, next), min(f.low, next)
}

// reset has the next scan look at all.
func (f *scanFloor) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.low, f.full = math.MinInt64, math.MinInt64, time.Time{}
}

// raise ends a scan: nothing below waits any more, but for what the scan may not
// have seen.
func (f *scanFloor) raise(to int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = max(f.at, min(to-int64(floorMargin), f.low))
}
