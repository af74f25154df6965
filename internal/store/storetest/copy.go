package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Filled is what [Fill] put into a store that tests act on afterwards.
type Filled struct {
	Tenant posthorn.Tenant
	// Active has due and parked deliveries.
	Active posthorn.Endpoint
	// Due and Parked are open deliveries of Active.
	Due, Parked []posthorn.ID
	// Key is a publisher's id of an event that is there.
	Key  store.NewEvent
	Once store.Once
	Now  time.Time
}

// Fill puts something of each kind and in each state into an empty store.
func Fill(t *testing.T, s store.Store, now time.Time) *Filled {
	w := newWorldAt(t, s, now)
	f := &Filled{Tenant: w.tenant}
	w.ok(s.NoteKeys(w.Context(), map[string]int64{"k1": -77}))
	for i, tenant := range []int64{0, w.tenant.ID} {
		_, err := s.CreateToken(w.Context(), w.change(), store.Token{
			Ref: fmt.Sprintf("tok_%d", i), Tenant: tenant, Name: "naïve", Hash: [32]byte{byte(i), 1}, Scopes: []string{"webhooks:read", "admin"}, CreatedAt: w.now, ExpiresAt: w.now.Add(day),
		})
		w.ok(err)
	}
	f.Active = w.endpoint()
	paused, failing, gone := w.endpoint(), w.endpoint(), w.endpoint()
	// History of an earlier week first.
	old := w.send(f.Active)
	a := says(succeeds())
	a.Timings.Connect, a.Duration = time.Millisecond, 1500*time.Microsecond
	w.record(w.result(old, f.Active, 0, a))
	w.now = w.now.Add(8 * day)

	r := w.result(w.send(failing), failing, 0, says(fails()))
	r.Policy.Schedule = nil
	w.record(r)
	f.Key = w.event("order-1", f.Active, paused, gone)
	w.publish(f.Key)
	w.pause(paused)
	w.ok(s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, gone.Ref, 0))
	retried := w.send(f.Active)
	w.record(w.result(retried, f.Active, 0, fails()))
	f.Due = append(f.Due, retried, w.send(f.Active), w.publish(later(w.event("", f.Active), w.now.Add(time.Hour)))[0].ID+1)
	f.Parked = append(f.Parked, w.publish(parked(w.event("", f.Active)))[0].ID+1, w.publish(parked(w.event("", f.Active)))[0].ID+1)
	full := w.publication(w.event("", f.Active))
	full.BacklogLimit = 1
	_, err := s.Publish(w.Context(), full)
	w.ok(err)
	w.publish(w.event("erased", f.Active))
	w.erase("erased")
	cloud := w.event("")
	cloud.Source, cloud.Subject, cloud.SourceID, cloud.Kind = "/cases", "590", "a\"b", posthorn.EventTest
	w.publish(cloud)
	f.Once = store.Once{Tenant: w.tenant.ID, Route: "POST /x", Key: "K-1", Hash: [32]byte{9}, Answer: []byte("sealed"), Expires: w.now.Add(day)}
	c := w.change()
	c.Once = &f.Once
	_, err = s.UpdateEndpoint(w.Context(), c, w.tenant.ID, f.Active.Ref, 0, func(e *posthorn.Endpoint) error {
		e.Description = "first\nsecond ☃"
		return nil
	})
	w.ok(err)
	deleted := w.newTenant("deleted")
	w.endpointOf(deleted)
	w.ok(s.DeleteTenant(w.Context(), w.change(), deleted.ID))
	_, err = s.SuspendTenant(w.Context(), w.change(), w.newTenant("suspended").ID, true)
	w.ok(err)
	f.Now = w.now
	return f
}

// View is all that a store shows.
type View struct {
	Sending    bool
	Keys       map[string]int64
	Tenants    []posthorn.Tenant
	Tokens     []store.Token
	Sets       []store.EndpointSet
	Targets    []store.Target
	Events     []posthorn.Event
	Deliveries []posthorn.Delivery
	Boxes      []store.Box
	Deletions  []store.Deletion
	Once       string // the remembered answer
}

// Look reads all that a store shows.
func Look(t *testing.T, s store.Store, f *Filled) (v View) {
	t.Helper()
	ctx := t.Context()
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var err error
	v.Sending, err = s.Sending(ctx)
	note(err)
	v.Keys, err = s.NotedKeys(ctx)
	note(err)
	v.Tenants, err = s.Tenants(ctx, 0, 100)
	note(err)
	v.Tokens, err = s.Tokens(ctx, -1, 0, 100)
	note(err)
	v.Deletions, err = s.Deletions(ctx, 0, 100)
	note(err)
	v.Boxes, err = s.Boxes(ctx, store.Box{}, 100)
	note(err)
	for _, tenant := range v.Tenants {
		set, err := s.EndpointSet(ctx, tenant.ID)
		note(err)
		set.Shared = false // says what kind of store it is
		v.Sets = append(v.Sets, set)
		for _, e := range set.Endpoints {
			target, err := s.Target(ctx, e.ID)
			note(err)
			v.Targets = append(v.Targets, target)
		}
	}
	events, _, err := s.Events(ctx, store.EventFilter{}, store.Page{Limit: 1000})
	note(err)
	for _, e := range events {
		whole, err := s.EventByRef(ctx, e.Tenant, e.Ref())
		note(err)
		v.Events = append(v.Events, whole)
	}
	v.Deliveries, _, err = s.Deliveries(ctx, store.DeliveryFilter{}, store.Page{Limit: 1000})
	note(err)
	if again, ok := errors.AsType[*store.ErrRepeated](s.LookupOnce(ctx, f.Once, f.Now)); ok {
		v.Once = string(again.Answer)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return v
}

// CheckWorks has a store that was filled and copied do what is left to do.
func CheckWorks(t *testing.T, s store.Store, f *Filled) {
	w := &world{T: t, s: s, now: f.Now.Add(2 * time.Hour), tenant: f.Tenant}
	byID := map[posthorn.ID]bool{}
	for _, work := range w.claimDue(100) {
		byID[work.ID] = true
		body, err := s.Payload(w.Context(), work.Event)
		if err != nil || len(body) != work.Size {
			w.Errorf("the payload of %x: %d bytes of %d, %v", work.ID, len(body), work.Size, err)
		}
	}
	parked, more, _, err := s.ClaimParked(w.Context(), f.Active.ID, 100)
	w.ok(err)
	if w.same(ids(parked), f.Parked); more {
		w.Error("more is parked")
	}
	for _, id := range f.Due {
		if !byID[id] {
			w.Errorf("%x was not claimed", id)
			continue
		}
		tries := w.delivery(id).Progress.Tries
		if rec := w.record(w.result(id, f.Active, tries, succeeds())); rec.Lost {
			w.Errorf("the result of %x was lost", id)
		}
		w.shown(id, "succeeded", "")
	}
	if again := w.publish(f.Key); !again[0].Repeated {
		w.Error("an event was published anew under its id")
	}
	before := w.deliveries(store.DeliveryFilter{}, 1000)
	if id := w.send(f.Active); id <= before[0] {
		w.Errorf("id %x was given out after %x", id, before[0])
	}
	if fresh := w.newTenant("fresh"); fresh.ID <= f.Tenant.ID+2 {
		w.Errorf("the tenant's id %d was used before", fresh.ID)
	}
	w.now = w.now.Add(40 * day)
	w.sweep(store.Retention{Events: 30 * day})
}
