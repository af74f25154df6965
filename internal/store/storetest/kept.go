package storetest

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// keeps holds what a tenant keeps to what it should, in memory and stored.
func (w *world) keeps(when string, tenant posthorn.Tenant, want int64) {
	w.Helper()
	k := w.s.(store.Keeping)
	if got := k.Kept(tenant.ID).Own; got != want {
		w.Errorf("%s: %s keeps %d bytes as far as publishes are told, want %d", when, tenant.Name, got, want)
	}
	w.stored(when, tenant, want)
}

func (w *world) stored(when string, tenant posthorn.Tenant, want int64) {
	w.Helper()
	got, err := w.s.(store.Keeping).CountKept(w.Context(), tenant.ID)
	w.ok(err)
	if got != want {
		w.Errorf("%s: %s keeps %d bytes, want %d", when, tenant.Name, got, want)
	}
}

func weight(events ...store.NewEvent) (n int64) {
	for i := range events {
		n += store.Weight(len(events[i].Body), len(events[i].Targets))
	}
	return n
}

// recounted sweeps until a day later all is counted again.
func (w *world) recounted() {
	w.Helper()
	for range 12 {
		if _, err := w.s.Sweep(w.Context(), w.now.Add(26*time.Hour), store.Retention{Events: 30 * 24 * time.Hour}); err != nil {
			w.Fatal(err)
		}
	}
}

var keptPromises = []promise{
	{"what a tenant keeps is what it published, less what was erased", func(w *world) {
		to, other := w.endpoint(), w.newTenant("other")
		first, second := w.event("order-1", to, to), w.event("", to)
		w.publish(first, second, later(w.event("order-2"), w.now.Add(time.Hour)))
		w.publish(first, w.event("order-3")) // the first is repeated
		all := weight(first, second, w.event("order-2"), w.event("order-3"))
		w.keeps("published", w.tenant, all)
		p := w.publication(w.event("", w.endpointOf(other)))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		_, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		w.keeps("published by another", other, weight(p.Events...))
		w.keeps("published by another", w.tenant, all)
		if k := w.s.(store.Keeping).Kept(other.ID); k.Tenants != 2 || k.All != all+k.Own {
			w.Errorf("of all it is told %+v", k)
		}
		w.erase("order-1")
		w.erase("order-1")
		w.keeps("erased, twice", w.tenant, all-int64(len(first.Body)))
		for _, id := range []int64{other.ID} {
			w.ok(w.s.DeleteTenant(w.Context(), w.change(), id))
		}
		Sweep(w, w.s, w.now, store.Retention{})
		w.keeps("deleted", other, 0)
		w.keeps("another was deleted", w.tenant, all-int64(len(first.Body)))
	}},
	{"what retention takes away is not kept", func(w *world) {
		to := w.endpoint()
		events := []store.NewEvent{w.event("", to), w.event("order-1", to), w.event("")}
		for _, e := range w.publish(events...) {
			if e.Deliveries > 0 {
				w.record(w.result(e.ID+1, to, 0, succeeds()))
			}
		}
		w.erase("order-1")
		rows := weight(events...)
		for i := range events {
			rows -= int64(len(events[i].Body))
		}
		keep := store.Retention{Events: 30 * 24 * time.Hour, Payloads: time.Hour}
		Sweep(w, w.s, w.now.Add(3*time.Hour), keep)
		w.keeps("payloads are gone", w.tenant, rows)
		Sweep(w, w.s, w.now.Add(31*24*time.Hour), keep)
		w.keeps("all is gone", w.tenant, 0)
		if k := w.s.(store.Keeping).Kept(w.tenant.ID); k.All != 0 || k.Tenants != 0 {
			w.Errorf("of all it is told %+v", k)
		}
	}},
	{"a publish that is refused is not kept", func(w *world) {
		p := w.publication(w.event("", w.endpoint()))
		p.SetVersion--
		_, err := w.s.Publish(w.Context(), p)
		w.is(err, store.ErrStale)
		w.keeps("stale", w.tenant, 0)
	}},
	{"days that are over are counted again", func(w *world) {
		to := w.endpoint()
		events := []store.NewEvent{w.event("order-1", to), w.event("", to, to)}
		w.publish(events...)
		w.erase("order-1")
		want := weight(events...) - int64(len(events[0].Body))
		w.stored("published", w.tenant, want)
		w.raw.Exec(w, `UPDATE kept SET bytes = bytes + 1000`)
		w.raw.Exec(w, `INSERT INTO kept (day, tenant, bytes) VALUES ($1, $2, 5000)`, store.DayOf(posthorn.MakeID(w.now, 0, 0))-3, w.tenant.ID)
		w.recounted()
		w.stored("too much was counted", w.tenant, want)
	}},
	{"what a former version stored is counted", func(w *world) {
		to := w.endpoint()
		events := []store.NewEvent{w.event("", to), w.event("", to, to)}
		w.publish(events...)
		w.stored("published", w.tenant, weight(events...))
		w.raw.Exec(w, `DELETE FROM kept`)
		w.recounted()
		w.stored("nothing was counted", w.tenant, weight(events...))
	}},
}
