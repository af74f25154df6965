package postgres_test

import (
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// TestNodesKnowWhatOthersKeep publishes on two nodes; what one of them had in memory is
// there after its end.
func TestNodesKnowWhatOthersKeep(t *testing.T) {
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	for _, s := range []*postgres.Store{a, a, b} {
		c.publish(s)
	}
	e := c.event("")
	one := store.Weight(len(e.Body), 1)
	keeps := func(when string, s *postgres.Store, want int64) {
		t.Helper()
		if got := s.Kept(c.tenant.ID).Own / one; got != want {
			t.Errorf("%s: %d events are kept, want %d", when, got, want)
		}
	}
	keeps("of its own", a, 2)
	keeps("of its own", b, 1)
	for _, s := range []*postgres.Store{b, a, b} {
		if err := s.LookAtKept(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	keeps("of both", a, 3)
	keeps("of both", b, 3)
	c.publish(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.LookAtKept(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeps("after the end of one", b, 4)
}

// TestADroppedWeekIsNotKept: rows that went with their week's table are taken back.
func TestADroppedWeekIsNotKept(t *testing.T) {
	h := newHistory(t)
	h.publish("", `{"n":1}`)
	n, err := h.s.CountKept(t.Context(), h.e.Tenant)
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	// As if no row had been deleted one by one.
	pgtest.Exec(t, h.url, `UPDATE posthorn.kept SET bytes = bytes + 5000`)
	h.now = h.now.Add(45 * day)
	keep := store.Retention{Events: 30 * day}
	storetest.Sweep(t, h.s, h.now, keep)
	eventually(t, "the week is forgotten", func() bool {
		h.now = h.now.Add(2 * time.Hour)
		storetest.Sweep(t, h.s, h.now, keep)
		n, err := h.s.CountKept(t.Context(), h.e.Tenant)
		return err == nil && n == 0 && h.s.Kept(h.e.Tenant).All == 0
	})
}

// TestTheRoomOfADatabase is known where the operator says how large it may be.
func TestTheRoomOfADatabase(t *testing.T) {
	url := database(t)
	if _, known := open(t, postgres.Options{URL: url}).Room(); known {
		t.Error("the room is known though nobody said it")
	}
	const gib = 1 << 30
	for bytes, reserve := range map[int64]int64{10 * gib: gib / 2, 100 * gib: gib, 100: 5} {
		r, known := open(t, postgres.Options{URL: url, Bytes: bytes}).Room()
		if !known || r.Reserve != reserve || r.Free >= bytes || bytes > gib && r.Free < bytes-gib {
			t.Errorf("of %d bytes it says %+v %t", bytes, r, known)
		}
	}
}
