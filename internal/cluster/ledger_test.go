package cluster

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// event is what is known of one event.
type event struct {
	tenant, n int
	data      string
	inLine    bool // for the ordered endpoint, and for no other
	began     time.Time
	accepted  time.Time // zero for not yet
	// nodes are those that it was published through: one of them stored it.
	nodes map[int]bool
	got   [targets]receipts
}

// goesTo lists the endpoints that get the event.
func (e *event) goesTo() []target {
	if e.inLine {
		return []target{ordered}
	}
	return []target{steady, flaky}
}

// receipts are what one endpoint got of an event.
type receipts struct {
	tried time.Time // when the first request came
	acked []time.Time
	tries int
}

// fault is something that was done to a node.
type fault struct {
	node int
	what string
	// What a node acknowledged between from and to may be unknown to the others,
	// and so come again.
	from, to time.Time
}

// ledger knows all that was published, accepted and received.
type ledger struct {
	mu     sync.Mutex
	events map[string]*event
	faults []*fault
	wrong  []string // what must never happen, as it happened
	open   int      // deliveries of accepted events that are not received yet
}

func (l *ledger) add(id string, e *event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.nodes = map[int]bool{}
	l.events[id] = e
}

// through notes that the event is about to be published through a node.
func (l *ledger) through(id string, node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[id].nodes[node] = true
}

// accept notes a 202.
func (l *ledger) accept(id string, deliveries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events[id]
	e.accepted = time.Now()
	if want := len(e.goesTo()); deliveries != want {
		l.fault("%s was accepted with %d deliveries, want %d", id, deliveries, want)
	}
	for _, t := range e.goesTo() {
		if len(e.got[t].acked) == 0 {
			l.open++
		}
	}
}

// receive notes a request that came at some time, and whether it is about to be
// acknowledged.
func (l *ledger) receive(tenant int, t target, id, data string, came time.Time, acknowledge bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.events[id]
	switch {
	case !ok:
		l.fault("tenant %d received %s, which was never published", tenant, id)
		return
	case e.tenant != tenant:
		l.fault("tenant %d received %s, which is of tenant %d", tenant, id, e.tenant)
		return
	case e.data != data:
		l.fault("%s received %s with the data %s, want %s", t, id, data, e.data)
		return
	}
	got := &e.got[t]
	if got.tries++; got.tried.IsZero() || came.Before(got.tried) {
		got.tried = came
	}
	if !acknowledge {
		return
	}
	if got.acked = append(got.acked, time.Now()); len(got.acked) == 1 && !e.accepted.IsZero() {
		l.open--
	}
}

func (l *ledger) fault(format string, args ...any) {
	if len(l.wrong) < 5 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// begin notes a fault, whose end is open until the returned function is called.
func (l *ledger) begin(node int, what string) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &fault{node: node, what: what, from: time.Now(), to: time.Now().Add(time.Hour)}
	l.faults = append(l.faults, f)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		f.to = time.Now()
	}
}

// disturbed reports whether something was done of late to a node, or to any for all.
func (l *ledger) disturbed(node int, since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		if (f.node == node || f.node == all || node == all) && f.to.Add(settling).After(since) {
			return true
		}
	}
	return false
}

const (
	// unrecorded is how old an acknowledgement can be that is not durable yet when
	// its node dies. Generous, for slow machines.
	unrecorded = 3 * time.Second
	// settling is how long what was done to a node is felt after its end.
	settling = 10 * time.Second
)

// sums are the whole run's figures.
type sums struct{ accepted, deliveries, inLine, lost, retried, duplicates, unexplained int }

func (l *ledger) count() (s sums) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.events {
		if e.accepted.IsZero() {
			continue
		}
		s.accepted++
		for _, t := range e.goesTo() {
			s.deliveries++
			got := &e.got[t]
			if len(got.acked) == 0 {
				s.lost++
				l.fault("%s never received %s, accepted through %v", t, id, e.nodes)
				continue
			}
			if got.tries > len(got.acked) {
				s.retried++
			}
			for i := 1; i < len(got.acked); i++ {
				s.duplicates++
				if !l.explained(got.acked[i-1]) {
					s.unexplained++
					l.fault("%s received %s twice without a node that died: %s apart, published through %v; faults: %s",
						t, id, got.acked[i].Sub(got.acked[i-1]), e.nodes, l.told(got.acked[i-1]))
				}
			}
		}
	}
	l.countLines(&s)
	return s
}

// countLines holds the ordered endpoints to publish order: of two events of which
// one was answered before the other was sent, the second is not tried before the
// first was acknowledged.
func (l *ledger) countLines(s *sums) {
	var line [tenants][]*event
	for _, e := range l.events {
		if e.inLine && !e.accepted.IsZero() && len(e.got[ordered].acked) > 0 {
			line[e.tenant] = append(line[e.tenant], e)
		}
	}
	for _, events := range line {
		s.inLine += len(events)
		for _, a := range events {
			for _, b := range events {
				if a.accepted.Before(b.began) && b.got[ordered].tried.Before(a.got[ordered].acked[0]) {
					l.fault("event %d was tried %s before event %d was acknowledged, which was published first; faults: %s",
						b.n, a.got[ordered].acked[0].Sub(b.got[ordered].tried), a.n, l.told(b.got[ordered].tried))
				}
			}
		}
	}
}

// explained reports whether a node died or was cut off before it can have recorded
// an acknowledged attempt. Any may have made it: what does not fit into the memory of
// the node that the event was published through is fetched by whoever has room.
func (l *ledger) explained(acked time.Time) bool {
	for _, f := range l.faults {
		if f.node != all && l.recorded(f.from).Before(acked) && f.to.After(acked) {
			return true
		}
	}
	return false
}

// recorded is the time of the last acknowledgement that is durable for certain at
// some time: what happened just before that to the database, or to a node that
// holds locks, keeps results of others waiting.
func (l *ledger) recorded(at time.Time) time.Time {
	from := at.Add(-unrecorded)
	for _, f := range l.faults {
		if f.from.Before(at) && f.to.Add(unrecorded).After(at) && f.from.Add(-unrecorded).Before(from) {
			from = f.from.Add(-unrecorded)
		}
	}
	return from
}

// told lists the faults for a message.
func (l *ledger) told(at time.Time) string {
	var b strings.Builder
	for _, f := range l.faults {
		fmt.Fprintf(&b, "%s of node %d from %s to %s after; ", f.what, f.node, f.from.Sub(at).Round(time.Millisecond), f.to.Sub(at).Round(time.Millisecond))
	}
	return b.String()
}
