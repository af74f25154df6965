package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// target is one of the scenario's endpoints.
type target uint8

const (
	healthy target = iota // always answers 200
	flaky                 // answers 503 to first attempts, but never twice in a row
	toggled               // paused and resumed between the kills
	held                  // paused until the end
	targets
)

func (t target) String() string { return [...]string{"healthy", "flaky", "toggled", "held"}[t] }

// types gives each target the event types that it subscribes to. Two of them
// share cases.closed.
var types = [targets][]string{
	healthy: {"cases.created", "cases.closed"},
	flaky:   {"cases.updated", "cases.closed"},
	toggled: {"assignments.created"},
	held:    {"assignments.updated"},
}

// mix is what is published, in turn.
var mix = []string{
	"cases.created", "cases.updated", "cases.created", "assignments.created", "cases.closed",
	"cases.created", "cases.updated", "assignments.created", "cases.created", "assignments.updated",
}

// event is what is known of one event. Times are zero until it happens.
type event struct {
	kind      string
	data      string
	deliverAt time.Time
	accepted  time.Time
	got       [targets]struct {
		acked []time.Time // when the receiver answered 200
		tries int         // requests, answered whatever
	}
}

// ledger knows all that was published, accepted and received.
type ledger struct {
	mu     sync.Mutex
	events map[string]*event
	kills  []time.Time
	faults []string // what must never happen, as it happened
	open   int      // deliveries of accepted events that are not received yet
	// forgotten is how long before a kill an acknowledgement may be lost by it.
	forgotten time.Duration
}

func newLedger() *ledger {
	return &ledger{events: make(map[string]*event), forgotten: forgotten}
}

func (l *ledger) add(id string, e *event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[id] = e
}

// accepted notes the 202 and how many deliveries it promised.
func (l *ledger) accepted(id string, deliveries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events[id]
	e.accepted = time.Now()
	if want := len(subscribers(e.kind)); want != deliveries {
		l.fault("%s (%s) was accepted with %d deliveries, want %d", id, e.kind, deliveries, want)
	}
	for _, t := range subscribers(e.kind) {
		if len(e.got[t].acked) == 0 {
			l.open++
		}
	}
}

// received notes a request and whether the receiver is about to acknowledge it.
func (l *ledger) received(t target, id, kind, data string, acknowledge bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	e, ok := l.events[id]
	switch {
	case !ok:
		l.fault("%s received %s, which was never published", t, id)
		return
	case e.kind != kind || e.data != data:
		l.fault("%s received %s with type %q and data %s, want %q and %s", t, id, kind, data, e.kind, e.data)
		return
	case !slices.Contains(subscribers(kind), t):
		l.fault("%s received %s (%s), which it does not subscribe to", t, id, kind)
		return
	// A millisecond is what deliver_at can express.
	case now.Before(e.deliverAt.Add(-time.Millisecond)):
		l.fault("%s received %s %s before its deliver_at", t, id, e.deliverAt.Sub(now))
	}
	got := &e.got[t]
	got.tries++
	if !acknowledge {
		return
	}
	if got.acked = append(got.acked, now); len(got.acked) == 1 && !e.accepted.IsZero() {
		l.open--
	}
}

func (l *ledger) fault(format string, args ...any) {
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// killed notes that a process is gone and all that it sent is received.
func (l *ledger) killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, time.Now())
}

func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

func subscribers(kind string) []target {
	var some []target
	for t := range targets {
		if slices.Contains(types[t], kind) {
			some = append(some, t)
		}
	}
	return some
}

// row counts one target's deliveries.
type row struct {
	accepted, delivered, retried, delayed, duplicates, unexplained, lost int
	// oldest is the longest time between an acknowledgement and the kill that
	// made it forgotten.
	oldest time.Duration
	// ids are some of the lost ones.
	ids []string
}

// How long before a kill an acknowledgement can have come and not be durable: its
// record waits for the next commit. Generous, for slow machines. Where the disk
// fails it waits for as long as it does, and for the next of its tries: see complete.
const forgotten = 3 * time.Second

// count sums up. A second acknowledgement is explained by a kill shortly after
// the first.
func (l *ledger) count() (rows [targets]row, accepted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.events {
		if e.accepted.IsZero() {
			continue
		}
		accepted++
		for _, t := range subscribers(e.kind) {
			r, got := &rows[t], e.got[t]
			r.accepted++
			if !e.deliverAt.IsZero() {
				r.delayed++
			}
			if len(got.acked) == 0 {
				r.lost++
				r.ids = append(r.ids, id)
				continue
			}
			r.delivered++
			if got.tries > len(got.acked) {
				r.retried++
			}
			for i := 1; i < len(got.acked); i++ {
				r.duplicates++
				if gap, ok := l.explained(got.acked[i-1], got.acked[i]); ok {
					r.oldest = max(r.oldest, gap)
				} else {
					r.unexplained++
					l.fault("%s received %s twice, %s", t, id, l.between(got.acked[i-1], got.acked[i]))
				}
			}
		}
	}
	for t := range rows {
		slices.Sort(rows[t].ids)
	}
	return rows, accepted
}

func (l *ledger) explained(first, second time.Time) (time.Duration, bool) {
	for _, k := range l.kills {
		if first.Before(k) && second.After(k) && k.Sub(first) < l.forgotten {
			return k.Sub(first), true
		}
	}
	return 0, false
}

// between tells two times by the last kill before the second.
func (l *ledger) between(first, second time.Time) string {
	for _, k := range slices.Backward(l.kills) {
		if k.Before(second) {
			return fmt.Sprintf("%s and %s after a kill", first.Sub(k), second.Sub(k))
		}
	}
	return fmt.Sprintf("%s apart", second.Sub(first))
}

func table(rows [targets]row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %9s %9s %8s %8s %11s %12s %5s\n", "endpoint", "accepted", "delivered", "retried", "delayed", "duplicates", "unexplained", "lost")
	for t, r := range rows {
		fmt.Fprintf(&b, "%-8s %9d %9d %8d %8d %11d %12d %5d\n", target(t), r.accepted, r.delivered, r.retried, r.delayed, r.duplicates, r.unexplained, r.lost)
	}
	return b.String()
}
