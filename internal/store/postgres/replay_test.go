package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
)

// fail publishes an event whose delivery has failed for good.
func (c *cluster) fail(s *postgres.Store) posthorn.ID {
	c.Helper()
	id := c.publish(s)
	r := c.result(id, posthorn.ClassTimeout)
	r.Policy.Schedule = nil
	if rec, err := record(s, r); err != nil || rec.Progress.State != posthorn.Failed {
		c.Fatal(rec, err)
	}
	return id
}

// One node at a time works on a replay; when it is gone, another goes on where it
// stopped, and what it had opened is due again.
func TestAReplayIsOneNodesUntilItIsGone(t *testing.T) {
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	const failed = 10
	for range failed {
		c.fail(a)
	}
	plan, err := a.PlanReplay(t.Context(), c.tenant.ID, c.to.ID, posthorn.ReplaySelection{})
	if err != nil || plan.Total != failed {
		t.Fatal(plan, err)
	}
	r, err := a.CreateReplay(t.Context(), store.Change{Actor: "test", At: time.Now()}, posthorn.Replay{
		Ref: posthorn.NewRef(posthorn.ReplayPrefix, time.Now()), Tenant: c.tenant.ID, Endpoint: c.to.ID,
	}, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	running := func(s *postgres.Store) int {
		list, err := s.RunningReplays(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if running(a) != 1 || running(b) != 1 {
		t.Error("nobody's replay is for either node")
	}
	fed, err := a.FeedReplay(t.Context(), r.ID, 3, time.Now())
	if err != nil || len(fed.Work) != 3 {
		t.Fatal(fed, err)
	}
	if _, err := b.FeedReplay(t.Context(), r.ID, 3, time.Now()); !errors.Is(err, store.ErrElsewhere) {
		t.Errorf("a second node feeds it: %v", err)
	}
	if running(a) != 1 || running(b) != 0 {
		t.Errorf("running: %d, %d", running(a), running(b))
	}
	// A retry on the other node meets what is owned.
	o := store.RetryOrder{Tenant: c.tenant.ID, Delivery: fed.Work[0].ID, Held: []store.Hold{fed.Work[0].Hold()}}
	if _, err := b.Retry(t.Context(), store.Change{Actor: "test", At: time.Now()}, o, nil); !errors.Is(err, store.ErrInFlight) {
		t.Errorf("a retry of what another node owns: %v", err)
	}
	if _, err := record(a, c.resultOf(fed.Work[0], posthorn.ClassOK)); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if running(b) != 1 {
		t.Error("the replay of a stopped node is nobody's")
	}
	if fed, err = b.FeedReplay(t.Context(), r.ID, 100, time.Now()); err != nil || len(fed.Work) != failed-3 || fed.Replay.State != posthorn.ReplayCompleted || fed.Replay.Sent != failed {
		t.Fatalf("%+v, %v", fed, err)
	}
	for _, w := range fed.Work {
		if _, err := record(b, c.resultOf(w, posthorn.ClassOK)); err != nil {
			t.Fatal(err)
		}
	}
	back := 0
	for deadline := time.Now().Add(30 * time.Second); back < 2 && time.Now().Before(deadline); {
		work, _, err := b.ClaimDue(t.Context(), time.Now(), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range work {
			back++
			if _, err := record(b, c.resultOf(w, posthorn.ClassOK)); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := b.ReplayByRef(t.Context(), c.tenant.ID, r.Ref)
	if err != nil || got.Succeeded != failed || got.Failed != 0 {
		t.Errorf("%d of the stopped node's came back; %+v, %v", back, got, err)
	}
}

func (c *cluster) resultOf(w store.Work, class posthorn.Class) store.Result {
	r := c.result(w.ID, class)
	r.Tries, r.Attempt.Number = w.Progress.Tries, w.Progress.Attempts+1
	return r
}

// Another node's engine hears of a cancellation within a second.
// What an endpoint with a rate of its own gets, replays too, comes from the node
// that has its lane.
func TestAReplayGoesWithTheLane(t *testing.T) {
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	c.fail(a)
	c.fail(a)
	change := store.Change{Actor: "test", At: time.Now()}
	if _, err := a.UpdateSettings(t.Context(), change, c.tenant.ID, c.to.Ref, 0, func(s *posthorn.Settings) error { s.RatePerSecond = 5; return nil }); err != nil {
		t.Fatal(err)
	}
	plan, err := a.PlanReplay(t.Context(), c.tenant.ID, c.to.ID, posthorn.ReplaySelection{})
	if err != nil || plan.Total != 2 {
		t.Fatal(plan, err)
	}
	r, err := a.CreateReplay(t.Context(), change, posthorn.Replay{
		Ref: posthorn.NewRef(posthorn.ReplayPrefix, time.Now()), Tenant: c.tenant.ID, Endpoint: c.to.ID,
	}, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if fed, err := a.FeedReplay(t.Context(), r.ID, 1, time.Now()); err != nil || len(fed.Work) != 1 { // takes the lane
		t.Fatal(fed, err)
	}
	if _, _, _, err := b.ClaimParked(t.Context(), c.to.ID, 10); err != nil {
		t.Fatal(err)
	}
	if list, err := b.RunningReplays(t.Context(), 0, 10); err != nil || len(list) != 0 {
		t.Errorf("another node than the lane's is given the replay: %v, %v", list, err)
	}
	if _, err := b.FeedReplay(t.Context(), r.ID, 1, time.Now()); !errors.Is(err, store.ErrElsewhere) {
		t.Errorf("another node than the lane's feeds it: %v", err)
	}
	if fed, err := a.FeedReplay(t.Context(), r.ID, 1, time.Now()); err != nil || len(fed.Work) != 1 {
		t.Error(fed, err)
	}
}

func TestACancellationIsHeardByAllNodes(t *testing.T) {
	c := newCluster(t, database(t))
	a := c.node(c.url)
	heard := make(chan store.Notice, 100)
	b := c.node(c.url)
	b.Watch(func(n store.Notice) { heard <- n })
	id := c.publish(b)
	if _, err := a.CancelDelivery(t.Context(), store.Change{Actor: "test", At: time.Now()}, c.tenant.ID, id, nil); err != nil {
		t.Fatal(err)
	}
	for timeout := time.After(30 * time.Second); ; {
		select {
		case n := <-heard:
			if n.Kind != store.NoticeCanceled || n.Endpoint != c.to.ID && n.Endpoint != 0 {
				continue
			}
			if err := b.Park(t.Context(), []store.Hold{{ID: id}}); err != nil { // what an engine does then
				t.Fatal(err)
			}
			if d, err := b.DeliveryByID(t.Context(), c.tenant.ID, id); err != nil || d.Shown() != "canceled" {
				t.Errorf("%+v, %v", d, err)
			}
			return
		case <-timeout:
			t.Fatal("the other node heard nothing")
		}
	}
}
