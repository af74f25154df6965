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
	at   place
	low  place     // the lowest that was put there since the scan began
	full time.Time // when all was scanned
}

// place is one in the index of what waits: a time, and an id among those of it.
type place struct{ next, id int64 }

var lowest, highest = place{math.MinInt64, math.MinInt64}, place{math.MaxInt64, math.MaxInt64}

func (p place) before(q place) bool { return p.next < q.next || p.next == q.next && p.id < q.id }

func lower(p, q place) place {
	if p.before(q) {
		return p
	}
	return q
}

// The floor is the first row that is due and was left, or, with none, floorMargin
// ago: what other nodes put there later is due later. Every fullScanEvery all is
// scanned, for what they put below.
const (
	floorMargin   = 5 * time.Second
	fullScanEvery = 30 * time.Second
)

// get begins a scan.
func (f *scanFloor) get() place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.full) > fullScanEvery {
		f.at, f.full = lowest, now
	}
	f.low = highest
	return f.at
}

// lower is told of rows that wait.
func (f *scanFloor) lower(next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := place{next, math.MinInt64}
	f.at, f.low = lower(f.at, p), lower(f.low, p)
}

// reset has the next scan look at all.
func (f *scanFloor) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.low, f.full = lowest, lowest, time.Time{}
}

// raise ends a scan for what was due at now: the first that waits is at left, but
// for what the scan may not have seen.
func (f *scanFloor) raise(left place, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := lower(lower(left, place{now - int64(floorMargin), math.MinInt64}), f.low)
	if left.next <= now {
		to = lower(left, f.low)
	}
	if f.at.before(to) {
		f.at = to
	}
}
