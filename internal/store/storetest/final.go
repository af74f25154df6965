package storetest

import (
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// keeping is a retention of thirty days.
var keeping = store.Retention{Events: 30 * day}

// reopen has a finished delivery opened for one attempt and taken over.
func (w *world) reopen(id posthorn.ID) {
	w.Helper()
	_, err := w.retry(store.RetryOrder{Delivery: id})
	w.ok(err)
	if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{id}) {
		w.Fatalf("claimed %v, want %v", got, id)
	}
}

// ended makes a delivery in each final state: succeeded, failed, canceled by a user, and
// expired as too many waited.
func (w *world) ended(to posthorn.Endpoint) (all []posthorn.Delivery) {
	w.Helper()
	canceled := w.send(to)
	_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, canceled, nil)
	w.ok(err)
	fills := w.send(to)
	p := w.publication(w.event("", to))
	p.BacklogLimit = 1
	got, err := w.s.Publish(w.Context(), p)
	w.ok(err)
	w.record(w.result(fills, to, 0, succeeds()))
	for _, id := range []posthorn.ID{fills, w.sendFailed(to), canceled, got[0].ID + 1} {
		all = append(all, w.delivery(id))
	}
	return all
}

// totals are an endpoint's deliveries by how they ended, as the statistics have them.
func (w *world) totals(to posthorn.Endpoint) (all store.Hour) {
	w.Helper()
	slots, err := w.s.Stats(w.Context(), store.StatsFilter{Tenant: to.Tenant, Endpoint: to.ID, Until: 1 << 40, Step: 1})
	w.ok(err)
	for i := range slots {
		for _, n := range slots[i].Counts() {
			if *n < 0 {
				w.Errorf("an hour counts less than nothing: %+v", slots[i])
			}
		}
		all.Add(&slots[i].Hour)
	}
	return store.Hour{Succeeded: all.Succeeded, Exhausted: all.Exhausted, Canceled: all.Canceled, Expired: all.Expired}
}

func (w *world) counts(to posthorn.Endpoint, want store.Hour) {
	w.Helper()
	if got := w.totals(to); got != want {
		w.Errorf("the statistics say %+v, want %+v", got, want)
	}
}

// outlives has two deliveries opened again right before a retention of thirty days would
// delete them, and acknowledged when it has ended them.
func (w *world) outlives(keep store.Retention) {
	w.Helper()
	to := w.endpoint()
	byHand, replayed := w.sendFailed(to), w.sendFailed(to)
	w.now = w.now.Add(30*day + 59*time.Minute)
	w.sweep(keep) // all of that time had its final state for an hour
	r := w.replay(to, posthorn.ReplaySelection{})
	work := w.feedAll(r, 10)
	if got := ids(work); !slices.Equal(got, []posthorn.ID{byHand, replayed}) {
		w.Fatalf("replayed %v", got)
	}
	w.fail(byHand, to, 1)
	w.reopen(byHand)
	w.now = w.now.Add(2 * time.Minute)
	w.sweep(keep)
	w.shown(byHand, "failed", "")
	w.shown(replayed, "expired", posthorn.ReasonRetention)
	// The receiver acknowledges both.
	for id, tries := range map[posthorn.ID]int{byHand: 2, replayed: 1} {
		if rec := w.record(w.result(id, to, tries, succeeds())); rec.Lost {
			w.Errorf("%+v: an acknowledged attempt is in no record", keep)
		}
		w.shown(id, "succeeded", "")
	}
	w.now = w.now.Add(time.Hour)
	w.sweep(keep)
	for _, id := range []posthorn.ID{byHand, replayed} {
		_, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, id)
		w.is(err, store.ErrNotFound)
	}
	if rec := w.record(w.result(byHand, to, 3, succeeds())); !rec.Lost || rec.Progress.State != posthorn.Pending {
		w.Errorf("a result for what is gone: %+v", rec)
	}
}

var finalPromises = []promise{
	{"whatever ends an extra attempt before it is made puts the old state and its reason back", func(w *world) {
		for _, end := range []struct {
			name string
			do   func(to posthorn.Endpoint, d posthorn.Delivery)
		}{
			{"a user", func(_ posthorn.Endpoint, d posthorn.Delivery) {
				p, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, d.ID, nil)
				w.ok(err)
				if p.Progress != d.Progress || p.Reason != d.Reason {
					w.Errorf("canceled: %+v, want %+v %q", p, d.Progress, d.Reason)
				}
			}},
			{"a user, with its event", func(_ posthorn.Endpoint, d posthorn.Delivery) {
				n, err := w.s.CancelEvent(w.Context(), w.change(), w.tenant.ID, d.Event, nil)
				if w.ok(err); n != 1 {
					w.Errorf("%d canceled", n)
				}
			}},
			{"the erasure of its payload", func(_ posthorn.Endpoint, d posthorn.Delivery) { w.erase(d.EventRef) }},
			{"the deletion of its endpoint", func(to posthorn.Endpoint, d posthorn.Delivery) {
				w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
				w.shown(d.ID, d.Shown(), d.Reason) // even where Sweep has not been yet
				w.sweep(store.Retention{})
			}},
			{"its event's time", func(_ posthorn.Endpoint, d posthorn.Delivery) {
				w.now = d.CreatedAt.Add(keeping.Events + time.Minute)
				w.sweep(keeping)
			}},
		} {
			for i := range 4 {
				w.now = w.now.Truncate(time.Hour).Add(70 * time.Minute) // of an hour that is not dropped
				to := w.endpoint()
				d := w.ended(to)[i]
				before := w.totals(to)
				w.now = w.now.Add(2 * time.Hour) // what is put back is counted where it was
				w.reopen(d.ID)
				end.do(to, d)
				after := w.delivery(d.ID)
				if after.Progress != d.Progress || after.Reason != d.Reason {
					w.Errorf("%s: %+v %q, want %+v %q", end.name, after.Progress, after.Reason, d.Progress, d.Reason)
				}
				w.counts(to, before)
			}
		}
	}},
	{"the audit says what a canceled extra attempt put back", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		w.reopen(id)
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, id, nil)
		w.ok(err)
		a := w.audited(store.AuditFilter{Tenant: w.tenant.ID, Action: "delivery.cancel"})
		if len(a) != 1 || string(a[0].After) != `{"state":"failed"}` {
			w.Errorf("%+v", a)
		}
	}},
	{"an attempt under way when its payload is erased is recorded without the answer, of a reopened delivery too", func(w *world) {
		to := w.endpoint()
		e := w.publish(w.event("k", to))[0]
		w.fail(e.ID+1, to, 0)
		w.reopen(e.ID + 1)
		w.erase("k")
		w.record(w.result(e.ID+1, to, 1, says(fails())))
		d := w.delivery(e.ID + 1)
		if d.Shown() != "failed" || len(d.Attempts) != 2 || d.Attempts[1].Snippet != nil || d.Attempts[1].Headers != nil {
			w.Errorf("%s %+v", d.Shown(), d.Attempts)
		}
	}},
	{"engines are told of what retention settles, once for each endpoint where they may have it", func(w *world) {
		a, b, c := w.endpoint(), w.endpoint(), w.endpoint()
		owned := []posthorn.ID{w.send(a), w.send(a), w.send(b)}
		waits := w.publish(parked(w.event("", c)))[0].ID + 1
		r := w.result(w.send(c), c, 0, fails())
		w.record(r)
		w.noticed()
		w.now = w.now.Add(keeping.Events + time.Minute)
		if got := w.sweep(keeping); got.Expired != 5 {
			w.Errorf("%+v", got)
		}
		var told []int64
		for _, n := range w.noticed() {
			if n.Kind == store.NoticeCanceled {
				told = append(told, n.Endpoint)
			}
		}
		slices.Sort(told)
		if !slices.Equal(told, []int64{a.ID, b.ID}) {
			w.Errorf("told of the endpoints %v, want %v", told, []int64{a.ID, b.ID})
		}
		for _, id := range append(owned, waits) {
			w.shown(id, "expired", posthorn.ReasonRetention)
		}
		// One was in flight.
		if rec := w.record(w.result(owned[0], a, 0, succeeds())); rec.Lost {
			w.Error("a late success is lost")
		}
		w.record(w.result(owned[1], a, 0, fails()))
		w.shown(owned[0], "succeeded", "")
		w.shown(owned[1], "expired", posthorn.ReasonRetention)
		w.counts(a, store.Hour{Succeeded: 1, Expired: 1})
	}},
	{"what was opened again when its event's time is over is not deleted while an attempt may be under way", func(w *world) {
		w.outlives(keeping)
	}},
	{"… nor is it when deliveries are kept for less than their events", func(w *world) {
		w.outlives(store.Retention{Events: 300 * day, Deliveries: 30 * day})
	}},
	{"a late delivery that is open when its event's time is over expires, and its event waits for it", func(w *world) {
		before := w.endpoint()
		event := w.publish(w.event("", before))[0]
		w.record(w.result(event.ID+1, before, 0, succeeds()))
		w.now = w.now.Add(2 * time.Millisecond)
		to := w.endpoint()
		w.now = w.now.Add(30*day + 59*time.Minute)
		w.sweep(keeping)
		work := w.feedAll(w.replay(to, posthorn.ReplaySelection{Missing: true}), 10)
		if len(work) != 1 {
			w.Fatalf("fed %+v", work)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.sweep(keeping)
		w.shown(work[0].ID, "expired", posthorn.ReasonRetention)
		w.record(w.result(work[0].ID, to, 0, succeeds()))
		w.shown(work[0].ID, "succeeded", "")
		w.now = w.now.Add(time.Hour)
		w.sweep(keeping)
		_, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, work[0].ID)
		w.is(err, store.ErrNotFound)
	}},
	{"a delivery is counted once, where it got the final state that it has", func(w *world) {
		to := w.endpoint()
		late, byHand, again := w.send(to), w.sendFailed(to), w.sendFailed(to)
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, late, nil)
		w.ok(err)
		w.counts(to, store.Hour{Canceled: 1, Exhausted: 2})
		first := w.now.Unix() / 3600
		w.now = w.now.Add(3 * time.Hour)
		w.record(w.result(late, to, 0, succeeds()))
		w.counts(to, store.Hour{Succeeded: 1, Exhausted: 2})
		w.reopen(byHand)
		w.counts(to, store.Hour{Succeeded: 1, Exhausted: 2}) // it has not got another one yet
		w.record(w.result(byHand, to, 1, succeeds()))
		w.counts(to, store.Hour{Succeeded: 2, Exhausted: 1})
		work := w.feedAll(w.replay(to, posthorn.ReplaySelection{}), 10)
		if len(work) != 1 || work[0].ID != again {
			w.Fatalf("replayed %+v", work)
		}
		w.counts(to, store.Hour{Succeeded: 2})
		w.fail(again, to, 1)
		w.counts(to, store.Hour{Succeeded: 2, Exhausted: 1})
		slots, err := w.s.Stats(w.Context(), store.StatsFilter{Tenant: to.Tenant, Endpoint: to.ID, From: first, Until: first + 1, Step: 1})
		w.ok(err)
		if len(slots) != 1 || slots[0].Exhausted != 0 || slots[0].Canceled != 0 || slots[0].Failed != 2 {
			w.Errorf("the first hour: %+v", slots)
		}
	}},
	{"a success takes back what its replay counted as failed, however it comes", func(w *world) {
		to := w.endpoint()
		canceled, failed, other := w.sendFailed(to), w.sendFailed(to), w.sendFailed(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.feedAll(r, 10)
		counts := func(succeeded, failed int) {
			w.Helper()
			if r = w.replayNow(r); r.Succeeded != succeeded || r.Failed != failed {
				w.Errorf("%+v, want %d succeeded and %d failed", r, succeeded, failed)
			}
		}
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, canceled, nil)
		w.ok(err)
		w.fail(failed, to, 1)
		w.fail(other, to, 1)
		counts(0, 3)
		w.record(w.result(canceled, to, 1, succeeds())) // it was in flight
		counts(1, 2)
		w.reopen(failed)
		counts(1, 2)
		_, err = w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, failed, nil)
		w.ok(err)
		counts(1, 2)
		w.reopen(failed)
		w.fail(failed, to, 2)
		counts(1, 2)
		w.reopen(failed)
		w.record(w.result(failed, to, 3, succeeds()))
		counts(2, 1)
		w.reopen(failed)
		w.record(w.result(failed, to, 4, succeeds())) // once more
		counts(2, 1)
		// Another replay has counts of its own.
		second := w.replay(to, posthorn.ReplaySelection{})
		if work := w.feedAll(second, 10); len(work) != 1 || !work[0].Replay {
			w.Fatalf("%+v", work)
		}
		w.record(w.result(other, to, 2, succeeds()))
		counts(2, 1)
		if second = w.replayNow(second); second.Succeeded != 1 || second.Failed != 0 {
			w.Errorf("%+v", second)
		}
	}},
	{"an extra attempt of what a replay has sent goes before others, not behind them", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		w.feedAll(w.replay(to, posthorn.ReplaySelection{}), 10)
		w.fail(id, to, 1)
		_, err := w.retry(store.RetryOrder{Delivery: id})
		w.ok(err)
		if work := w.claimDue(10); len(work) != 1 || work[0].Replay || !work[0].Progress.Manual {
			w.Errorf("claimed %+v", work)
		}
	}},
}
