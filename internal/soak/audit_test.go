package soak

import (
	"bytes"
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// audit holds the lists of each tenant against what its publishers and receivers counted,
// delivery by delivery, and returns how many there were.
func (w *world) audit() (deliveries int) {
	w.t.Helper()
	unrecorded := 0
	seen := map[string]bool{}
	for _, tn := range append(slices.Clone(w.tenants), w.hostile) {
		a := auditor{ledger: w.ledger, tenant: tn.name, seen: seen, states: map[string]int{}}
		w.must(pages(w.ctx, tn.api, "/events", a.event))
		w.must(pages(w.ctx, tn.api, "/deliveries", a.delivery))
		deliveries += a.rows
		unrecorded += a.unrecorded
		w.t.Logf("%-8s %6d events and %6d deliveries in the log: %v", tn.name, a.events, a.rows, a.states)
	}
	gone := w.ledger.missing(seen, time.Now().Add(-retention))
	w.t.Logf("%d events went by their age", gone)
	if w.span >= retentionShows && w.db == nil && gone == 0 {
		w.ledger.fault("nothing went by its age in %s, with a retention of %s", w.span, retention)
	}
	m, err := w.metrics()
	w.must(err)
	if lost := m["posthorn_results_lost_total"]; float64(unrecorded) > lost {
		w.ledger.fault("%d deliveries were acknowledged and the log shows another state; %v results came too late for their delivery", unrecorded, lost)
	}
	return deliveries
}

// pages visits every row of a list.
func pages[T any](ctx context.Context, api proof.API, list string, visit func(*T)) error {
	for path := list + "?limit=250"; path != ""; {
		var page struct {
			Data []T     `json:"data"`
			Next *string `json:"next_cursor"`
		}
		if err := api.Page(ctx, path, &page); err != nil {
			return err
		}
		for i := range page.Data {
			visit(&page.Data[i])
		}
		if path = ""; page.Next != nil {
			path = list + "?limit=250&cursor=" + url.QueryEscape(*page.Next)
		}
	}
	return nil
}

// auditor reads one tenant's lists.
type auditor struct {
	ledger       *ledger
	tenant       string
	seen         map[string]bool // deliveries
	events, rows int
	unrecorded   int
	states       map[string]int
}

// logged is an event of a list.
type logged struct {
	ID string `json:"id"`
}

func (a *auditor) event(in *logged) {
	l := a.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	a.events++
	if e := l.events[key(a.tenant, in.ID)]; e != nil {
		e.logged = true
	} else if !strings.HasPrefix(in.ID, "evt_") { // Posthorn's own
		l.wrong("the log of %s has the event %s, which it never published", a.tenant, in.ID)
	}
}

// delivery holds a row of the log against what its receiver counted.
func (a *auditor) delivery(d *row) {
	l := a.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	a.rows++
	a.states[d.State]++
	a.seen[d.ID] = true
	e, r := l.events[key(a.tenant, d.Event)], l.receipts[d.ID]
	if e != nil {
		e.rows++
	}
	switch d.State {
	case "succeeded":
		if (r == nil || r.acked == 0) && e != nil {
			l.wrong("%s of %s is logged as succeeded, and no receiver acknowledged it", d.ID, d.Event)
		}
	case "failed", "canceled", "expired":
		if r != nil && r.acked > 0 {
			a.unrecorded++
		}
	default:
		l.wrong("%s of %s is logged as %s when all is over", d.ID, d.Event, d.State)
	}
	if r != nil && !strings.HasPrefix(r.path, "/"+a.tenant+"/") {
		l.wrong("%s, a delivery of %s, went to %s", d.ID, a.tenant, r.path)
	}
}

// missing finds events that were accepted and are not in the log, or not with the deliveries
// that their 202 promised, and deliveries that came and are not there. What was accepted
// before some time may be gone; it returns how many are.
func (l *ledger) missing(seen map[string]bool, since time.Time) (gone int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.events {
		switch {
		case e.accepted.IsZero():
		case e.logged:
			// Sent again by hand it may have some more.
			if e.rows < e.deliveries || e.rows > e.deliveries && !e.byHand {
				l.wrong("%s was accepted with %d deliveries, and the log has %d", k, e.deliveries, e.rows)
			}
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
	counts, accepted, tests, again := w.ledger.counts, w.ledger.accepted, w.ledger.tests, float64(w.ledger.again)
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
	// The first acknowledgement finishes a delivery, unless that has moved on.
	ok, finished, lost := m.attempts("ok"), m[`posthorn_deliveries_finished_total{state="succeeded"}`], m["posthorn_results_lost_total"]
	w.t.Logf("%.0f deliveries succeeded in /metrics; %.0f results came too late, %.0f acknowledgements were further ones; %d of the requests were tests",
		finished, lost, again, tests)
	if first := ok - again; finished > first+lost || finished < first-lost {
		w.t.Errorf("%.0f deliveries were acknowledged and %.0f succeeded in /metrics; %.0f results came too late", first, finished, lost)
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
