package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// ledger has a cell for every event that a load may publish and for each of its
// deliveries, so that the hot loops write to arrays and share no lock. Times are
// nanoseconds since start.
type ledger struct {
	c        Config
	start    time.Time
	due      []int64 // when the event was, or should have been, sent
	accepted []int64 // when the 202 came; 0 if it did not
	received []atomic.Int64
	copies   []atomic.Int32 // requests beyond the first

	next     atomic.Int64 // the next event's number
	arrived  atomic.Int64 // deliveries received, each once
	last     atomic.Int64 // when one was last received
	mu       sync.Mutex
	refused  map[int]int
	lastSent int64 // when the last answer came
}

// newLedger starts the clock for a load of at most so many events.
func newLedger(c Config, events int) *ledger {
	return &ledger{
		c: c, start: time.Now(), refused: make(map[int]int),
		due: make([]int64, events), accepted: make([]int64, events),
		received: make([]atomic.Int64, events*c.FanOut), copies: make([]atomic.Int32, events*c.FanOut),
	}
}

func (l *ledger) now() int64 { return int64(time.Since(l.start)) }

// receive notes that an event arrived at an endpoint of its tenant.
func (l *ledger) receive(event, endpoint int) {
	if event < 0 || event >= len(l.due) {
		return // of an earlier load
	}
	now := l.now()
	cell := l.c.cell(event, endpoint)
	if !l.received[cell].CompareAndSwap(0, now) {
		l.copies[cell].Add(1)
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

// deliveries calls fn for each delivery to an endpoint that answers.
func (l *ledger) deliveries(fn func(event, cell int)) {
	published := min(int(l.next.Load()), len(l.due))
	for cell := range published * l.c.FanOut {
		if l.c.healthy(cell) {
			fn(cell/l.c.FanOut, cell)
		}
	}
}

// patience is how long settle waits without any arrival.
const patience = 10 * time.Second

// settle waits until all accepted events have arrived at the endpoints that
// answer, or nothing has for a while: the rest is lost and the report says so.
func (l *ledger) settle(ctx context.Context) error {
	progress, left := time.Now(), -1
	return proof.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		missing := 0
		l.deliveries(func(event, cell int) {
			if l.accepted[event] != 0 && l.received[cell].Load() == 0 {
				missing++
			}
		})
		if missing != left {
			left, progress = missing, time.Now()
		}
		return left == 0 || time.Since(progress) > patience, nil
	})
}

// warmUp is left out of the latencies: it opens the connections.
const warmUp = time.Second

// report sums up the load. The server's own figures are added by the caller.
func (l *ledger) report() Report {
	r := Report{Config: l.c, Seconds: l.c.Duration.Seconds(), Refused: l.refused}
	publish, receipt := newHistogram(), newHistogram()
	for event, accepted := range l.accepted {
		if accepted == 0 {
			continue
		}
		r.Accepted++
		if l.due[event] >= int64(warmUp) {
			publish.add(accepted - l.due[event])
		}
	}
	l.deliveries(func(event, cell int) {
		received := l.received[cell].Load()
		if received != 0 {
			r.Delivered++
			r.Duplicates += int(l.copies[cell].Load())
			r.arrivals = addArrival(r.arrivals, received)
		}
		switch {
		case l.accepted[event] == 0:
		case received == 0:
			r.Lost++
		case l.due[event] >= int64(warmUp):
			receipt.add(received - l.due[event])
		}
	})
	r.Publish, r.Receipt = publish.latency(), receipt.latency()
	r.AcceptedPerSecond = perSecond(r.Accepted, l.lastSent)
	r.DeliveredPerSecond = perSecond(r.Delivered, max(l.last.Load(), l.lastSent))
	return r
}

func perSecond(n int, ns int64) float64 {
	if ns <= 0 {
		return 0
	}
	return float64(n) / time.Duration(ns).Seconds()
}

// arrivalStep is the width of a bar in the plot of arrivals.
const arrivalStep = 250 * time.Millisecond

func addArrival(steps []int, at int64) []int {
	i := int(at / int64(arrivalStep))
	for len(steps) <= i {
		steps = append(steps, 0)
	}
	steps[i]++
	return steps
}
