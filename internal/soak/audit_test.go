package soak

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// audit holds an export of each tenant against what its publishers and receivers counted,
// delivery by delivery, and returns how many there were.
func (w *world) audit() (deliveries int) {
	w.t.Helper()
	unrecorded := 0
	seen := map[string]bool{}
	for _, tn := range append(slices.Clone(w.tenants), w.hostile) {
		a := auditor{w: w, tenant: tn, seen: seen}
		if _, err := w.download(w.ctx, tn, `{}`, a.line); err != nil {
			w.t.Fatal(err)
		}
		a.finish()
		deliveries += len(a.rows)
		unrecorded += a.unrecorded
		w.t.Logf("%-8s %6d events and %6d deliveries in the log: %v", tn.name, a.events, len(a.rows), a.states)
	}
	gone := w.ledger.missing(seen, time.Now().Add(-retention))
	w.t.Logf("%d events went by their age", gone)
	if w.span >= retention+20*time.Minute && w.db == nil && gone == 0 {
		w.ledger.fault("nothing went by its age in %s, with a retention of %s", w.span, retention)
	}
	m, err := w.metrics()
	w.must(err)
	if lost := m["posthorn_results_lost_total"]; float64(unrecorded) > lost {
		w.ledger.fault("%d deliveries were acknowledged and the log shows another state; %v results came too late for their delivery", unrecorded, lost)
	}
	return deliveries
}

// auditor reads one tenant's export.
type auditor struct {
	w          *world
	tenant     *tenant
	seen       map[string]bool // deliveries
	event      *event          // whose deliveries come
	id         string
	rows       []row
	of         int // deliveries of the event so far
	events     int
	unrecorded int
	states     map[string]int
}

// line takes in a line: an event's deliveries follow it.
func (a *auditor) line(b []byte) error {
	var in struct {
		Event *struct {
			ID string `json:"id"`
		} `json:"event"`
		Delivery *row `json:"delivery"`
	}
	// Of an event's line the head is enough: its data can be large.
	if head, _, ok := bytes.Cut(b, []byte(`,"data":`)); ok && bytes.HasPrefix(b, []byte(`{"event":`)) {
		b = append(slices.Clone(head), "}}"...)
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("%.200s: %w", b, err)
	}
	a.w.ledger.mu.Lock()
	defer a.w.ledger.mu.Unlock()
	switch {
	case in.Event != nil:
		a.next()
		a.id, a.of = in.Event.ID, 0
		a.events++
		if a.event = a.w.ledger.events[key(a.tenant.name, a.id)]; a.event != nil {
			a.event.logged = true
		} else if !strings.HasPrefix(a.id, "evt_") {
			a.w.ledger.wrong("the log of %s has the event %s, which it never published", a.tenant.name, a.id)
		}
	case in.Delivery != nil:
		a.of++
		a.rows = append(a.rows, *in.Delivery)
		a.delivery(in.Delivery)
	}
	return nil
}

// next closes an event: it must have the deliveries that its 202 promised.
func (a *auditor) next() {
	if a.event == nil || a.event.accepted.IsZero() {
		return
	}
	if a.of != a.event.deliveries && (!a.event.byHand || a.of < a.event.deliveries) {
		a.w.ledger.wrong("%s was accepted with %d deliveries, and the log has %d", a.id, a.event.deliveries, a.of)
	}
}

func (a *auditor) finish() {
	a.w.ledger.mu.Lock()
	defer a.w.ledger.mu.Unlock()
	a.next()
}

// delivery holds a row of the log against what its receiver counted.
func (a *auditor) delivery(d *row) {
	l := a.w.ledger
	if a.states == nil {
		a.states = map[string]int{}
	}
	a.states[d.State]++
	a.seen[d.ID] = true
	r := l.receipts[d.ID]
	switch d.State {
	case "succeeded":
		if (r == nil || r.acked == 0) && a.event != nil {
			l.wrong("%s of %s is logged as succeeded, and no receiver acknowledged it", d.ID, d.Event)
		}
	case "failed", "canceled", "expired":
		if r != nil && r.acked > 0 {
			a.unrecorded++
		}
	default:
		l.wrong("%s of %s is logged as %s when all is over", d.ID, d.Event, d.State)
	}
	if r != nil && !strings.HasPrefix(r.path, "/"+a.tenant.name+"/") {
		l.wrong("%s, a delivery of %s, went to %s", d.ID, a.tenant.name, r.path)
	}
}

// missing finds events that were accepted, and deliveries that came, and are not in the log.
// What was accepted before some time may be gone; it returns how many are.
func (l *ledger) missing(seen map[string]bool, since time.Time) (gone int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.events {
		switch {
		case e.accepted.IsZero() || e.logged:
		case e.accepted.After(since):
			l.wrong("%s was accepted, and is not in the log", k)
		default:
			gone++
		}
	}
	for id, r := range l.receipts {
		if !seen[id] && r.event.logged {
			l.wrong("%s received the delivery %s, which is not in the log", r.path, id)
		}
	}
	return gone
}

// figures holds /metrics against what publishers and receivers counted.
func (w *world) figures() {
	w.t.Helper()
	w.ledger.mu.Lock()
	counts, accepted, tests, repeated := w.ledger.counts, w.ledger.accepted, w.ledger.tests, float64(w.ledger.repeated)
	w.ledger.mu.Unlock()
	m, err := w.metrics()
	w.must(err)
	same := func(what string, figure, counted float64) {
		w.t.Helper()
		w.t.Logf("%-42s %8.0f in /metrics, %8.0f counted", what, figure, counted)
		if figure != counted {
			w.t.Errorf("%s: %.0f in /metrics, %.0f counted", what, figure, counted)
		}
	}
	same("events accepted", m["posthorn_events_published_total"], float64(accepted))
	for o := range outcomes {
		same("attempts that ended as "+o.class(), m.attempts(o.class()), float64(counts[o]))
	}
	for name, v := range m {
		class, ok := strings.CutPrefix(name, `posthorn_attempts_total{class="`)
		if class = strings.TrimSuffix(class, `"}`); ok && v > 0 && !slices.Contains([]string{"ok", "http_status", "timeout"}, class) {
			w.t.Errorf("%v attempts ended as %s, which no receiver does", v, class)
		}
	}
	// An attempt that is acknowledged finishes its delivery, unless that has moved on. A
	// failed one by hand of a delivery that has succeeded may count as one that succeeded.
	ok, finished, lost := m.attempts("ok"), m[`posthorn_deliveries_finished_total{state="succeeded"}`], m["posthorn_results_lost_total"]
	w.t.Logf("%.0f deliveries succeeded in /metrics; %.0f results came too late, %.0f extra attempts failed; %d of the requests were tests",
		finished, lost, repeated, tests)
	if finished > ok+repeated || finished < ok-lost {
		w.t.Errorf("%.0f attempts were acknowledged and %.0f deliveries succeeded; %.0f results came too late, %.0f extra attempts failed", ok, finished, lost, repeated)
	}
	for _, f := range w.ledger.faults {
		w.t.Error(f)
	}
	log, err := w.server.Log()
	w.must(err)
	for _, bad := range []string{"panic: ", "DATA RACE", `"level":"ERROR"`} {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			w.t.Errorf("the service logged %s\n%s", bad, log[i:min(len(log), i+2048)])
		}
	}
}

func (m metrics) attempts(class string) float64 {
	return m[`posthorn_attempts_total{class="`+class+`"}`]
}
