package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// Connections fall silent, one each under the statements that look after something
// else: the lease is renewed, and the node goes on.
func TestASilentConnectionTakesNoLease(t *testing.T) {
	t.Parallel()
	looks := []ill.Fault{
		{Statement: "FROM lanes l JOIN endpoints p"},
		{Statement: "SELECT id, beats FROM runs"},
		{Statement: "WITH RECURSIVE r (run)"},
		{Statement: "SELECT id FROM due WHERE run ="},
		{Statement: "UPDATE runs SET beats"},
		{Statement: "SELECT value FROM meta WHERE key = 'changes'", Purpose: "posthorn listen"},
	}
	for _, at := range []ill.Moment{ill.Query, ill.Answer} {
		t.Run([...]string{"before", "after"}[at]+" the server acts", func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, database(t))
			a, w := c.illNode(t, func(o *postgres.Options) { o.Compare = lease / 10 })
			b := c.node(c.url) // takes what is not renewed, and has lanes be looked at
			id := c.publish(a)
			var strikes []*ill.Strike
			for _, f := range looks {
				f.At, f.Do = at, ill.Silence
				strikes = append(strikes, w.Strike(f))
			}
			for _, s := range strikes {
				struck(t, s)
			}
			silent := time.Now()
			c.eventually("two leases are over", func() bool { return time.Since(silent) > 2*lease })
			if got := c.claim(b); len(got) != 0 {
				t.Errorf("another node has %v", got)
			}
			c.eventually("the node may attempt what it holds", func() bool { return c.may(a, id) })
			if rec, err := record(a, c.result(id, posthorn.ClassOK)); err != nil || rec.Lost {
				t.Errorf("its result: %+v, %v", rec, err)
			}
			noneUnheld(t, a, b)
			tally.Count(t, "connections that fall silent under what looks after other things take no node its lease", len(looks))
		})
	}
}

// What a node cannot see it does not send: two seconds after its last look at the
// switches no attempt begins, though its lease lasts longer.
func TestANodeThatSeesNothingAttemptsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, w := c.illNode(t, func(o *postgres.Options) { o.Lease = time.Minute })
	id := c.publish(a)
	if !c.may(a, id) {
		t.Fatal("a node that sees may attempt")
	}
	cut := time.Now()
	w.Set(ill.Silent)
	last := cut
	c.eventually("it stops", func() bool {
		may := c.may(a, id)
		if may {
			last = time.Now()
		}
		return !may
	})
	if last.Sub(cut) > 2*time.Second {
		t.Errorf("an attempt might have begun %v after the cut", last.Sub(cut))
	}
	tally.Count(t, "a node that is cut off begins no attempt two seconds after its last look at the switches", 1)
	w.Set(ill.Open)
	c.eventually("it goes on", func() bool { return c.may(a, id) })
}

// When a node that was cut off may attempt again, it knows what changed meanwhile.
func TestANodeThatReturnsKnowsFirst(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, w := c.illNode(t, func(o *postgres.Options) { o.Lease = time.Minute })
	b := c.node(c.url)
	id := c.publish(a)
	told := make(chan struct{})
	a.Watch(func(n store.Notice) {
		if n.Kind == store.NoticeAll || n.Kind == store.NoticeEndpoint {
			select {
			case <-told:
			default:
				close(told)
			}
		}
	})
	for _, state := range []ill.State{ill.Silent, ill.Broken} {
		w.Set(state)
		cut := time.Now()
		c.eventually("it stops", func() bool { return !c.may(a, id) || time.Since(cut) > 10*time.Second })
		if err := b.DeleteEndpoint(t.Context(), store.Change{Actor: "test", At: time.Now()}, c.tenant.ID, c.to.Ref, 0); err != nil && state == ill.Silent {
			t.Fatal(err)
		}
		may := make(chan bool)
		go func() { may <- a.MayAttempt(t.Context(), store.Hold{ID: id}) }()
		w.Set(ill.Open)
		<-may
		select {
		case <-told:
		default:
			t.Error("it may attempt, and does not know that the endpoint was deleted")
		}
	}
}

// A database that needs 300 ms more for a statement stops nobody from sending.
func TestASlowDatabaseStopsNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	slow := []string{"SELECT value FROM meta", "UPDATE runs SET beats"}
	a := open(t, postgres.Options{URL: w.URL(pgtest.Name(c.url)), Lease: lease, Log: logger()})
	for i := range 40 {
		for _, statement := range slow {
			w.Strike(ill.Fault{Statement: statement, Nth: i + 1, At: ill.Answer, Do: ill.Delay, For: 300 * time.Millisecond})
		}
	}
	id := c.publish(a)
	stopped := 0
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if !a.MayAttempt(ctx, store.Hold{ID: id}) {
			stopped++
		}
		cancel()
		<-time.After(5 * time.Millisecond)
	}
	if stopped > 0 {
		t.Errorf("the node might not attempt %d times", stopped)
	}
}
