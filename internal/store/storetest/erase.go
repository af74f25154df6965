package storetest

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (w *world) erase(ref string) store.Erased {
	w.Helper()
	e, err := w.s.ErasePayload(w.Context(), w.change(), w.tenant.ID, ref)
	w.ok(err)
	return e
}

// says is an attempt whose answer repeats what was sent.
func says(a posthorn.Attempt) posthorn.Attempt {
	a.Snippet, a.BodyNote = []byte(`you sent {"case_id":590}`), "truncated"
	a.Headers = []posthorn.Header{{Name: "x-request-id", Value: "590"}}
	return a
}

var erasePromises = []promise{
	{"what was erased is not sent again, neither by a retry nor by a replay", func(w *world) {
		to := w.endpoint()
		event := w.publish(w.event("order-1", to))[0]
		w.fail(event.ID+1, to, 0)
		kept := w.sendFailed(to)
		w.erase("order-1")
		if _, err := w.retry(store.RetryOrder{Delivery: event.ID + 1}); !errors.Is(err, store.ErrErased) {
			w.Errorf("a retry: %v", err)
		}
		w.now = w.now.Add(time.Second)
		r := w.replay(to, posthorn.ReplaySelection{Since: w.now.Add(-time.Hour), States: []posthorn.ShownState{"failed"}})
		work := w.feedAll(r, 10)
		if len(work) != 1 || work[0].ID != kept {
			w.Errorf("a replay sends %+v, want %s alone", work, kept.Text(posthorn.DeliveryPrefix))
		}
		w.shown(event.ID+1, "failed", posthorn.ReasonNone)
	}},
	{"an erased payload is gone, and what is open of it is canceled", func(w *world) {
		to := w.endpoint()
		event := w.publish(later(w.event("order-1", to, to, to), w.now.Add(time.Hour)))[0]
		other := w.send(to)
		w.noticed()
		got := w.erase("order-1")
		if got.Canceled != 3 || got.Bytes == 0 || got.Event.ID != event.ID || got.Event.Body != nil || !got.Event.ErasedAt.Equal(w.now) {
			w.Errorf("%+v", got)
		}
		if !slices.Contains(w.noticed(), store.Notice{Kind: store.NoticeErased, Tenant: w.tenant.ID, Event: event.ID}) {
			w.Error("nobody was told before ErasePayload returned")
		}
		for i := range posthorn.ID(3) {
			w.shown(event.ID+1+i, "canceled", posthorn.ReasonPayloadErased)
		}
		_, err := w.s.Payload(w.Context(), event.ID)
		w.is(err, store.ErrNotFound)
		e, err := w.s.EventByRef(w.Context(), w.tenant.ID, "order-1")
		w.ok(err)
		if e.Body != nil || !e.ErasedAt.Equal(w.now) || e.Deliveries != 3 {
			w.Errorf("%+v", e)
		}
		list, _, err := w.s.Events(w.Context(), store.EventFilter{Tenant: w.tenant.ID}, store.Page{Limit: 2})
		w.ok(err)
		if !list[0].ErasedAt.IsZero() || !list[1].ErasedAt.Equal(w.now) {
			w.Errorf("the list shows %v and %v", list[0].ErasedAt, list[1].ErasedAt)
		}
		w.shown(other, "pending", "")
		if w.now = w.now.Add(2 * time.Hour); len(w.claimDue(10)) != 0 {
			w.Error("a delivery without payload was claimed")
		}
		audited := w.audited(store.AuditFilter{Tenant: w.tenant.ID, Action: "event.erase"})
		if len(audited) != 1 || audited[0].Subject != "order-1" || bytes.Contains(audited[0].Before, []byte("590")) {
			w.Errorf("%+v", audited)
		}
		// Again: nothing changes, and the id is still taken.
		if again := w.erase("order-1"); again.Canceled != 0 || again.Bytes != 0 || !again.Event.ErasedAt.Equal(got.Event.ErasedAt) {
			w.Errorf("again: %+v", again)
		}
		if a := w.publish(w.event("order-1", to, to, to)); !a[0].Repeated {
			w.Error("an erased event was published anew")
		}
	}},
	{"erasing takes answers that may repeat the payload, and leaves states alone", func(w *world) {
		to := w.endpoint()
		event := w.publish(w.event("k", to, to))[0]
		done, under := event.ID+1, event.ID+2
		w.record(w.result(done, to, 0, says(succeeds())))
		w.erase("k")
		w.shown(done, "succeeded", "")
		w.record(w.result(under, to, 0, says(fails()))) // it was under way
		for _, id := range []posthorn.ID{done, under} {
			d := w.delivery(id)
			if len(d.Attempts) != 1 || d.Attempts[0].Status == 0 || d.Attempts[0].Snippet != nil || d.Attempts[0].Headers != nil || d.Attempts[0].BodyNote != "" {
				w.Errorf("%+v", d.Attempts)
			}
		}
		w.shown(under, "canceled", posthorn.ReasonPayloadErased)
	}},
	{"only the tenant's own events are erased", func(w *world) {
		w.publish(w.event("k", w.endpoint()))
		other := w.newTenant("other")
		for _, ref := range []string{"k", "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "nothing"} {
			_, err := w.s.ErasePayload(w.Context(), w.change(), other.ID, ref)
			w.is(err, store.ErrNotFound)
		}
		if e, err := w.s.EventByRef(w.Context(), w.tenant.ID, "k"); err != nil || e.Body == nil {
			w.Errorf("%+v, %v", e, err)
		}
	}},
	{"payloads, attempts and deliveries go before their events when they are kept for less", func(w *world) {
		to := w.endpoint()
		done := w.send(to)
		w.record(w.result(done, to, 0, says(succeeds())))
		waits := w.publish(later(w.event("", to), w.now.Add(12*day)))[0].ID + 1
		keep := store.Retention{Events: 30 * day, Deliveries: 20 * day, Payloads: 10 * day, Attempts: 5 * day}

		step := func(d time.Duration, want store.Swept) {
			w.Helper()
			w.now = w.now.Add(d)
			got := w.sweepAll(keep)
			got.More = false
			if got != want {
				w.Errorf("after %v: %+v, want %+v", d, got, want)
			}
		}
		step(5*day, store.Swept{})
		step(2*time.Hour, store.Swept{Logs: 1})
		if d := w.delivery(done); d.Attempts != nil || d.Shown() != "succeeded" {
			w.Errorf("%+v", d)
		}
		step(5*day, store.Swept{Expired: 1, Payloads: 2})
		w.shown(waits, "expired", posthorn.ReasonRetention)
		_, err := w.s.Payload(w.Context(), done-1)
		w.is(err, store.ErrNotFound)
		w.same(w.events(store.EventFilter{Tenant: w.tenant.ID}, 10), newest([]posthorn.ID{done - 1, waits - 1}))
		list, _, err := w.s.Events(w.Context(), store.EventFilter{Tenant: w.tenant.ID}, store.Page{Limit: 2})
		w.ok(err)
		if !list[0].ErasedAt.Equal(w.now) {
			w.Errorf("the event does not say when its payload went: %+v", list[0])
		}
		step(10*day, store.Swept{Deliveries: 2})
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID}, 10), nil)
		step(10*day, store.Swept{Events: 2})
		if again := w.send(to); again <= waits {
			w.Error("ids were used again")
		}
	}},
	{"the deletion of a tenant leaves an account of what it erased", func(w *world) {
		other := w.newTenant("other")
		to := w.endpointOf(other)
		w.endpointOf(other)
		_, err := w.s.CreateToken(w.Context(), w.change(), store.Token{Ref: "tok_x", Tenant: other.ID, Hash: [32]byte{1}, CreatedAt: w.now})
		w.ok(err)
		p := w.publication(w.event("key", to), parked(w.event("", to, to)))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		size := int64(len(p.Events[0].Body) + len(p.Events[1].Body))
		_, err = w.s.Publish(w.Context(), p)
		w.ok(err)
		deletions := func() []store.Deletion {
			w.Helper()
			d, err := w.s.Deletions(w.Context(), 0, 10)
			w.ok(err)
			return d
		}
		if d := deletions(); len(d) != 0 {
			w.Errorf("%+v", d)
		}
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), other.ID))
		want := store.Deletion{Tenant: other.ID, Name: "other", DeletedAt: w.now, Endpoints: 2, Secrets: 2, Tokens: 1}
		if d := deletions(); len(d) != 1 || d[0] != want {
			w.Errorf("at first: %+v, want %+v", d, want)
		}
		w.now = w.now.Add(time.Minute)
		w.sweep(store.Retention{Events: 30 * day})
		w.sweep(store.Retention{Events: 30 * day})
		want.CompletedAt, want.Events, want.Deliveries, want.PayloadBytes = w.now, 2, 3, size
		if d := deletions(); len(d) != 1 || d[0] != want {
			w.Errorf("at last: %+v, want %+v", d, want)
		}
		audited := w.audited(store.AuditFilter{Tenant: other.ID, Action: "tenant.erase"})
		if len(audited) != 1 || audited[0].Actor != "posthorn" || !bytes.Contains(audited[0].Before, []byte(`"deliveries":3`)) {
			w.Errorf("%+v", audited)
		}
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), w.tenant.ID))
		if d := deletions(); len(d) != 2 || d[0] != want {
			w.Errorf("%+v", d)
		}
		rest, err := w.s.Deletions(w.Context(), other.ID, 10)
		if w.ok(err); len(rest) != 1 || rest[0].Tenant != w.tenant.ID {
			w.Errorf("behind the first: %+v", rest)
		}
	}},
}

// sweepAll is sweep with the count of what was erased before its event.
func (w *world) sweepAll(r store.Retention) store.Swept {
	w.Helper()
	sum := Sweep(w, w.s, w.now, r)
	return store.Swept{Canceled: sum.Canceled, Expired: sum.Expired, Events: sum.Events, Deliveries: sum.Deliveries, Payloads: sum.Payloads, Logs: sum.Logs}
}

var exportPromises = []promise{
	{"an export is its tenant's, audited, and gone when it expires", func(w *world) {
		e := store.Export{Ref: "exp_1", Tenant: w.tenant.ID, Since: w.now.Add(-day), Until: w.now, CreatedAt: w.now, ExpiresAt: w.now.Add(day)}
		w.ok(w.s.CreateExport(w.Context(), w.change(), e))
		got, err := w.s.ExportByRef(w.Context(), w.tenant.ID, "exp_1", w.now)
		if w.ok(err); got != e {
			w.Errorf("%+v, want %+v", got, e)
		}
		_, err = w.s.ExportByRef(w.Context(), w.newTenant("other").ID, "exp_1", w.now)
		w.is(err, store.ErrNotFound)
		if a := w.audited(store.AuditFilter{Tenant: w.tenant.ID, Action: "export.create"}); len(a) != 1 || a[0].Subject != "exp_1" {
			w.Errorf("%+v", a)
		}
		_, err = w.s.ExportByRef(w.Context(), w.tenant.ID, "exp_1", w.now.Add(day))
		w.is(err, store.ErrNotFound)
		w.now = w.now.Add(day)
		w.sweep(store.Retention{Events: 30 * day})
		_, err = w.s.ExportByRef(w.Context(), w.tenant.ID, "exp_1", w.now.Add(-day))
		w.is(err, store.ErrNotFound)
		e.Tenant = 77
		w.is(w.s.CreateExport(w.Context(), w.change(), e), store.ErrNotFound)
	}},
}
