package soak

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// outcome is what a receiver made of a request.
type outcome int

const (
	acknowledged outcome = iota // 200
	refused                     // 503
	timedOut                    // nobody waited for the answer any more
	outcomes
)

// class is what the service calls it.
func (o outcome) class() string { return [outcomes]string{"ok", "http_status", "timeout"}[o] }

// arrival is a request that came to a receiver.
type arrival struct {
	door                        *door
	path, event, delivery, data string
	test                        bool
}

// event is what is known of one that was published.
type event struct {
	n          int
	accepted   time.Time // zero for not yet
	deliveries int       // as answered
	acked      int       // deliveries that were acknowledged
	// byHand: somebody had it sent again, so that it may come twice; or it was erased,
	// so that it cannot.
	byHand, erased bool
	// What the log has of it at the end.
	logged bool
	rows   int
}

// receipt is what one delivery came to.
type receipt struct {
	event *event
	path  string
	acked int
}

// ledger knows all that was published, accepted and received.
type ledger struct {
	mu       sync.Mutex
	events   map[string]*event   // by tenant and id
	receipts map[string]*receipt // by delivery
	counts   [outcomes]int       // requests
	accepted int                 // events
	tests    int                 // of the requests
	// again are acknowledgements of deliveries that had one: they finish nothing.
	again  int
	faults []string // what must never happen, as it happened
	done   []string // events that somebody may do something to, the last ones
}

func newLedger() *ledger {
	return &ledger{events: map[string]*event{}, receipts: map[string]*receipt{}}
}

func key(tenant, id string) string { return tenant + "/" + id }

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong(format, args...)
}

func (l *ledger) wrong(format string, args ...any) {
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// add notes an event that is about to be published.
func (l *ledger) add(tenant, id string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[key(tenant, id)] = &event{n: n}
}

// accept notes a 202. A second one for the same event must say the same.
func (l *ledger) accept(tenant, id string, deliveries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.events[key(tenant, id)]
	if !e.accepted.IsZero() {
		if e.deliveries != deliveries {
			l.wrong("%s was accepted with %d deliveries, and again with %d", id, e.deliveries, deliveries)
		}
		return
	}
	e.accepted, e.deliveries = time.Now(), deliveries
	l.accepted++
}

// dataOf is the data of a tenant's event.
func dataOf(tenant string, n int) string {
	return fmt.Sprintf(`{"n":%d,  "of":"%s","note":"%s"}`, n, tenant, strings.Repeat("ä", 100+n%7*50))
}

// arrived notes a request and what its receiver makes of it.
func (l *ledger) arrived(in arrival, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[o]++
	if in.test {
		l.tests++
		return
	}
	tenant := in.door.tenant.name
	e, ok := l.events[key(tenant, in.event)]
	switch {
	case !ok:
		l.wrong("%s received %s, which its tenant never published", in.path, in.event)
		return
	case in.data != dataOf(tenant, e.n) && in.door.tenant.name != hostileName:
		l.wrong("%s received %s with the data %.100s", in.path, in.event, in.data)
		return
	case e.erased:
		l.wrong("%s received %s, whose payload was erased", in.path, in.event)
	}
	r, ok := l.receipts[in.delivery]
	if !ok {
		r = &receipt{event: e, path: in.path}
		l.receipts[in.delivery] = r
	}
	if r.event != e {
		l.wrong("%s received %s as the delivery %s, which is another event's", in.path, in.event, in.delivery)
	}
	if o != acknowledged {
		return
	}
	if r.acked++; r.acked > 1 {
		l.again++
		if !e.byHand {
			l.wrong("%s received %s twice, and nobody had it sent again", in.path, in.event)
		}
		return
	}
	if e.acked++; e.acked == e.deliveries && !e.byHand && tenant != hostileName && e.n%10 == 0 {
		l.done = append(l.done[max(0, len(l.done)-200):], key(tenant, in.event))
	}
}

// gaveUp notes a request that the service took back before it was read.
func (l *ledger) gaveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[timedOut]++
}

// take finds an event of a tenant of which all deliveries were acknowledged and to
// which nothing was done yet, and marks it as erased or sent again by hand; "" for none.
func (l *ledger) take(tenant string, erase bool) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, k := range l.done {
		id, ok := strings.CutPrefix(k, tenant+"/")
		if e := l.events[k]; ok && !e.byHand && !e.erased {
			e.byHand, e.erased = !erase, erase
			l.done = append(l.done[:i], l.done[i+1:]...)
			return id
		}
	}
	return ""
}

// byHand notes that somebody is about to have a delivery of the event made again. False:
// it must not be, as its payload goes.
func (l *ledger) byHand(tenant, id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.events[key(tenant, id)]
	if !ok || e.erased {
		return false
	}
	e.byHand = true
	return true
}

// forget leaves a tenant out that was deleted.
func (l *ledger) forget(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := map[*event]bool{}
	for k, e := range l.events {
		if strings.HasPrefix(k, tenant+"/") {
			gone[e] = true
			delete(l.events, k)
		}
	}
	for d, r := range l.receipts {
		if gone[r.event] {
			delete(l.receipts, d)
		}
	}
}
