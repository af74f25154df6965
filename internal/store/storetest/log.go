package storetest

import (
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// deliveries reads all pages of a list.
func (w *world) deliveries(f store.DeliveryFilter, limit int) (got []posthorn.ID) {
	w.Helper()
	p := store.Page{Limit: limit}
	for range 10_000 {
		d, next, err := w.s.Deliveries(w.Context(), f, p)
		w.ok(err)
		if len(d) > limit {
			w.Fatalf("a page of %d, limit %d", len(d), limit)
		}
		for _, d := range d {
			got = append(got, d.ID)
		}
		if next == 0 {
			return got
		}
		p.Before = next
	}
	w.Fatal("the list never ends")
	return nil
}

func (w *world) events(f store.EventFilter, limit int) (got []posthorn.ID) {
	w.Helper()
	p := store.Page{Limit: limit}
	for range 10_000 {
		events, next, err := w.s.Events(w.Context(), f, p)
		w.ok(err)
		for _, e := range events {
			if e.Body != nil {
				w.Error("a list holds bodies")
			}
			got = append(got, e.ID)
		}
		if next == 0 {
			return got
		}
		p.Before = next
	}
	w.Fatal("the list never ends")
	return nil
}

func (w *world) same(got, want []posthorn.ID) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Errorf("got %x\nwant %x", got, want)
	}
}

// newest orders ids as lists do.
func newest(list []posthorn.ID) []posthorn.ID {
	list = slices.Clone(list)
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

var logPromises = []promise{
	{"deliveries are listed newest first by tenant, endpoint and event", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		other := w.newTenant("other")
		c := w.endpointOf(other)
		var all, ofA, mine []posthorn.ID
		var first posthorn.ID
		for range 7 {
			e := w.publish(w.event("", a, b))[0]
			if first == 0 {
				first = e.ID
			}
			p := w.publication(w.event("", c))
			p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
			got, err := w.s.Publish(w.Context(), p)
			w.ok(err)
			mine = append(mine, e.ID+1, e.ID+2)
			ofA = append(ofA, e.ID+1)
			all = append(all, e.ID+1, e.ID+2, got[0].ID+1)
		}
		for _, limit := range []int{1, 3, 100} {
			w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID}, limit), newest(mine))
			w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Endpoint: a.ID}, limit), newest(ofA))
			w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Event: first}, limit), newest(mine[:2]))
			w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Event: first, Endpoint: b.ID}, limit), mine[1:2])
			w.same(w.deliveries(store.DeliveryFilter{}, limit), newest(all))
		}
		w.same(w.deliveries(store.DeliveryFilter{Tenant: other.ID, Endpoint: a.ID}, 10), nil)
		w.same(w.deliveries(store.DeliveryFilter{Tenant: other.ID, Event: first}, 10), nil)
	}},
	{"deliveries are selected by shown state and type", func(w *world) {
		a, b, gone := w.endpoint(), w.endpoint(), w.endpoint()
		pending, succeeded, failed, held, canceled := w.send(a), w.send(a), w.send(a), w.send(b), w.send(gone)
		p := w.publication(w.event("", a))
		p.BacklogLimit = 1
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		expired := got[0].ID + 1
		w.record(w.result(succeeded, a, 0, succeeds()))
		r := w.result(failed, a, 0, fails())
		r.Policy.Schedule = nil
		w.record(r)
		w.pause(b)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, gone.Ref, 0))
		want := map[posthorn.ShownState]posthorn.ID{
			"pending": pending, "succeeded": succeeded, "failed": failed, posthorn.Held: held, "canceled": canceled, "expired": expired,
		}
		check := func() {
			w.Helper()
			for _, state := range posthorn.ShownStates() {
				w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, State: state}, 10), []posthorn.ID{want[state]})
			}
		}
		check()
		w.sweep(store.Retention{Events: 24 * time.Hour}) // what is shown becomes so, and stays
		check()
		all := []posthorn.ID{pending, succeeded, failed, held, canceled, expired}
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Type: "cases.*"}, 10), newest(all))
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Type: "assignments.*"}, 10), nil)
	}},
	{"since and until select by acceptance, to the instant", func(w *world) {
		to := w.endpoint()
		var ids []posthorn.ID
		start := w.now
		for range 10 {
			ids = append(ids, w.send(to))
			w.now = w.now.Add(10 * time.Minute)
		}
		since, until := start.Add(20*time.Minute), start.Add(50*time.Minute)
		want := newest(ids[2:5])
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Since: since, Until: until}, 2), want)
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Endpoint: to.ID, Since: since, Until: until}, 2), want)
		for i := range want {
			want[i]--
		}
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID, Since: since, Until: until}, 2), want)
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID, Since: start.Add(24 * time.Hour)}, 2), nil)
	}},
	{"what is accepted after the clock stepped back is found by its time", func(w *world) {
		to := w.endpoint()
		w.now = w.now.Add(24 * time.Hour)
		ahead := w.send(to)
		w.now = w.now.Add(-24 * time.Hour)
		id := w.send(to)
		if id < ahead {
			w.Error("ids went back with the clock")
		}
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, Since: w.now, Until: w.now.Add(time.Hour)}, 10), []posthorn.ID{id})
	}},
	{"a cursor is stable under new rows", func(w *world) {
		to := w.endpoint()
		var want []posthorn.ID
		for range 9 {
			want = append(want, w.send(to))
		}
		var got []posthorn.ID
		p := store.Page{Limit: 2}
		for {
			d, next, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID}, p)
			w.ok(err)
			for _, d := range d {
				got = append(got, d.ID)
			}
			w.send(to)
			if p.Before = next; next == 0 {
				break
			}
		}
		w.same(got, newest(want))
	}},
	{"a page reads a bounded number of rows, and the list is whole all the same", func(w *world) {
		to := w.endpoint()
		many := make([]posthorn.Endpoint, 1100)
		for i := range many {
			many[i] = to
		}
		want := w.send(to)
		w.record(w.result(want, to, 0, succeeds()))
		w.publish(w.event("", many...))
		w.publish(w.event("", many...))
		for _, f := range []store.DeliveryFilter{
			{Tenant: w.tenant.ID, State: "succeeded"}, {Tenant: w.tenant.ID, Endpoint: to.ID, State: "succeeded"}, {State: "succeeded"},
		} {
			d, next, err := w.s.Deliveries(w.Context(), f, store.Page{Limit: 10})
			w.ok(err)
			if len(d) != 0 || next == 0 {
				w.Errorf("the first page has %d rows, next %x", len(d), next)
			}
			w.same(w.deliveries(f, 10), []posthorn.ID{want})
		}
	}},
	{"events are listed newest first by tenant and type", func(w *world) {
		to := w.endpoint()
		var all, typed []posthorn.ID
		for i := range 6 {
			e := w.event("", to)
			if i%2 == 0 {
				e.Type = "assignments.created"
			}
			id := w.publish(e)[0].ID
			all = append(all, id)
			if i%2 == 0 {
				typed = append(typed, id)
			}
		}
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID}, 4), newest(all))
		w.same(w.events(store.EventFilter{}, 4), newest(all))
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID, Type: "assignments.*"}, 2), newest(typed))
		w.same(w.events(store.EventFilter{Tenant: w.newTenant("other").ID}, 2), nil)
	}},
}

const day = 24 * time.Hour

var sweepPromises = []promise{
	{"nothing disappears without a final state", func(w *world) {
		to := w.endpoint()
		owned := w.send(to)
		waits := w.publish(later(w.event("", to), w.now.Add(day)))[0].ID + 1
		behind := w.publish(parked(w.event("", to)))[0].ID + 1
		done := w.send(to)
		w.record(w.result(done, to, 0, succeeds()))
		keep := store.Retention{Events: 30 * day}

		w.now = w.now.Add(30*day - time.Hour)
		if got := w.sweep(keep); got != (store.Swept{}) {
			w.Errorf("before its time: %+v", got)
		}
		w.now = w.now.Add(time.Hour + time.Minute)
		if got := w.sweep(keep); got.Expired != 3 || got.Events != 0 {
			w.Errorf("at the end of the retention: %+v", got)
		}
		for _, id := range []posthorn.ID{owned, waits, behind} {
			w.shown(id, "expired", posthorn.ReasonRetention)
		}
		w.shown(done, "succeeded", "")
		w.now = w.now.Add(store.ExpiredShown)
		if got := w.sweep(keep); got.Events != 4 || got.Deliveries != 4 || got.Expired != 0 {
			w.Errorf("after it: %+v", got)
		}
		_, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, done)
		w.is(err, store.ErrNotFound)
		_, err = w.s.Payload(w.Context(), done-1)
		w.is(err, store.ErrNotFound)
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID}, 10), nil)
		if rec := w.record(w.result(owned, to, 0, succeeds())); !rec.Lost {
			w.Errorf("a result of an erased delivery: %+v", rec)
		}
		if c, err := w.s.Counts(w.Context()); err != nil || c.Open != 0 {
			w.Errorf("%+v, %v", c, err)
		}
	}},
	{"what is swept late is settled before it is erased", func(w *world) {
		to := w.endpoint()
		w.send(to)
		w.now = w.now.Add(90 * day)
		if got := w.sweep(store.Retention{Events: 30 * day}); got.Expired != 1 || got.Deliveries != 1 || got.Events != 1 {
			w.Errorf("%+v", got)
		}
	}},
	{"a slice is bounded and more says that there is work", func(w *world) {
		to := w.endpoint()
		many := make([]posthorn.Endpoint, 1100)
		for i := range many {
			many[i] = to
		}
		w.publish(w.event("", many...))
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		got, err := w.s.Sweep(w.Context(), w.now, store.Retention{Events: day})
		w.ok(err)
		if got.Canceled == 0 || got.Canceled > 1000 || !got.More {
			w.Errorf("%+v", got)
		}
		if rest := w.sweep(store.Retention{Events: day}); rest.Canceled+got.Canceled != 1100 {
			w.Errorf("canceled %d and %d", got.Canceled, rest.Canceled)
		}
		w.now = w.now.Add(2 * day)
		if got := w.sweep(store.Retention{Events: day}); got.Deliveries != 1100 || got.Events != 1 {
			w.Errorf("%+v", got)
		}
		_, err = w.s.Target(w.Context(), to.ID)
		w.is(err, store.ErrNotFound)
	}},
	{"a key can be used again when its event was erased", func(w *world) {
		to := w.endpoint()
		id := w.publish(w.event("order-1", to))[0].ID
		w.record(w.result(id+1, to, 0, succeeds()))
		w.now = w.now.Add(31 * day)
		w.sweep(store.Retention{Events: 30 * day})
		if again := w.publish(w.event("order-1", to))[0]; again.Repeated || again.ID <= id {
			w.Errorf("%+v", again)
		}
	}},
	{"expired Idempotency-Keys are dropped, others stay", func(w *world) {
		once := func(key string, d time.Duration) *store.Once {
			return &store.Once{Route: "r", Key: key, Expires: w.now.Add(d)}
		}
		short, long := once("short", time.Hour), once("long", 24*time.Hour)
		for i, o := range []*store.Once{short, long} {
			c := w.change()
			c.Once = o
			_, err := w.s.CreateTenant(w.Context(), c, []string{"x", "y"}[i])
			w.ok(err)
		}
		w.now = w.now.Add(2 * time.Hour)
		if got := w.sweep(store.Retention{Events: day}); got.Keys != 1 {
			w.Errorf("%+v", got)
		}
		w.ok(w.s.LookupOnce(w.Context(), *short, w.now))
		if err := w.s.LookupOnce(w.Context(), *long, w.now); err == nil {
			w.Error("a valid key was dropped")
		}
	}},
	{"a deleted tenant is canceled, then erased, and no other", func(w *world) {
		mine := w.send(w.endpoint())
		other := w.newTenant("other")
		to := w.endpointOf(other)
		p := w.publication(w.event("key", to), parked(w.event("", to)), later(w.event("", to), w.now.Add(time.Hour)))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), other.ID))
		d, err := w.s.DeliveryByID(w.Context(), other.ID, got[0].ID+1)
		w.ok(err)
		if d.Shown() != "canceled" || d.Reason != posthorn.ReasonTenantDeleted {
			w.Errorf("%s %s", d.Shown(), d.Reason)
		}
		if swept := w.sweep(store.Retention{Events: 30 * day}); swept.Canceled != 3 || swept.Events != 3 || swept.Deliveries != 3 {
			w.Errorf("%+v", swept)
		}
		w.same(w.events(store.EventFilter{Tenant: other.ID}, 10), nil)
		_, err = w.s.Target(w.Context(), to.ID)
		w.is(err, store.ErrNotFound)
		w.shown(mine, "pending", "")
		// Ids go on above those that were erased.
		if again := w.send(w.endpoint()); again < got[2].ID {
			w.Error("ids were used again")
		}
	}},
	{"the store can be pinged, and refuses after Close", func(w *world) {
		w.ok(w.s.Ping(w.Context()))
		to := w.endpoint()
		id := w.send(to)
		p := w.publication(w.event("", to))
		w.ok(w.s.Close())
		_, err := w.s.Publish(w.Context(), p)
		w.is(err, store.ErrClosed)
		_, err = record(w.s, w.result(id, to, 0, succeeds()))
		w.is(err, store.ErrClosed)
		_, err = w.s.DeliveryByID(w.Context(), w.tenant.ID, id)
		w.is(err, store.ErrClosed)
		_, _, err = w.s.Deliveries(w.Context(), store.DeliveryFilter{}, store.Page{Limit: 1})
		w.is(err, store.ErrClosed)
		w.is(w.s.Ping(w.Context()), store.ErrClosed)
	}},
}
