package storetest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (w *world) plan(to posthorn.Endpoint, sel posthorn.ReplaySelection) store.ReplayPlan {
	w.Helper()
	plan, err := w.s.PlanReplay(w.Context(), w.tenant.ID, to.ID, sel)
	w.ok(err)
	return plan
}

func (w *world) createReplay(to posthorn.Endpoint, sel posthorn.ReplaySelection) (posthorn.Replay, error) {
	w.Helper()
	r := posthorn.Replay{Ref: posthorn.NewRef(posthorn.ReplayPrefix, w.now), Tenant: w.tenant.ID, Endpoint: to.ID, Selection: sel}
	return w.s.CreateReplay(w.Context(), w.change(), r, w.plan(to, sel), nil)
}

func (w *world) replay(to posthorn.Endpoint, sel posthorn.ReplaySelection) posthorn.Replay {
	w.Helper()
	r, err := w.createReplay(to, sel)
	w.ok(err)
	return r
}

func (w *world) feed(r posthorn.Replay, limit int) store.Fed {
	w.Helper()
	fed, err := w.s.FeedReplay(w.Context(), r.ID, limit, w.now)
	w.ok(err)
	return fed
}

// feedAll feeds until the replay is completed and returns all work.
func (w *world) feedAll(r posthorn.Replay, limit int) (work []store.Work) {
	w.Helper()
	for range 1000 {
		fed := w.feed(r, limit)
		if len(fed.Work) > limit {
			w.Fatalf("fed %d, at most %d are allowed", len(fed.Work), limit)
		}
		if work = append(work, fed.Work...); !fed.More {
			return work
		}
	}
	w.Fatal("the replay never ends")
	return nil
}

func (w *world) replayNow(r posthorn.Replay) posthorn.Replay {
	w.Helper()
	r, err := w.s.ReplayByRef(w.Context(), w.tenant.ID, r.Ref)
	w.ok(err)
	return r
}

var replayPromises = []promise{
	{"a replay sends exactly what its plan counts, oldest first, with the schedule begun anew", func(w *world) {
		to, other := w.endpoint(), w.endpoint()
		var want []posthorn.ID
		for i := range 20 {
			switch i % 4 {
			case 0:
				w.sendFailed(other)
			case 1:
				w.record(w.result(w.send(to), to, 0, succeeds()))
			case 2:
				w.send(to) // stays open
			default:
				want = append(want, w.sendFailed(to))
			}
		}
		plan := w.plan(to, posthorn.ReplaySelection{})
		if plan.Total != 5 || len(plan.Samples) != 5 || plan.Samples[0].Delivery != want[0] || plan.Samples[0].State != "failed" || plan.Samples[4].Delivery != want[4] {
			w.Fatalf("%+v", plan)
		}
		r := w.replay(to, posthorn.ReplaySelection{})
		if r.Total != 5 || r.State != posthorn.ReplayRunning || r.EndpointRef != to.Ref {
			w.Errorf("%+v", r)
		}
		work := w.feedAll(r, 2)
		if got := ids(work); !slices.Equal(got, want) {
			w.Fatalf("fed %v, want %v", got, want)
		}
		for _, x := range work {
			if p := x.Progress; !x.Replay || p.Waits != 0 || p.Round != 1 || p.Tries != 1 || p.State != posthorn.Pending || x.Body == nil {
				w.Errorf("%+v", x)
			}
		}
		for _, x := range work[:3] {
			w.record(w.result(x.ID, to, 1, succeeds()))
		}
		w.fail(work[3].ID, to, 1)
		w.record(w.result(work[4].ID, to, 1, fails()))
		if r = w.replayNow(r); r.State != posthorn.ReplayCompleted || r.Sent != 5 || r.Skipped != 0 || r.Succeeded != 3 || r.Failed != 1 {
			w.Errorf("%+v", r)
		}
		w.shown(work[0].ID, "succeeded", "")
		if _, err := w.s.FeedReplay(w.Context(), r.ID, 1, w.now); !errors.Is(err, store.ErrFinal) {
			w.Errorf("fed a completed replay: %v", err)
		}
	}},
	{"a replay selects by state, type and time of acceptance, and never tests", func(w *world) {
		to := w.endpoint()
		began := w.now
		canceled := w.send(to)
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, canceled, nil)
		w.ok(err)
		e := w.event("", to)
		e.Type = "assignments.created"
		typed := w.publish(e)[0].ID + 1
		w.fail(typed, to, 0)
		test := w.event("", to)
		test.Kind = posthorn.EventTest
		w.fail(w.publish(test)[0].ID+1, to, 0)
		failed := w.sendFailed(to)
		for _, c := range []struct {
			sel  posthorn.ReplaySelection
			want int
		}{
			{posthorn.ReplaySelection{}, 2},
			{posthorn.ReplaySelection{States: []posthorn.ShownState{"canceled"}}, 1},
			{posthorn.ReplaySelection{States: posthorn.ReplayableStates()}, 3},
			{posthorn.ReplaySelection{Types: []posthorn.Pattern{"assignments.*", "x.y"}}, 1},
			{posthorn.ReplaySelection{Since: began.Add(time.Millisecond)}, 0},
			{posthorn.ReplaySelection{Since: began, Until: began.Add(time.Millisecond)}, 2},
			{posthorn.ReplaySelection{Until: began}, 0},
		} {
			if got := w.plan(to, c.sel).Total; got != c.want {
				w.Errorf("%+v: %d, want %d", c.sel, got, c.want)
			}
		}
		r := w.replay(to, posthorn.ReplaySelection{Types: []posthorn.Pattern{"cases.*"}})
		if got := ids(w.feedAll(r, 10)); !slices.Equal(got, []posthorn.ID{failed}) {
			w.Errorf("fed %v", got)
		}
	}},
	{"what fails after a replay was made is not one of it, and what was sent otherwise is skipped", func(w *world) {
		to := w.endpoint()
		one, two := w.sendFailed(to), w.sendFailed(to)
		later := w.send(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.now = w.now.Add(time.Hour)
		w.fail(later, to, 0)
		_, err := w.retry(store.RetryOrder{Delivery: one})
		w.ok(err)
		if got := ids(w.feedAll(r, 10)); !slices.Equal(got, []posthorn.ID{two}) {
			w.Errorf("fed %v, want %v", got, two)
		}
		if r = w.replayNow(r); r.Total != 2 || r.Sent != 1 || r.Skipped != 1 {
			w.Errorf("%+v", r)
		}
	}},
	{"missing events are sent as late deliveries, once", func(w *world) {
		before := w.endpoint()
		for range 3 {
			w.publish(w.event("", before))
		}
		w.publish(w.event("")) // nobody wanted it
		typed := w.event("")
		typed.Type = "assignments.created"
		w.publish(typed)
		w.now = w.now.Add(2 * time.Millisecond)
		to := w.endpoint()
		w.send(to) // it existed
		sel := posthorn.ReplaySelection{Missing: true, Types: []posthorn.Pattern{"cases.*"}}
		if plan := w.plan(to, sel); plan.Total != 4 || plan.Samples[0].Delivery != 0 || plan.Samples[0].State != "" {
			w.Fatalf("%+v", plan)
		}
		if n := w.plan(before, sel).Total; n != 0 {
			w.Errorf("%d are missing at an endpoint that did not want them", n)
		}
		r := w.replay(to, sel)
		work := w.feedAll(r, 3)
		if len(work) != 4 || !slices.IsSorted(ids(work)) {
			w.Fatalf("fed %+v", work)
		}
		if n := w.plan(to, sel).Total; n != 0 {
			w.Errorf("%d are still missing", n)
		}
		w.record(w.result(work[0].ID, to, 0, succeeds()))
		w.fail(work[1].ID, to, 0)
		if r = w.replayNow(r); r.Sent != 4 || r.Succeeded != 1 || r.Failed != 1 {
			w.Errorf("%+v", r)
		}
		for _, f := range []store.DeliveryFilter{{Endpoint: to.ID}, {Tenant: w.tenant.ID, Endpoint: to.ID}} {
			list, _, err := w.s.Deliveries(w.Context(), f, store.Page{Limit: 100})
			w.ok(err)
			if len(list) != 5 {
				w.Errorf("%+v: %d deliveries, want 5", f, len(list))
			}
		}
		list, _, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID, Event: work[0].Event}, store.Page{Limit: 100})
		w.ok(err)
		if len(list) != 2 || list[0].ID != work[0].ID || list[0].Shown() != "succeeded" {
			w.Errorf("%+v", list)
		}
		tenants, _, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID}, store.Page{Limit: 100})
		w.ok(err)
		if len(tenants) != 8 {
			w.Errorf("%d deliveries of the tenant, want 8", len(tenants))
		}
		// They go with their event.
		w.now = w.now.Add(30 * day)
		w.sweep(store.Retention{Events: 5 * day})
		if c, err := w.s.Counts(w.Context()); err != nil || c.Open != 0 {
			w.Errorf("%d open, %v", c.Open, err)
		}
		if _, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, work[0].ID); !errors.Is(err, store.ErrNotFound) {
			w.Errorf("a late delivery outlives its event: %v", err)
		}
	}},
	{"an endpoint has one replay at a time; pausing, resuming and canceling", func(w *world) {
		to := w.endpoint()
		w.sendFailed(to)
		w.sendFailed(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		_, err := w.createReplay(to, posthorn.ReplaySelection{})
		w.is(err, store.ErrReplaying)
		set := func(state posthorn.ReplayState) (posthorn.Replay, error) {
			return w.s.SetReplay(w.Context(), w.change(), w.tenant.ID, r.Ref, state, nil)
		}
		running := func() int {
			list, err := w.s.RunningReplays(w.Context(), 0, 10)
			w.ok(err)
			return len(list)
		}
		_, err = set(posthorn.ReplayPaused)
		w.ok(err)
		if running() != 0 {
			w.Error("a paused replay runs")
		}
		_, err = w.s.FeedReplay(w.Context(), r.ID, 1, w.now)
		w.is(err, store.ErrFinal)
		_, err = w.createReplay(to, posthorn.ReplaySelection{})
		w.is(err, store.ErrReplaying)
		_, err = set(posthorn.ReplayRunning)
		w.ok(err)
		w.feed(r, 1)
		w.pause(to)
		if running() != 0 {
			w.Error("the replay of a paused endpoint runs")
		}
		w.setStatus(to, posthorn.StatusActive)
		if running() != 1 {
			w.Error("it does not go on")
		}
		got, err := set(posthorn.ReplayCanceled)
		w.ok(err)
		if got.State != posthorn.ReplayCanceled || got.Sent != 1 {
			w.Errorf("%+v", got)
		}
		_, err = set(posthorn.ReplayCanceled)
		w.ok(err)
		_, err = set(posthorn.ReplayRunning)
		w.is(err, store.ErrFinal)
		if again := w.replay(to, posthorn.ReplaySelection{}); again.Total != 1 {
			w.Errorf("what is left: %+v", again)
		}
		list, err := w.s.Replays(w.Context(), w.tenant.ID, to.ID, 0, 10)
		w.ok(err)
		if len(list) != 2 || list[1].Ref != r.Ref {
			w.Errorf("%+v", list)
		}
		other := w.newTenant("other")
		_, err = w.s.ReplayByRef(w.Context(), other.ID, r.Ref)
		w.is(err, store.ErrNotFound)
		if list, err := w.s.Replays(w.Context(), other.ID, 0, 0, 10); err != nil || len(list) != 0 {
			w.Errorf("%v, %v", list, err)
		}
	}},
	{"of replays that are made at the same time one is", func(w *world) {
		to := w.endpoint()
		w.sendFailed(to)
		var made atomic.Int32
		var wg sync.WaitGroup
		plan := w.plan(to, posthorn.ReplaySelection{})
		for range 8 {
			wg.Go(func() {
				r := posthorn.Replay{Ref: posthorn.NewRef(posthorn.ReplayPrefix, w.now), Tenant: w.tenant.ID, Endpoint: to.ID}
				switch _, err := w.s.CreateReplay(w.Context(), w.change(), r, plan, nil); {
				case err == nil:
					made.Add(1)
				case !errors.Is(err, store.ErrReplaying):
					w.Error(err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 {
			w.Errorf("%d were made", made.Load())
		}
	}},
	{"two that feed a replay at the same time open nothing twice", func(w *world) {
		to := w.endpoint()
		for range 20 {
			w.sendFailed(to)
		}
		r := w.replay(to, posthorn.ReplaySelection{})
		var mu sync.Mutex
		var work []store.Work
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					fed, err := w.s.FeedReplay(w.Context(), r.ID, 3, w.now)
					if err != nil && !errors.Is(err, store.ErrFinal) {
						w.Error(err)
						return
					}
					mu.Lock()
					work = append(work, fed.Work...)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		got := ids(work)
		slices.Sort(got)
		if len(got) != 20 || len(slices.Compact(got)) != 20 {
			w.Errorf("opened %d", len(got))
		}
		if r = w.replayNow(r); r.Sent != 20 || r.State != posthorn.ReplayCompleted {
			w.Errorf("%+v", r)
		}
	}},
	{"a replay of nothing is completed at once; one of a deleted endpoint ends", func(w *world) {
		to := w.endpoint()
		if r := w.replay(to, posthorn.ReplaySelection{}); r.State != posthorn.ReplayCompleted {
			w.Errorf("%+v", r)
		}
		w.sendFailed(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		_, err := w.s.FeedReplay(w.Context(), r.ID, 1, w.now)
		w.is(err, store.ErrFinal)
		if r = w.replayNow(r); r.State != posthorn.ReplayCanceled {
			w.Errorf("%+v", r)
		}
		_, err = w.s.PlanReplay(w.Context(), w.tenant.ID, w.endpointOf(w.newTenant("other")).ID, posthorn.ReplaySelection{})
		w.is(err, store.ErrNotFound)
	}},
	{"what was canceled of a replay counts as failed, until a retry by hand succeeds", func(w *world) {
		to := w.endpoint()
		one, two := w.sendFailed(to), w.sendFailed(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.feedAll(r, 10)
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, one, nil)
		w.ok(err)
		w.fail(two, to, 1)
		_, err = w.retry(store.RetryOrder{Delivery: two})
		w.ok(err)
		w.claimDue(10)
		w.record(w.result(two, to, 2, succeeds()))
		if r = w.replayNow(r); r.Failed != 1 || r.Succeeded != 1 {
			w.Errorf("%+v", r)
		}
	}},
}
