package postgres_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/tally"
)

const neverWaits = "publishing waits for no lock of an ANALYZE, whatever weeks are to be made"

// analyze locks the history as a long ANALYZE or VACUUM of it does.
func analyze(t *testing.T, url string) (end func()) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	for _, query := range []string{`BEGIN`, `LOCK TABLE ONLY posthorn.events IN SHARE UPDATE EXCLUSIVE MODE`} {
		if _, err := c.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if _, err := c.Exec(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

// moving is a node whose clock the test sets.
func (c *cluster) moving() (s *postgres.Store, forward func(time.Duration), clock func() time.Time) {
	c.Helper()
	var ahead atomic.Int64
	clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s = open(c, postgres.Options{URL: c.url, Now: clock, Log: logger()})
	return s, func(d time.Duration) { ahead.Add(int64(d)) }, clock
}

func (c *cluster) try(s *postgres.Store, at time.Time) (posthorn.ID, error) {
	c.Helper()
	set, err := s.EndpointSet(c.Context(), c.tenant.ID)
	if err != nil {
		c.Fatal(err)
	}
	a, err := s.Publish(c.Context(), store.Publication{Tenant: c.tenant.ID, SetVersion: set.Version, At: at, BacklogLimit: 1000, Events: []store.NewEvent{{
		Type: "cases.updated", OccurredAt: at, Body: posthorn.AppendBody(nil, "", "cases.updated", at, []byte(`{}`)), Targets: []store.PublishTarget{{Endpoint: c.to.ID}},
	}}})
	if err != nil {
		return 0, err
	}
	return a[0].ID, nil
}

// A node that runs makes the tables of weeks so far ahead that an outage of a month,
// or a clock that is as wrong, finds them there: the lock keeps nobody from publishing.
func TestPublishingGoesOnForWeeksWhileTheHistoryIsLocked(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s, forward, clock := c.moving()
	if _, err := c.try(s, clock()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), clock(), store.Retention{}); err != nil {
		t.Fatal(err)
	}
	analyze(t, c.url)
	for week := range 5 {
		forward(7 * day)
		began := time.Now()
		_, err := c.try(s, clock())
		took := time.Since(began).Round(time.Millisecond)
		t.Logf("%d weeks on: %v after %s", week+1, err, took)
		if err != nil {
			t.Errorf("%d weeks on: %v after %s", week+1, err, took)
			break
		}
		// Housekeeping goes on, too, and cannot make the weeks that follow.
		began = time.Now()
		if _, err := s.Sweep(t.Context(), clock(), store.Retention{}); err != nil {
			t.Errorf("housekeeping: %v after %s", err, time.Since(began).Round(time.Millisecond))
		}
	}
	tally.Count(t, neverWaits, 5)
}

// Where even so the week is missing, publishing is refused at once, for as long as the
// lock is held and a moment; all else goes on.
func TestAMissingWeekThatCannotBeMadeIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	const publishes = 30
	c := newCluster(t, database(t))
	s, forward, clock := c.moving()
	id, err := c.try(s, clock())
	if err != nil {
		t.Fatal(err)
	}
	end := analyze(t, c.url)
	forward(300 * day)
	began := time.Now()
	for range publishes {
		if _, err := c.try(s, clock()); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("%v, want ErrUnavailable", err)
		}
		if time.Since(began) > time.Minute {
			break
		}
	}
	took := time.Since(began)
	t.Logf("%d publishes were refused in %s", publishes, took.Round(time.Millisecond))
	if took > publishes*time.Second/2 {
		t.Errorf("%d publishes waited for %s", publishes, took)
	}
	if rec, err := record(s, c.result(id+1, posthorn.ClassOK)); err != nil || rec.Lost {
		t.Errorf("a result meanwhile: %+v, %v", rec, err)
	}
	end()
	waited := eventually(t, "publishing goes on", func() bool {
		_, err := c.try(s, clock())
		return err == nil
	})
	t.Logf("it went on %s after the lock's end", waited.Round(time.Millisecond))
}

// The upkeep that finds the history locked keeps nobody waiting who needs no new week.
func TestUpkeepThatWaitsForALockKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s, _, clock := c.moving()
	if _, err := c.try(s, clock()); err != nil {
		t.Fatal(err)
	}
	analyze(t, c.url)
	swept := make(chan error, 1)
	go func() {
		_, err := s.Sweep(t.Context(), clock(), store.Retention{})
		swept <- err
	}()
	longest, n := time.Duration(0), 0
	for waiting := true; waiting; {
		began := time.Now()
		if _, err := c.try(s, clock()); err != nil {
			t.Fatal(err)
		}
		longest, n = max(longest, time.Since(began)), n+1
		select {
		case err := <-swept:
			if waiting = false; err != nil {
				t.Errorf("housekeeping: %v", err)
			}
		default:
		}
	}
	t.Logf("of %d publishes meanwhile the longest took %s", n, longest.Round(time.Millisecond))
	if longest > 6*time.Second {
		t.Errorf("a publish waited for %s", longest)
	}
}
