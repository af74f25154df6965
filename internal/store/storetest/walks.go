package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// many publishes n events with the same targets, a thousand in a commit.
func (w *world) many(n int, like store.NewEvent) {
	w.Helper()
	for n > 0 {
		events := make([]store.NewEvent, min(n, 1000))
		for i := range events {
			events[i] = like
		}
		n -= len(events)
		w.publish(events...)
	}
}

// until waits for a condition.
func (w *world) until(what string, is func() bool) {
	w.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			w.Fatalf("%s: it never came", what)
		}
	}
}

// occupied is a slice that lasts until it is released.
type occupied struct{ begun, release, ended chan struct{} }

func (w *world) occupy(tenant int64) occupied {
	o := occupied{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(o.ended)
		err := w.s.Walks().Slice(w.Context(), tenant, func(ctx context.Context) error {
			if _, _, err := w.s.Events(ctx, store.EventFilter{Tenant: w.tenant.ID}, store.Page{Limit: 1}); err != nil {
				w.Error(err)
			}
			close(o.begun)
			<-o.release
			return nil
		})
		if err != nil {
			w.Error(err)
		}
	}()
	return o
}

const walked = 2*store.WalkSlice + 500

var walkPromises = []promise{
	{"a plan lets others go first between its slices, and counts exactly", func(w *world) {
		w.many(walked, w.event(""))
		w.now = w.now.Add(time.Second)
		to := w.endpoint()
		places := make([]occupied, store.WalkPlaces)
		for i := range places {
			places[i] = w.occupy(1000 + int64(i))
			<-places[i].begun
		}
		planned := make(chan store.ReplayPlan, 1)
		go func() {
			plan, err := w.s.PlanReplay(w.Context(), w.tenant.ID, to.ID, posthorn.ReplaySelection{Missing: true})
			if err != nil {
				w.Error(err)
			}
			planned <- plan
		}()
		waiting := func(n int) func() bool { return func() bool { return w.s.Walks().Waiting() == n } }
		w.until("the plan's first slice waits", waiting(1))
		other := w.occupy(2000)
		w.until("another one waits behind it", waiting(2))
		close(places[0].release)
		select {
		case <-other.begun:
		case plan := <-planned:
			w.Fatalf("all %d were counted before another's turn came", plan.Total)
		}
		w.until("the plan's next slice waits", func() bool {
			if len(planned) > 0 {
				w.Fatal("it was counted in one slice")
			}
			return waiting(1)()
		})
		for _, o := range append(places[1:], other) {
			close(o.release)
			<-o.ended
		}
		plan := <-planned
		if plan.Total != walked || len(plan.Samples) != store.ReplaySamples {
			w.Errorf("%d and %d samples, want %d", plan.Total, len(plan.Samples), walked)
		}
	}},
	{"a step of a replay looks at a slice", func(w *world) {
		w.many(walked, w.event(""))
		last := w.event("")
		last.Type = "assignments.created"
		w.publish(last)
		w.now = w.now.Add(time.Second)
		to := w.endpoint()
		r := w.replay(to, posthorn.ReplaySelection{Missing: true, Types: []posthorn.Pattern{"assignments.*"}})
		if r.Total != 1 {
			w.Fatalf("the total is %d", r.Total)
		}
		steps, work := 1, 0
		for {
			fed := w.feed(r, 50)
			if work += len(fed.Work); !fed.More {
				break
			}
			steps++
		}
		if work != 1 || steps < 2 || steps > 3 {
			w.Errorf("%d were sent in %d steps, want 1 in two or three", work, steps)
		}
	}},
	{"what is pending is counted exactly, in slices", func(w *world) {
		const n = store.WalkSlice + 100
		other, to := w.endpoint(), w.endpoint()
		w.many(n, w.event("", other, to))
		w.many(n, parked(w.event("", to)))
		w.publish(later(w.event("", to), w.now.Add(time.Hour)))
		f := store.CancelFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Until: w.now.Add(time.Second)}
		if got, err := w.s.CountPending(w.Context(), f); err != nil || got != 2*n+1 {
			w.Errorf("%d, %v; want %d", got, err, 2*n+1)
		}
		f.Types = []posthorn.Pattern{"assignments.*"}
		if got, err := w.s.CountPending(w.Context(), f); err != nil || got != 0 {
			w.Errorf("%d of another type, %v", got, err)
		}
	}},
	{"a tenant's statistics of a long time are the sum of its endpoints'", func(w *world) {
		var sum []store.Slot
		f := store.StatsFilter{Tenant: w.tenant.ID, From: w.now.Unix()/3600 - store.StatsSlice, Until: w.now.Unix()/3600 + 1, Step: 24}
		for i := range 3 {
			to := w.endpoint()
			for range i + 1 {
				w.record(w.result(w.send(to), to, 0, succeeds()))
			}
			one := f
			one.Endpoint = to.ID
			slots, err := w.s.Stats(w.Context(), one)
			w.ok(err)
			sum = store.AddSlots(sum, slots)
		}
		got, err := w.s.Stats(w.Context(), f)
		w.ok(err)
		if len(got) != 1 || len(sum) != 1 || got[0] != sum[0] || got[0].OK != 6 {
			w.Errorf("got %+v, the endpoints' sum is %+v", got, sum)
		}
	}},
}

// WalksApart shows that walks and other reads do not share connections. hold takes all
// connections of the one or the other kind.
func WalksApart(t *testing.T, s store.Store, hold func(walks bool) (release func())) {
	w := newWorld(t, s)
	to := w.endpoint()
	w.sendFailed(to)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it ends so only if it fails
	defer cancel()
	all := store.EventFilter{Tenant: w.tenant.ID}
	page := store.Page{Limit: 10}

	release := hold(true)
	_, _, err := s.Events(ctx, all, page)
	w.ok(err)
	_, _, err = s.Deliveries(ctx, store.DeliveryFilter{Tenant: w.tenant.ID}, page)
	w.ok(err)
	_, err = s.Stats(ctx, store.StatsFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Until: 1 << 40, Step: 1 << 40})
	w.ok(err)
	release()

	release = hold(false)
	defer release()
	plan, err := s.PlanReplay(ctx, w.tenant.ID, to.ID, posthorn.ReplaySelection{})
	w.ok(err)
	pending, err := s.CountPending(ctx, store.CancelFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Until: w.now})
	w.ok(err)
	if plan.Total != 1 || pending != 0 {
		t.Errorf("%d are planned and %d pending, want 1 and 0", plan.Total, pending)
	}
	w.ok(s.Walks().Slice(ctx, w.tenant.ID, func(ctx context.Context) error {
		events, _, err := s.Events(ctx, all, page)
		if err != nil || len(events) != 1 {
			t.Errorf("%d events, %v", len(events), err)
			return err
		}
		if _, err := s.EventByRef(ctx, w.tenant.ID, events[0].Ref()); err != nil {
			return err
		}
		_, _, err = s.Deliveries(ctx, store.DeliveryFilter{Tenant: w.tenant.ID, Event: events[0].ID}, page)
		return err
	}))
}
