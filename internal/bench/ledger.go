package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/posthorn/posthorn/internal/proof"
)

// ledger has a cell for every event that a load may publish, so that the hot
// loops write to arrays and share no lock. Times are nanoseconds since start.
type ledger struct {
	start    time.Time
	due      []int64 // when it was, or should have been, sent
	accepted []int64 // when the 202 came; 0 if it did not
	received []atomic.Int64
	copies   []atomic.Int32 // requests beyond the first

	next     atomic.Int64 // the next event's number
	arrived  atomic.Int64 // events received, each once
	last     atomic.Int64 // when an event was last received
	mu       sync.Mutex
	refused  map[int]int
	lastSent int64 // when the last answer came
}

// maxClosedRate bounds how many events a second a closed loop has cells for.
const maxClosedRate = 150_000

// cells is how many events the load may publish at most.
func (c Config) cells() int {
	rate := c.Rate
	if rate == 0 {
		rate = maxClosedRate
	}
	return int(rate*c.Duration.Seconds()) + c.Batch
}

// newLedger starts the clock for at most n events.
func newLedger(n int) *ledger {
	return &ledger{
		start: time.Now(), refused: make(map[int]int),
		due: make([]int64, n), accepted: make([]int64, n),
		received: make([]atomic.Int64, n), copies: make([]atomic.Int32, n),
	}
}

func (l *ledger) now() int64 { return int64(time.Since(l.start)) }

// receive notes that event n arrived.
func (l *ledger) receive(n int) {
	if n < 0 || n >= len(l.received) {
		return // of an earlier load
	}
	now := l.now()
	if !l.received[n].CompareAndSwap(0, now) {
		l.copies[n].Add(1)
		return
	}
	l.arrived.Add(1)
	l.last.Store(now)
}

func (l *ledger) refuse(status, events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[status] += events
}

// patience is how long settle waits without any arrival.
const patience = 10 * time.Second

// settle waits until all accepted events of answering endpoints have arrived,
// or nothing has for a while: the rest is lost and the report says so.
func (l *ledger) settle(ctx context.Context, healthy func(n int) bool) error {
	missing := func() (n int) {
		for i, at := range l.accepted {
			if at != 0 && healthy(i) && l.received[i].Load() == 0 {
				n++
			}
		}
		return n
	}
	progress := time.Now()
	left := -1
	return proof.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		if m := missing(); m != left {
			left, progress = m, time.Now()
		}
		return left == 0 || time.Since(progress) > patience, nil
	})
}

// Latency holds percentiles in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func (l Latency) String() string {
	return fmt.Sprintf("p50 %.1f  p90 %.1f  p99 %.1f  max %.1f ms", l.P50, l.P90, l.P99, l.Max)
}

// latency sums up a histogram of microseconds.
func latency(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
	return Latency{P50: at(50), P90: at(90), P99: at(99), Max: float64(h.Max()) / 1000}
}

// warmUp is left out of the latencies.
const warmUp = time.Second

// report sums up the load. The server's own figures are added by the caller.
func (l *ledger) report(c Config, healthy func(n int) bool) Report {
	r := Report{Config: c, Seconds: c.Duration.Seconds(), Refused: l.refused}
	publish, receipt := histogram(), histogram()
	delivered := 0
	for n, accepted := range l.accepted {
		received := l.received[n].Load()
		if received != 0 && healthy(n) {
			delivered++
			r.Duplicates += int(l.copies[n].Load())
		}
		if accepted == 0 {
			continue
		}
		r.Accepted++
		counted := l.due[n] >= int64(warmUp)
		if counted {
			record(publish, accepted-l.due[n])
		}
		switch {
		case !healthy(n):
		case received == 0:
			r.Lost++
		case counted:
			record(receipt, received-l.due[n])
		}
	}
	r.Publish, r.Receipt = latency(publish), latency(receipt)
	r.AcceptedPerSecond = perSecond(r.Accepted, l.lastSent)
	r.DeliveredPerSecond = perSecond(delivered, max(l.last.Load(), l.lastSent))
	return r
}

func perSecond(n int, ns int64) float64 {
	if ns <= 0 {
		return 0
	}
	return float64(n) / time.Duration(ns).Seconds()
}

// histogram takes microseconds up to ten minutes with three digits.
func histogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns/1000, 1), 600_000_000)) // cannot fail within the bounds
}
