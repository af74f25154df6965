package sim

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/webhook"
)

// ledger is what was promised: the events that were accepted.
type ledger struct {
	mu     sync.Mutex
	events []entry
	// silent are the endpoints that were told to be quiet and since when.
	silent map[int64]time.Time
	spans  map[int64][][2]time.Time
}

type entry struct {
	published
	tenant  int64
	at      time.Time
	due     time.Time
	body    string
	targets map[posthorn.ID]int64
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

func (l *ledger) accept(p published, tenant int64, at time.Time, ev store.NewEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{published: p, tenant: tenant, at: at, due: at, body: string(ev.Body), targets: map[posthorn.ID]int64{}}
	if ev.DeliverAt.After(at) {
		e.due = ev.DeliverAt
	}
	for i, id := range p.deliveries {
		e.targets[id] = ev.Targets[i].Endpoint
	}
	l.events = append(l.events, e)
}

func (l *ledger) tenantOf(delivery posthorn.ID) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if _, ok := e.targets[delivery]; ok {
			return e.tenant
		}
	}
	return 0
}

// quiet notes that an endpoint was paused or deleted: nothing may begin after.
func (l *ledger) quiet(endpoint int64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == nil {
		l.silent, l.spans = map[int64]time.Time{}, map[int64][][2]time.Time{}
	}
	if _, ok := l.silent[endpoint]; !ok {
		l.silent[endpoint] = at
	}
}

// loud notes that attempts may begin again.
func (l *ledger) loud(endpoint int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from, ok := l.silent[endpoint]; ok {
		l.spans[endpoint] = append(l.spans[endpoint], [2]time.Time{from, time.Now()})
		delete(l.silent, endpoint)
	}
}

// check holds what the receivers saw, and what the store says, against the
// ledger, after the world was stopped.
func (w *world) check() {
	w.Helper()
	for id := range w.endpoints {
		w.ledger.loud(id)
	}
	byDelivery := w.checkVisits()
	s, err := sqlite.Open(w.Context(), sqlite.Options{Path: w.path(), Synchronous: "OFF", Poll: -1})
	w.ok(err)
	defer s.Close()
	for _, e := range w.ledger.events {
		for id, target := range e.targets {
			w.checkDelivery(s, e, id, w.endpoints[target], byDelivery[id])
		}
	}
}

// checkVisits checks each request by itself and sorts them by delivery.
func (w *world) checkVisits() map[posthorn.ID][]*visit {
	byRef := map[string]*entry{}
	for i := range w.ledger.events {
		byRef[w.ledger.events[i].ref] = &w.ledger.events[i]
	}
	byHost := map[string]*endpoint{}
	for _, e := range w.endpoints {
		byHost[e.host] = e
	}
	byDelivery := map[posthorn.ID][]*visit{}
	for _, v := range w.receivers.visits {
		id, _ := posthorn.ParseID(posthorn.DeliveryPrefix, v.header.Get("posthorn-delivery"))
		e := byRef[v.header.Get("webhook-id")]
		if e == nil {
			w.Errorf("a request for the unknown event %q", v.header.Get("webhook-id"))
			continue
		}
		target := w.endpoints[e.targets[id]]
		switch {
		case target == nil:
			w.Errorf("%s was sent as a delivery of an endpoint that did not match", e.ref)
			continue
		case v.body != e.body:
			w.Errorf("%s: the body that came is not the one that was accepted: %q, %q", e.ref, v.body, e.body)
		case target.Tenant != e.tenant:
			w.Errorf("%s was sent to another tenant", e.ref)
		case v.at.Before(e.due):
			w.Errorf("%s was sent %s before its time", e.ref, e.due.Sub(v.at))
		}
		w.checkSignature(target, v)
		for _, span := range w.ledger.spans[target.ID] {
			if v.at.After(span[0]) && v.at.Before(span[1]) {
				w.Errorf("a request to endpoint %d %s after it was paused or deleted", target.ID, v.at.Sub(span[0]))
			}
		}
		byDelivery[id] = append(byDelivery[id], v)
	}
	return byDelivery
}

func (w *world) checkSignature(e *endpoint, v *visit) {
	verifier, err := webhook.NewVerifier(e.secret)
	w.ok(err)
	verifier.Now = func() time.Time { return v.at }
	if err := verifier.Verify(v.header, []byte(v.body)); err != nil {
		w.Errorf("endpoint %d could not verify: %v", e.ID, err)
	}
}

// checkDelivery checks one delivery's requests together, and its end.
func (w *world) checkDelivery(s *sqlite.Store, e entry, id posthorn.ID, target *endpoint, visits []*visit) {
	d, err := s.DeliveryByID(w.Context(), e.tenant, id)
	if err != nil {
		w.Errorf("%s of event %s, accepted at %s, is lost: %v", id.Text("dlv_"), e.ref, e.at, err)
		return
	}
	slices.SortFunc(visits, func(a, b *visit) int { return a.at.Compare(b.at) })
	acknowledged, repeats := 0, 0
	schedule := posthorn.DefaultPolicy().For(target.Settings).Schedule
	for i, v := range visits {
		if v.answered/100 == 2 {
			acknowledged++
		}
		if i == 0 {
			continue
		}
		before := visits[i-1]
		if before.ended.After(v.at) {
			w.Errorf("%s was in flight twice at %s", e.ref, w.age(v.at))
		}
		number, _ := strconv.Atoi(v.header.Get("posthorn-attempt"))
		switch last, _ := strconv.Atoi(before.header.Get("posthorn-attempt")); {
		case number == last: // only a crash repeats an attempt
			repeats++
		case number < 2 || number > len(schedule)+1 || number < last:
			w.Errorf("%s: attempt %d follows attempt %d", e.ref, number, last)
		case v.at.Sub(before.ended) < schedule[number-2]*8/10:
			w.Errorf("%s: attempt %d came %s after the one before", e.ref, number, v.at.Sub(before.ended))
		}
	}
	if acknowledged > 1+w.crashes {
		w.Errorf("%s was sent %d times after it was acknowledged, in %d crashes", e.ref, acknowledged-1, w.crashes)
	}
	if repeats > w.crashes+w.drains {
		w.Errorf("%d attempts of %s were repeated, in %d crashes and %d drains", repeats, e.ref, w.crashes, w.drains)
	}
	switch {
	case d.Progress.State == posthorn.Succeeded && acknowledged == 0:
		w.Errorf("%s counts as delivered and never was", e.ref)
	case d.Progress.State == posthorn.Failed && acknowledged > 0 && w.crashes == 0:
		w.Errorf("%s counts as failed and was acknowledged", e.ref)
	}
}
