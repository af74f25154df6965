package storetest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// sendFailed publishes one event whose delivery has failed for good.
func (w *world) sendFailed(to posthorn.Endpoint) posthorn.ID {
	w.Helper()
	id := w.send(to)
	w.fail(id, to, 0)
	return id
}

// fail records an attempt that is the last of its schedule.
func (w *world) fail(id posthorn.ID, to posthorn.Endpoint, tries int) store.Recorded {
	w.Helper()
	r := w.result(id, to, tries, fails())
	r.Policy.Schedule = nil
	return w.record(r)
}

func (w *world) retry(o store.RetryOrder) ([]store.Retried, error) {
	o.Tenant = w.tenant.ID
	return w.s.Retry(w.Context(), w.change(), o, nil)
}

func (w *world) suspend(on bool) {
	w.Helper()
	_, err := w.s.SuspendTenant(w.Context(), w.change(), w.tenant.ID, on)
	w.ok(err)
}

func (w *world) canceledNotices() (n int) {
	for _, x := range w.noticed() {
		if x.Kind == store.NoticeCanceled {
			n++
		}
	}
	return n
}

var redeliveryPromises = []promise{
	{"a retry opens a finished delivery for one attempt; a failure puts its state and reason back", func(w *world) {
		to := w.endpoint()
		failed := w.sendFailed(to)
		p := w.publication(w.event("", to))
		p.BacklogLimit = 1
		first := w.send(to) // fills the backlog
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		expired := got[0].ID + 1
		w.shown(expired, "expired", posthorn.ReasonBacklogFull)
		w.record(w.result(first, to, 0, succeeds()))
		for i, id := range []posthorn.ID{failed, expired, first} {
			before := w.delivery(id)
			list, err := w.retry(store.RetryOrder{Delivery: id})
			w.ok(err)
			if len(list) != 1 || list[0].ID != id || list[0].Endpoint != to.ID || !list[0].Progress.Extra || !list[0].Progress.Manual || !list[0].Progress.NextAt.Equal(w.now) {
				w.Fatalf("%d: %+v", i, list)
			}
			w.shown(id, "pending", "")
			work := w.claimDue(10)
			if len(work) != 1 || work[0].ID != id || work[0].Progress != list[0].Progress {
				w.Fatalf("%d: claimed %+v", i, work)
			}
			rec := w.fail(id, to, before.Progress.Tries)
			if rec.Progress.State != before.Progress.State || rec.Progress.Extra || rec.Progress.Manual {
				w.Errorf("%d: %+v", i, rec.Progress)
			}
			reason := before.Reason
			w.shown(id, before.Shown(), reason)
		}
		list, err := w.retry(store.RetryOrder{Delivery: expired})
		w.ok(err)
		w.claimDue(10)
		w.record(w.result(expired, to, list[0].Progress.Tries, succeeds()))
		w.shown(expired, "succeeded", "")
	}},
	{"a retry of an open delivery moves its next attempt to now", func(w *world) {
		to := w.endpoint()
		waiting, parkedOne := w.send(to), w.publish(parked(w.event("", to)))[0].ID+1
		w.record(w.result(waiting, to, 0, fails()))
		for _, id := range []posthorn.ID{waiting, parkedOne} {
			list, err := w.retry(store.RetryOrder{Delivery: id})
			w.ok(err)
			if p := list[0].Progress; p.Extra || !p.Manual || !p.NextAt.Equal(w.now) || p.State != posthorn.Pending {
				w.Errorf("%+v", p)
			}
		}
		if got := ids(w.claimDue(10)); !slices.Equal(slices.Sorted(slices.Values(got)), []posthorn.ID{waiting, parkedOne}) {
			w.Errorf("claimed %v", got)
		}
		rec := w.record(w.result(waiting, to, 1, fails()))
		if rec.Progress.Manual || rec.Progress.Waits != 2 {
			w.Errorf("it goes on with its schedule: %+v", rec.Progress)
		}
	}},
	{"a retry is refused while an attempt is made, of a suspended tenant, at a deleted endpoint, and of another tenant", func(w *world) {
		to := w.endpoint()
		owned, failed := w.send(to), w.sendFailed(to)
		_, err := w.retry(store.RetryOrder{Delivery: owned})
		w.is(err, store.ErrInFlight)
		list, err := w.retry(store.RetryOrder{Delivery: owned, Held: holds(owned)}) // the engine let go of it
		w.ok(err)
		if len(list) != 1 || len(w.claimDue(10)) != 1 {
			w.Errorf("%+v", list)
		}
		other := w.newTenant("other")
		_, err = w.s.Retry(w.Context(), w.change(), store.RetryOrder{Tenant: other.ID, Delivery: failed}, nil)
		w.is(err, store.ErrNotFound)
		_, err = w.retry(store.RetryOrder{Delivery: 4711})
		w.is(err, store.ErrNotFound)
		w.suspend(true)
		_, err = w.retry(store.RetryOrder{Delivery: failed})
		w.is(err, store.ErrSuspended)
		w.suspend(false)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		_, err = w.retry(store.RetryOrder{Delivery: failed})
		w.is(err, store.ErrGone)
		w.shown(failed, "failed", "")
	}},
	{"what is asked for by hand of a paused endpoint is claimed, and what else waits there is not", func(w *world) {
		to := w.endpoint()
		failed, waits, behind := w.sendFailed(to), w.send(to), w.publish(parked(w.event("", to)))[0].ID+1
		w.record(w.result(waits, to, 0, fails()))
		others := []posthorn.ID{w.publish(parked(w.event("", to)))[0].ID + 1, w.publish(parked(w.event("", to)))[0].ID + 1}
		w.pause(to)
		w.gets(to, 10, true, time.Time{})
		byHand := []posthorn.ID{failed, waits, behind}
		for _, id := range byHand {
			list, err := w.retry(store.RetryOrder{Delivery: id})
			w.ok(err)
			if len(list) != 1 || !list[0].Progress.Manual || list[0].Refused != nil {
				w.Errorf("%+v", list)
			}
			w.shown(id, "pending", "")
		}
		work := w.claimDue(10)
		if got := slices.Sorted(slices.Values(ids(work))); !slices.Equal(got, byHand) {
			w.Fatalf("claimed %v, want %v", got, byHand)
		}
		for _, one := range work {
			if !one.Progress.Manual {
				w.Errorf("%+v", one.Progress)
			}
		}
		// Those that there was no room for come again, by themselves.
		w.ok(w.s.Park(w.Context(), holds(byHand...)))
		if got, err := w.s.ParkedEndpoints(w.Context(), 0, 10); err != nil || !slices.Equal(got, []int64{to.ID}) {
			w.Errorf("endpoints with something to be sent: %v, %v", got, err)
		}
		w.gets(to, 2, true, time.Time{}, byHand[:2]...)
		w.gets(to, 10, true, time.Time{}, behind)
		w.gets(to, 10, true, time.Time{})
		if got, err := w.s.ParkedEndpoints(w.Context(), 0, 10); err != nil || len(got) != 0 {
			w.Errorf("endpoints with something to be sent: %v, %v", got, err)
		}
		// A failure leaves a finished one as it was; an open one goes on as held.
		if rec := w.fail(failed, to, 1); rec.Progress.State != posthorn.Failed {
			w.Errorf("%+v", rec.Progress)
		}
		w.shown(failed, "failed", "")
		if rec := w.record(w.result(waits, to, 1, fails())); rec.Progress.Manual || !rec.Progress.NextAt.Equal(w.now.Add(time.Hour)) {
			w.Errorf("%+v", rec.Progress)
		}
		w.shown(waits, "held", "")
		w.record(w.result(behind, to, 0, succeeds()))
		w.shown(behind, "succeeded", "")
		due, _, err := w.s.ClaimDue(w.Context(), w.now.Add(2*time.Hour), 10)
		w.ok(err)
		if !slices.Equal(ids(due), []posthorn.ID{waits}) {
			w.Errorf("due is %v", ids(due))
		}
		w.ok(w.s.Park(w.Context(), holds(waits)))
		w.gets(to, 10, true, time.Time{})
		w.setStatus(to, posthorn.StatusActive)
		w.now = w.now.Add(2 * time.Hour)
		w.gets(to, 10, false, w.now.Add(-time.Hour), others...)
	}},
	{"of a paused endpoint's line the head alone is claimed, if it was asked for by hand", func(w *world) {
		to := w.ordered()
		done := w.sendFailed(to)
		line := w.line(to, 3)
		w.gets(to, 1, true, time.Time{}, line[0])
		w.record(w.result(line[0], to, 0, fails()))
		w.pause(to)
		ask := func(id posthorn.ID) {
			w.Helper()
			_, err := w.retry(store.RetryOrder{Delivery: id})
			w.ok(err)
		}
		ask(line[1])
		w.gets(to, 10, true, time.Time{})
		ask(line[0])
		ask(done) // stands aside
		if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{done}) {
			w.Fatalf("claimed %v", got)
		}
		w.ok(w.s.Park(w.Context(), holds(done)))
		w.gets(to, 10, true, time.Time{}, done, line[0])
		if rec := w.record(w.result(line[0], to, 1, fails())); !rec.Parked || rec.Progress.Manual {
			w.Errorf("%+v", rec)
		}
		w.gets(to, 10, true, time.Time{})
		ask(line[0])
		w.gets(to, 10, true, time.Time{}, line[0])
		w.record(w.result(line[0], to, 2, succeeds()))
		w.gets(to, 10, true, time.Time{}, line[1])
		w.record(w.result(line[1], to, 0, succeeds()))
		w.gets(to, 10, true, time.Time{})
	}},
	{"an attempt by hand that our own side spoiled is made in its time, at a paused endpoint too", func(w *world) {
		to := w.ordered()
		line := w.line(to, 2)
		w.pause(to)
		_, err := w.retry(store.RetryOrder{Delivery: line[0]})
		w.ok(err)
		w.gets(to, 10, true, time.Time{}, line[0])
		at := w.now.Add(time.Hour)
		r := w.result(line[0], to, 0, posthorn.Attempt{Class: posthorn.ClassLocal})
		r.Policy.LocalRetry = time.Hour
		if rec := w.record(r); !rec.Parked || !rec.Progress.Manual {
			w.Errorf("%+v", rec)
		}
		w.gets(to, 10, true, at)
	}},
	{"a test that was given back is claimed of a paused endpoint", func(w *world) {
		for _, s := range []posthorn.Settings{{}, {Ordered: true}, {MaxInFlight: 2}} {
			to := w.set(w.endpoint(), s)
			e := parked(w.event("", to))
			e.Targets[0].Owned, e.Targets[0].Ordered = s.OwnedLane(true), s.Ordered
			w.publish(e)
			w.pause(to)
			test := w.event("", to)
			test.Kind = posthorn.EventTest
			id := w.publish(test)[0].ID + 1
			w.ok(w.s.Park(w.Context(), holds(id)))
			work, _, _, err := w.s.ClaimParked(w.Context(), to.ID, 10)
			w.ok(err)
			if len(work) != 1 || work[0].ID != id || !work[0].Aside || !work[0].Progress.Manual {
				w.Errorf("%+v: claimed %+v", s, work)
			}
		}
	}},
	{"nothing is claimed of what a suspended tenant has parked", func(w *world) {
		to := w.endpoint()
		id := w.publish(parked(w.event("", to)))[0].ID + 1
		failed := w.sendFailed(to)
		_, err := w.retry(store.RetryOrder{Delivery: failed})
		w.ok(err)
		w.claimDue(10)
		w.ok(w.s.Park(w.Context(), holds(failed)))
		w.suspend(true)
		w.shown(failed, posthorn.Held, "")
		w.gets(to, 10, true, time.Time{})
		w.suspend(false)
		w.gets(to, 10, false, time.Time{}, id, failed)
	}},
	{"of retries at the same time one opens the delivery and the others move it", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := w.retry(store.RetryOrder{Delivery: id}); err != nil {
					w.Error(err)
				}
			})
		}
		wg.Wait()
		if work := w.claimDue(10); len(work) != 1 || work[0].Progress.Before != posthorn.Failed {
			w.Errorf("claimed %+v", work)
		}
		if c, err := w.s.Counts(w.Context()); err != nil || c.Open != 1 {
			w.Errorf("%d open, %v", c.Open, err)
		}
	}},
	{"an event is resent to all of its endpoints or to one", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		event := w.publish(w.event("", a, b))[0].ID
		w.fail(event+1, a, 0)
		list, err := w.retry(store.RetryOrder{Event: event})
		w.ok(err)
		if len(list) != 2 || list[0].Refused != nil || list[1].Refused != store.ErrInFlight {
			w.Errorf("%+v", list)
		}
		_, err = w.retry(store.RetryOrder{Event: event, Endpoint: b.ID})
		w.is(err, store.ErrInFlight)
		_, err = w.retry(store.RetryOrder{Event: event, Endpoint: w.endpoint().ID})
		w.is(err, store.ErrNotFound)
		if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{event + 1}) {
			w.Errorf("claimed %v", got)
		}
	}},
	{"an open delivery is canceled wherever it is, and the engines are told if they may have it", func(w *world) {
		to := w.endpoint()
		owned, parkedOne := w.send(to), w.publish(parked(w.event("", to)))[0].ID+1
		waiting := w.send(to)
		w.record(w.result(waiting, to, 0, fails()))
		w.noticed()
		for i, id := range []posthorn.ID{parkedOne, waiting, owned} {
			p, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, id, nil)
			w.ok(err)
			if p.State != posthorn.Canceled {
				w.Errorf("%+v", p)
			}
			w.shown(id, "canceled", posthorn.ReasonUser)
			if got, want := w.canceledNotices(), i/2; got != want {
				w.Errorf("%d: %d notices, want %d", i, got, want)
			}
			_, err = w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, id, nil)
			w.is(err, store.ErrFinal)
		}
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.newTenant("other").ID, owned, nil)
		w.is(err, store.ErrNotFound)
		if c, err := w.s.Counts(w.Context()); err != nil || c.Open != 0 {
			w.Errorf("%d open, %v", c.Open, err)
		}
		w.record(w.result(owned, to, 0, succeeds())) // it was in flight
		w.shown(owned, "succeeded", "")
	}},
	{"an event's open deliveries are canceled together", func(w *world) {
		a, b, c := w.endpoint(), w.endpoint(), w.endpoint()
		event := w.publish(w.event("", a, b, c))[0].ID
		w.fail(event+2, b, 0)
		n, err := w.s.CancelEvent(w.Context(), w.change(), w.tenant.ID, event, nil)
		w.ok(err)
		if n != 2 {
			w.Errorf("%d canceled", n)
		}
		w.shown(event+1, "canceled", posthorn.ReasonUser)
		w.shown(event+2, "failed", "")
		_, err = w.s.CancelEvent(w.Context(), w.change(), w.newTenant("other").ID, event, nil)
		w.is(err, store.ErrNotFound)
	}},
	{"what waits for an endpoint is counted exactly and canceled in slices", func(w *world) {
		to, other := w.endpoint(), w.endpoint()
		for i := range 25 {
			e := w.event("", to, other)
			if i%5 == 0 {
				e.Type = "assignments.created"
			}
			if i%2 == 0 {
				e = parked(e)
			}
			w.publish(e)
		}
		w.sendFailed(to)
		f := store.CancelFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Types: []posthorn.Pattern{"cases.*"}, Until: w.now.Add(time.Second)}
		n, err := w.s.CountPending(w.Context(), f)
		w.ok(err)
		if n != 20 {
			w.Fatalf("%d pending, want 20", n)
		}
		early := f
		early.Until = w.now
		if n, err := w.s.CountPending(w.Context(), early); err != nil || n != 0 {
			w.Errorf("%d before anything was accepted, %v", n, err)
		}
		for _, want := range []struct {
			n    int
			more bool
		}{{8, true}, {8, true}, {4, false}, {0, false}} {
			n, more, err := w.s.CancelPending(w.Context(), w.change(), f, 8, nil)
			w.ok(err)
			if n != want.n || more != want.more {
				w.Errorf("canceled %d, more %v; want %+v", n, more, want)
			}
		}
		if c, err := w.s.Counts(w.Context()); err != nil || c.Open != 30 {
			w.Errorf("%d open, %v", c.Open, err)
		}
	}},
	{"a retry with an Idempotency-Key takes effect once", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		c := w.change()
		c.Once = &store.Once{Tenant: w.tenant.ID, Route: "POST /x", Key: "k", Hash: [32]byte{1}, Expires: w.now.Add(time.Hour)}
		answer := func([]store.Retried) []byte { return []byte("queued") }
		_, err := w.s.Retry(w.Context(), c, store.RetryOrder{Tenant: w.tenant.ID, Delivery: id}, answer)
		w.ok(err)
		w.claimDue(10)
		w.fail(id, to, 1)
		_, err = w.s.Retry(w.Context(), c, store.RetryOrder{Tenant: w.tenant.ID, Delivery: id}, answer)
		if r, ok := err.(*store.ErrRepeated); !ok || string(r.Answer) != "queued" {
			w.Errorf("%v", err)
		}
		w.shown(id, "failed", "")
	}},
	{"a deleted endpoint's deliveries can still be listed by its owner", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		w.sweep(store.Retention{})
		e, err := w.s.FormerEndpoint(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		list, _, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID, Endpoint: e.ID}, store.Page{Limit: 10})
		w.ok(err)
		if len(list) != 1 || list[0].ID != id || list[0].EndpointRef != to.Ref {
			w.Errorf("%+v", list)
		}
		_, err = w.s.FormerEndpoint(w.Context(), w.newTenant("other").ID, to.Ref)
		w.is(err, store.ErrNotFound)
	}},
	{"retries, cancellations and replays are audited with who did it", func(w *world) {
		to := w.endpoint()
		failed, open := w.sendFailed(to), w.send(to)
		_, err := w.retry(store.RetryOrder{Delivery: failed})
		w.ok(err)
		_, err = w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, open, nil)
		w.ok(err)
		w.send(to)
		_, _, err = w.s.CancelPending(w.Context(), w.change(), store.CancelFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Until: w.now.Add(time.Second)}, 10, nil)
		w.ok(err)
		r := w.replay(to, posthorn.ReplaySelection{States: []posthorn.ShownState{"canceled"}})
		_, err = w.s.SetReplay(w.Context(), w.change(), w.tenant.ID, r.Ref, posthorn.ReplayPaused, nil)
		w.ok(err)
		entries, _, err := w.s.AuditEntries(w.Context(), store.AuditFilter{Tenant: w.tenant.ID}, 0, 5)
		w.ok(err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Actor+" "+e.Action+" "+e.Subject+" "+string(e.Before)+" "+string(e.After))
		}
		want := []string{
			"test replay.pause " + r.Ref + ` {"state":"running"} {"state":"paused"}`,
			"", // the selection is long
			"test endpoint.cancel_pending " + to.Ref + `  {"canceled":2,"until":"` + w.now.Add(time.Second).Format(time.RFC3339Nano) + `"}`,
			"test delivery.cancel " + open.Text(posthorn.DeliveryPrefix) + ` {"state":"pending"} {"state":"canceled"}`,
			"test delivery.retry " + failed.Text(posthorn.DeliveryPrefix) + ` {"state":"failed"} {"state":"pending"}`,
		}
		if len(got) > 1 && strings.HasPrefix(got[1], "test replay.create "+r.Ref+` `) && strings.Contains(got[1], `"total":2`) {
			got[1] = ""
		}
		if !slices.Equal(got, want) {
			w.Errorf("got  %q\nwant %q", got, want)
		}
	}},
}
