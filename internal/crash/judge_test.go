package crash

import (
	"testing"
	"time"
)

// A harness that sees no loss proves nothing: the ledger must tell each fault
// from what a kill explains.
func TestLedgerTellsFaultsApart(t *testing.T) {
	l := newLedger()
	for _, id := range []string{"once", "lost", "both", "again", "twice", "changed", "early"} {
		l.add(id, &event{kind: "cases.created", data: "{}"})
	}
	l.events["both"].kind = "cases.closed"
	l.events["early"].deliverAt = time.Now().Add(time.Minute)
	for id, e := range l.events {
		l.accepted(id, len(subscribers(e.kind)))
	}
	l.add("refused", &event{kind: "cases.created", data: "{}"}) // never answered: not owed

	l.received(healthy, "once", "cases.created", "{}", true)
	l.received(healthy, "both", "cases.closed", "{}", true) // flaky gets none
	l.received(healthy, "again", "cases.created", "{}", true)
	l.received(healthy, "changed", "cases.created", "{ }", true)
	l.received(healthy, "early", "cases.created", "{}", true)
	l.received(held, "once", "cases.created", "{}", true)
	l.received(healthy, "unknown", "cases.created", "{}", true)
	l.killed()
	l.received(healthy, "again", "cases.created", "{}", true)
	l.received(healthy, "twice", "cases.created", "{}", true)
	l.received(healthy, "twice", "cases.created", "{}", true)

	rows, accepted := l.count()
	if accepted != 7 {
		t.Errorf("%d accepted, want 7", accepted)
	}
	if r := rows[healthy]; r.lost != 2 || r.duplicates != 2 || r.unexplained != 1 {
		t.Errorf("healthy: lost %d, duplicates %d, unexplained %d; want 2 (lost, changed), 2 (again, twice), 1 (twice)", r.lost, r.duplicates, r.unexplained)
	}
	if r := rows[flaky]; r.lost != 1 {
		t.Errorf("flaky: lost %d, want 1", r.lost)
	}
	if l.missing() != 3 {
		t.Errorf("%d missing, want 3", l.missing())
	}
	if len(l.faults) != 5 {
		t.Errorf("faults %q, want changed, early, the wrong endpoint, unknown, twice", l.faults)
	}
}
