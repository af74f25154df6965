package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// hands are a machine's clocks: how far both are ahead of the true time, and how far
// the wall clock alone is.
type hands struct {
	mu         sync.Mutex
	both, wall time.Duration
}

var startedAt = time.Now()

func (h *hands) read() clock.Reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	return clock.Reading{Wall: now.Round(0).Add(h.both + h.wall), Monotonic: now.Sub(startedAt) + h.both}
}

func (h *hands) set(both, wall time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.both, h.wall = both, wall
}

// timed is a node with hands of its own, and its clock.
func (c *cluster) timed(h *hands) (*postgres.Store, *clock.Clock) {
	c.Helper()
	k := clock.New(clock.Options{Read: h.read, Driven: true, Slack: clock.DatabaseSlack, Log: logger()})
	return open(c, postgres.Options{URL: c.url, Lease: lease, Log: logger(), Clock: k}), k
}

var wrongBy = []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 32 * 24 * time.Hour, -32 * 24 * time.Hour}

// TestANodeWhoseClockIsWrongDoesNothing: of two nodes one has a clock that steps. It
// takes, sends and deletes nothing, the other does all, and when it is set right it
// works again.
func TestANodeWhoseClockIsWrongDoesNothing(t *testing.T) {
	t.Parallel()
	for _, ahead := range wrongBy {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, database(t))
			h := &hands{}
			well, _ := c.timed(&hands{})
			bad, service := c.timed(h)
			held := c.publish(bad)
			if !c.may(bad, held) {
				t.Fatal("it may not attempt what it owns, though all is well")
			}
			h.set(0, ahead)
			// At once, before anybody has compared anything.
			if _, err := bad.Publish(t.Context(), c.publication(bad)); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("publishing: %v", err)
			}
			c.eventually("it says that its clock is wrong", func() bool {
				skew, ok := errors.AsType[*postgres.SkewError](bad.Ping(t.Context()))
				return ok && (skew.Ahead-ahead).Abs() < time.Minute
			})
			if work := c.claim(bad); len(work) != 0 {
				t.Errorf("it claims %d", len(work))
			}
			if swept, err := bad.Sweep(t.Context(), time.Now().Add(90*24*time.Hour), store.Retention{Events: time.Hour, Ran: 24 * time.Hour}); err != nil || swept != (store.Swept{}) {
				t.Errorf("it sweeps: %+v, %v", swept, err)
			}
			if off := time.Until(service.Now()); off.Abs() > time.Minute {
				t.Errorf("the service's time follows by %s", off)
			}
			var work []store.Work
			c.eventually("the other node gets what it owned", func() bool {
				work = c.claim(well)
				return len(work) == 1 && work[0].ID == held
			})
			if err := well.Ping(t.Context()); err != nil {
				t.Errorf("the one whose clock is right: %v", err)
			}
			if rec, err := record(well, c.resultOf(work[0], posthorn.ClassOK)); err != nil || rec.Lost {
				t.Errorf("%+v, %v", rec, err)
			}
			h.set(0, 0)
			c.eventually("it works again", func() bool {
				_, err := bad.Publish(t.Context(), c.publication(bad))
				return err == nil && bad.Ping(t.Context()) == nil
			})
		})
	}
}

// TestNodesThatAgreeAreRight: where all nodes' clocks agree the database's is off.
// They work, and say so. So does a node that is alone.
func TestNodesThatAgreeAreRight(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{2 * time.Second, -time.Hour, 32 * 24 * time.Hour} {
		c := newCluster(t, database(t))
		var nodes []*postgres.Store
		for i := range 3 {
			s, service := c.timed(&hands{wall: ahead + time.Duration(i)*100*time.Millisecond})
			nodes = append(nodes, s)
			for _, s := range nodes {
				id := c.publish(s)
				if err := s.Ping(t.Context()); err != nil || !c.may(s, id) {
					t.Errorf("%s: of %d nodes one is not ready: %v", ahead, len(nodes), err)
				}
				off, ok := errors.AsType[*postgres.DatabaseClockError](s.ClockTrouble())
				if !ok || (off.Ahead+ahead).Abs() > time.Second {
					t.Errorf("%s: %v", ahead, s.ClockTrouble())
				}
			}
			if off := time.Until(service.Now()); off.Abs() > 30*time.Second {
				t.Errorf("%s: the service's time is not the database's but %s ahead", ahead, off)
			}
		}
		seen, _, err := nodes[0].Clocks(t.Context(), time.Now)
		if err != nil || len(seen) != 3 || seen[0].Wrong || (seen[0].Ahead-ahead).Abs() > time.Second {
			t.Errorf("%+v, %v", seen, err)
		}
	}
}

// TestADatabaseWhoseClockJumpsIsNotFollowed: what the nodes see is the same as if
// they all jumped the other way. One that joins them goes by their time, and when one
// believes the database the others do.
func TestADatabaseWhoseClockJumpsIsNotFollowed(t *testing.T) {
	t.Parallel()
	for _, jump := range wrongBy {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, database(t))
			h := &hands{}
			a, first := c.timed(h)
			b, second := c.timed(h)
			h.set(-jump, 0)
			db, err := pgx.Connect(t.Context(), c.url)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close(context.WithoutCancel(t.Context()))
			c.eventually("both say so", func() bool {
				var said int
				err := db.QueryRow(t.Context(), `SELECT count(*) FROM posthorn.clocks WHERE abs(service) > 1000000000`).Scan(&said)
				return err == nil && said == 2
			})
			d, third := c.timed(h)
			for i, k := range []*clock.Clock{first, second, third} {
				if off := k.Now().Sub(h.read().Wall); off.Abs() > clock.Apart {
					t.Errorf("node %d is %s from where it was", i, off)
				}
			}
			for _, s := range []*postgres.Store{a, b, d} {
				if err := s.Ping(t.Context()); err != nil || s.ClockTrouble() == nil {
					t.Errorf("%v; %v", err, s.ClockTrouble())
				}
			}
			first.Set(time.Now(), h.read()) // it has waited for an hour
			c.eventually("the others believe it, too", func() bool { return time.Until(second.Now()).Abs() < time.Minute })
			c.eventually("the third, too", func() bool { return time.Until(third.Now()).Abs() < time.Minute })
			h.set(0, 0)
		})
	}
}

// TestNodesWithoutATableOfClocks: a role that may not make it works on, and says so.
func TestNodesWithoutATableOfClocks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, _ := c.timed(&hands{})
	pgtest.Exec(t, c.url, `DROP TABLE posthorn.clocks`)
	c.eventually("it goes on", func() bool {
		_, err := a.Publish(t.Context(), c.publication(a))
		return err == nil && a.Ping(t.Context()) == nil
	})
	open(t, postgres.Options{URL: c.url})
	pgtest.Exec(t, c.url, `DROP TABLE posthorn.clocks`) // fails if it is not there
}
