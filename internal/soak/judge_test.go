package soak

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A harness that sees no fault proves nothing: each kind is told, and nothing else is.
func TestAuditTellsFaultsApart(t *testing.T) {
	l := newLedger()
	tn, other := &tenant{name: "xpath"}, &tenant{name: "globex"}
	ids := []string{"well", "lost", "lacking", "open", "lied", "late", "twice", "asked", "erased", "garbled", "strange"}
	for n, id := range ids {
		l.add(tn.name, id, n)
		l.accept(tn.name, id, 1)
	}
	came := func(to *tenant, id, delivery string) {
		data := dataOf(tn.name, max(0, slices.Index(ids, id)))
		l.arrived(arrival{door: &door{tenant: to}, path: "/" + to.name + "/steady", event: id, delivery: delivery, data: data}, acknowledged)
	}
	l.events["xpath/asked"].byHand, l.events["xpath/erased"].erased = true, true
	for _, id := range []string{"well", "lacking", "late", "twice", "twice", "asked", "asked", "erased", "strange"} {
		came(tn, id, "dlv_"+id)
	}
	came(other, "well", "dlv_stolen")
	l.arrived(arrival{door: &door{tenant: tn}, path: "/xpath/steady", event: "garbled", delivery: "dlv_garbled", data: `{"n":1}`}, acknowledged)
	l.accept(tn.name, "lacking", 2)

	seen := map[string]bool{}
	a := auditor{ledger: l, tenant: tn.name, seen: seen, states: map[string]int{}}
	for _, line := range []string{
		"well succeeded", "lacking", "open pending", "lied succeeded", "late canceled", "twice succeeded", "asked succeeded",
		"erased succeeded", "garbled canceled", "strange canceled", "foreign succeeded",
	} {
		id, state, some := strings.Cut(line, " ")
		a.event(&logged{ID: id})
		if some {
			a.delivery(&row{ID: "dlv_" + id, Event: id, State: state})
		}
	}
	l.add(tn.name, "old", 99)
	l.accept(tn.name, "old", 1)
	l.events["xpath/old"].accepted = time.Now().Add(-2 * retention)
	if gone := l.missing(seen, time.Now().Add(-retention)); gone != 1 {
		t.Errorf("%d events went by their age, want old", gone)
	}

	want := []string{
		"twice, and nobody", "whose payload was erased", "its tenant never published", "received garbled with the data",
		"accepted with 1 deliveries, and again with 2", "lacking was accepted with 1 deliveries, and the log has 0",
		"logged as pending", "dlv_lied of lied is logged as succeeded", "has the event foreign", "xpath/lost was accepted, and is not in the log",
		"the delivery dlv_lacking, which is not in the log",
	}
	for _, fault := range want {
		if !slices.ContainsFunc(l.faults, func(s string) bool { return strings.Contains(s, fault) }) {
			t.Errorf("not told: %s", fault)
		}
	}
	if len(l.faults) != len(want) {
		t.Errorf("%d faults, want %d:\n%s", len(l.faults), len(want), strings.Join(l.faults, "\n"))
	}
	if a.unrecorded != 2 {
		t.Errorf("%d were acknowledged and are logged as something else, want late and strange", a.unrecorded)
	}
}
