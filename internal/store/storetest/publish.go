package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var publishPromises = []promise{
	{"an event can be read as it was published", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		e := w.event("", a, b)
		e.Source, e.Subject, e.SourceID = "/cases", "case/590", "7"
		e.OccurredAt = w.now.Add(-time.Hour)
		got := w.publish(e)[0]
		want := posthorn.Event{
			ID: got.ID, Tenant: w.tenant.ID, Type: e.Type, OccurredAt: e.OccurredAt, AcceptedAt: w.now,
			Deliveries: 2, Body: e.Body, Source: "/cases", Subject: "case/590", SourceID: "7",
		}
		ref := got.ID.Text(posthorn.EventPrefix)
		read, err := w.s.EventByRef(w.Context(), w.tenant.ID, ref)
		w.ok(err)
		if diff := cmp.Diff(want, read); diff != "" {
			w.Error(diff)
		}
		if id := string(read.Body[posthorn.BodyRefOffset:][:len(ref)]); id != ref {
			w.Errorf("the body names %q, want %q", id, ref)
		}
		if got.Open != 2 || got.Deliveries != 2 || !got.OccurredAt.Equal(e.OccurredAt) {
			w.Errorf("accepted %+v", got)
		}
		for i, to := range []posthorn.Endpoint{a, b} {
			d := w.delivery(got.ID + 1 + posthorn.ID(i))
			if d.Endpoint != to.ID || d.EndpointRef != to.Ref || d.EventRef != ref || !d.CreatedAt.Equal(w.now) || d.Shown() != "pending" {
				w.Errorf("delivery %d: %+v", i, d)
			}
		}
		body, err := w.s.Payload(w.Context(), got.ID)
		w.ok(err)
		if !slices.Equal(body, e.Body) {
			w.Errorf("payload %s", body)
		}
	}},
	{"a note of a delivery is shown with it", func(w *world) {
		a, b, c := w.endpoint(), w.endpoint(), w.endpoint()
		e := w.event("with-a-key", a, b, c)
		e.Targets[0].Note, e.Targets[2].Note = "it's \"so\"", "it's \"so\""
		plain := w.event("", b)
		p := w.publication(plain, e)
		p.BacklogLimit = 3 // the last one expires at once, with its note
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		list, _, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID}, store.Page{Limit: 10})
		w.ok(err)
		notes := map[posthorn.ID]string{}
		for _, d := range list {
			notes[d.ID] = d.Note
			if again := w.delivery(d.ID); again.Note != d.Note {
				w.Errorf("alone it has %q, in the list %q", again.Note, d.Note)
			}
		}
		want := map[posthorn.ID]string{got[0].ID + 1: "", got[1].ID + 1: "it's \"so\"", got[1].ID + 2: "", got[1].ID + 3: "it's \"so\""}
		if diff := cmp.Diff(want, notes); diff != "" {
			w.Error(diff)
		}
	}},
	{"another tenant's event and deliveries are not found", func(w *world) {
		id := w.send(w.endpoint())
		other := w.newTenant("other")
		_, err := w.s.DeliveryByID(w.Context(), other.ID, id)
		w.is(err, store.ErrNotFound)
		_, err = w.s.EventByRef(w.Context(), other.ID, (id - 1).Text(posthorn.EventPrefix))
		w.is(err, store.ErrNotFound)
	}},
	{"ids grow in commit order and an event's are contiguous in one millisecond", func(w *world) {
		to := w.endpoint()
		many := make([]posthorn.Endpoint, 10)
		for i := range many {
			many[i] = to
		}
		var mu sync.Mutex
		seen := map[posthorn.ID]bool{}
		p := w.publication()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				last := posthorn.ID(0)
				for range 20 {
					p := p
					p.Events = []store.NewEvent{w.event("", many...), w.event("", to)}
					got, err := w.s.Publish(w.Context(), p)
					if err != nil {
						w.Error(err)
						return
					}
					for i, a := range got {
						if a.ID <= last || (a.ID+posthorn.ID(a.Deliveries)).Time() != a.ID.Time() {
							w.Errorf("event %d has id %x with %d deliveries after %x", i, a.ID, a.Deliveries, last)
						}
						last = a.ID + posthorn.ID(a.Deliveries)
						mu.Lock()
						for id := a.ID; id <= last; id++ {
							if seen[id] {
								w.Errorf("id %x was given out twice", id)
							}
							seen[id] = true
						}
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
	}},
	{"an event whose deliveries do not fit the millisecond takes the next", func(w *world) {
		to := w.endpoint()
		many := make([]posthorn.Endpoint, 8200)
		for i := range many {
			many[i] = to
		}
		w.now = w.now.Add(time.Hour) // ahead of the store's clock, which does not move on then
		got := w.publish(w.event("", many...), w.event("", many...))
		for _, a := range got {
			if last := a.ID + 8200; last.Time() != a.ID.Time() || last.Node() != a.ID.Node() {
				w.Errorf("ids of event %x cross a millisecond", a.ID)
			}
		}
		if got[1].ID <= got[0].ID+8200 {
			w.Error("ids overlap")
		}
	}},
	{"the same key with the same content is the first event again", func(w *world) {
		to := w.endpoint()
		first := w.publish(w.event("order-1", to))[0]
		w.now = w.now.Add(time.Second)
		again := w.publish(w.event("order-1", to))[0]
		want := first
		want.Repeated, want.Open, want.Gen = true, 0, again.Gen
		if diff := cmp.Diff(want, again); diff != "" {
			w.Error(diff)
		}
		list, _, err := w.s.Events(w.Context(), store.EventFilter{Tenant: w.tenant.ID}, store.Page{Limit: 10})
		w.ok(err)
		if len(list) != 1 {
			w.Errorf("%d events stored, want 1", len(list))
		}
		read, err := w.s.EventByRef(w.Context(), w.tenant.ID, "order-1")
		w.ok(err)
		if read.ID != first.ID || read.Key != "order-1" {
			w.Errorf("found %+v", read)
		}
		_, err = w.s.EventByRef(w.Context(), w.tenant.ID, first.ID.Text(posthorn.EventPrefix))
		w.is(err, store.ErrNotFound)
	}},
	{"the same key with other content is a conflict and stores nothing", func(w *world) {
		to := w.endpoint()
		w.publish(w.event("order-1", to))
		other := w.event("order-1", to)
		other.Hash = sha256.Sum256([]byte("other"))
		_, err := w.s.Publish(w.Context(), w.publication(w.event("order-2", to), other))
		var conflict *store.EventConflict
		if !errors.As(err, &conflict) || conflict.Index != 1 {
			w.Fatalf("got %v", err)
		}
		_, err = w.s.EventByRef(w.Context(), w.tenant.ID, "order-2")
		w.is(err, store.ErrNotFound)
	}},
	{"a key is one tenant's own", func(w *world) {
		w.publish(w.event("order-1", w.endpoint()))
		other := w.newTenant("other")
		p := w.publication(w.event("order-1", w.endpointOf(other)))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		if got[0].Repeated {
			w.Error("the other tenant's event was taken for a repetition")
		}
	}},
	{"the same key twice in a publication counts once", func(w *world) {
		to := w.endpoint()
		got := w.publish(w.event("a", to), w.event("b", to), w.event("a", to))
		if got[0].Repeated || !got[2].Repeated || got[2].ID != got[0].ID || got[2].Open != 0 {
			w.Errorf("got %+v", got)
		}
		other := w.event("c", to)
		other.Hash = sha256.Sum256([]byte("other"))
		_, err := w.s.Publish(w.Context(), w.publication(w.event("c", to), other))
		var conflict *store.EventConflict
		if !errors.As(err, &conflict) || conflict.Index != 1 {
			w.Errorf("got %v", err)
		}
	}},
	{"what a match does not look at makes no publication stale, and what it does look at does", func(w *world) {
		to := w.endpoint()
		edit := func(fn func(*posthorn.Endpoint)) func() {
			return func() {
				e, err := w.s.UpdateEndpoint(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(e *posthorn.Endpoint) error { fn(e); return nil })
				w.ok(err)
				if e.Version == to.Version {
					w.Error("the endpoint's own version stays")
				}
				to = e
			}
		}
		settings := func(fn func(*posthorn.Settings)) func() {
			return func() {
				_, err := w.s.UpdateSettings(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(s *posthorn.Settings) error { fn(s); return nil })
				w.ok(err)
			}
		}
		for _, c := range []struct {
			name   string
			change func()
			stale  bool
		}{
			{"description", edit(func(e *posthorn.Endpoint) { e.Description = "another" }), false},
			{"url", edit(func(e *posthorn.Endpoint) { e.URL += "/another" }), false},
			{"pause", edit(func(e *posthorn.Endpoint) { e.Status = posthorn.StatusPaused }), false},
			{"resume", edit(func(e *posthorn.Endpoint) { e.Status = posthorn.StatusActive }), false},
			{"time-out", settings(func(s *posthorn.Settings) { s.TimeoutSeconds = 3 }), false},
			{"events", edit(func(e *posthorn.Endpoint) { e.Events = []posthorn.Pattern{"cases.*"} }), true},
			{"filter", settings(func(s *posthorn.Settings) { s.Filter = "true" }), true},
			{"ordered", settings(func(s *posthorn.Settings) { s.Ordered = true }), true},
		} {
			p := w.publication(w.event(""))
			c.change()
			_, err := w.s.Publish(w.Context(), p)
			if stale := errors.Is(err, store.ErrStale); stale != c.stale || !stale && err != nil {
				w.Errorf("after %s: %v, want stale: %v", c.name, err, c.stale)
			}
		}
	}},
	{"a publication that may match within the commit does, with the endpoints as they are", func(w *world) {
		old := w.endpoint()
		p := w.publication(w.event("", old))
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, old.Ref, 0))
		to := w.endpoint()
		calls := 0
		p.Match = func(set store.EndpointSet) error {
			calls++
			p.Events[0].Targets = nil
			for i := range set.Endpoints {
				p.Events[0].Targets = append(p.Events[0].Targets, store.PublishTarget{Endpoint: set.Endpoints[i].ID})
			}
			if want := w.setVersion(w.tenant); set.Version != want {
				w.Errorf("version %d, want %d", set.Version, want)
			}
			return nil
		}
		a, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		if calls != 1 || a[0].Deliveries != 1 {
			w.Fatalf("%d calls, %+v", calls, a)
		}
		d, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, a[0].ID+1)
		w.ok(err)
		if d.Endpoint != to.ID {
			w.Errorf("it goes to %d, want %d", d.Endpoint, to.ID)
		}
		p.SetVersion = w.setVersion(w.tenant)
		if _, err = w.s.Publish(w.Context(), p); err != nil || calls != 1 {
			w.Errorf("one that is not stale: %v, %d calls", err, calls)
		}
		refused := errors.New("refused")
		p.SetVersion, p.Match = 0, func(store.EndpointSet) error { return refused }
		_, err = w.s.Publish(w.Context(), p)
		w.is(err, refused)
		w.publish(w.event("", to)) // nothing is held
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
	}},
	{"while an endpoint changes all the time, everything published is stored", func(w *world) {
		w.publishBesideChanges(store.PublishTarget{})
	}},
	{"while an ordered endpoint changes all the time, everything published is stored", func(w *world) {
		w.publishBesideChanges(store.PublishTarget{Owned: true, Ordered: true, Parked: true})
	}},
	{"a publication that matched an older endpoint set is stale", func(w *world) {
		to := w.endpoint()
		p := w.publication(w.event("", to))
		w.endpoint()
		_, err := w.s.Publish(w.Context(), p)
		w.is(err, store.ErrStale)
		p = w.publication(w.event("", to))
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		_, err = w.s.Publish(w.Context(), p)
		w.is(err, store.ErrStale)
	}},
	{"a repetition is answered although the endpoint set moved on", func(w *world) {
		p := w.publication(w.event("order-1", w.endpoint()))
		_, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		w.endpoint()
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		if !got[0].Repeated {
			w.Error("not seen as a repetition")
		}
	}},
	{"an Idempotency-Key answers again with what was answered first", func(w *world) {
		to := w.endpoint()
		p := w.publication(w.event("", to))
		p.Once = &store.Once{Tenant: w.tenant.ID, Route: "POST /events", Key: "k", Hash: sha256.Sum256([]byte("x")), Expires: w.now.Add(24 * time.Hour)}
		p.Answer = func(a []store.Accepted) []byte { return fmt.Appendf(nil, "id %d", a[0].ID) }
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		want := fmt.Sprintf("id %d", got[0].ID)

		var again *store.ErrRepeated
		_, err = w.s.Publish(w.Context(), p)
		if !errors.As(err, &again) || string(again.Answer) != want {
			w.Errorf("got %v, want the answer %q", err, want)
		}
		if err := w.s.LookupOnce(w.Context(), *p.Once, w.now); !errors.As(err, &again) || string(again.Answer) != want {
			w.Errorf("LookupOnce: %v", err)
		}
		other := *p.Once
		other.Hash = sha256.Sum256([]byte("y"))
		w.is(w.s.LookupOnce(w.Context(), other, w.now), store.ErrOnceReused)
		elsewhere := other
		elsewhere.Route = "POST /events/batch"
		w.ok(w.s.LookupOnce(w.Context(), elsewhere, w.now))
		w.ok(w.s.LookupOnce(w.Context(), other, w.now.Add(25*time.Hour)))
		p.Once = &other
		_, err = w.s.Publish(w.Context(), p)
		w.is(err, store.ErrOnceReused)
		w.now = w.now.Add(25 * time.Hour)
		p.At = w.now
		_, err = w.s.Publish(w.Context(), p)
		w.ok(err)
	}},
	{"beyond the tenant's backlog deliveries are stored expired", func(w *world) {
		a, b, c := w.endpoint(), w.endpoint(), w.endpoint()
		p := w.publication(w.event("", a, b))
		p.BacklogLimit = 3
		_, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		got, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		if got[0].Deliveries != 2 || got[0].Open != 1 {
			w.Fatalf("got %+v, want one of two open", got[0])
		}
		w.shown(got[0].ID+1, "pending", "")
		w.shown(got[0].ID+2, "expired", posthorn.ReasonBacklogFull)

		other := w.newTenant("other")
		q := w.publication(w.event("", w.endpointOf(other)))
		q.Tenant, q.SetVersion, q.BacklogLimit = other.ID, w.setVersion(other), 3
		others, err := w.s.Publish(w.Context(), q)
		w.ok(err)
		if others[0].Open != 1 {
			w.Error("another tenant was held to the full backlog")
		}

		w.record(w.result(got[0].ID+1, a, 0, succeeds()))
		p = w.publication(w.event("", c, c))
		p.BacklogLimit = 3
		got, err = w.s.Publish(w.Context(), p)
		w.ok(err)
		if got[0].Open != 1 {
			w.Errorf("%d open after one was finished, want 1", got[0].Open)
		}
	}},
	{"a publication of an unknown tenant is not found", func(w *world) {
		p := w.publication(w.event(""))
		p.Tenant = 4711
		_, err := w.s.Publish(w.Context(), p)
		w.is(err, store.ErrNotFound)
	}},
	{"text with a NUL byte is refused", func(w *world) {
		e := w.event("", w.endpoint())
		e.Subject = "a\x00b"
		if _, err := w.s.Publish(w.Context(), w.publication(e)); err == nil {
			w.Error("published")
		}
		if _, err := w.s.CreateTenant(w.Context(), w.change(), "a\x00"); err == nil {
			w.Error("created a tenant")
		}
	}},
	{"an event without deliveries is kept", func(w *world) {
		a := w.publish(w.event(""))[0]
		_, err := w.s.EventByRef(w.Context(), w.tenant.ID, a.ID.Text(posthorn.EventPrefix))
		w.ok(err)
	}},
}

// publishBesideChanges publishes to an endpoint whose events change all the time.
func (w *world) publishBesideChanges(target store.PublishTarget) {
	w.Helper()
	to := w.endpoint()
	if target.Ordered {
		_, err := w.s.UpdateSettings(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(s *posthorn.Settings) error { s.Ordered = true; return nil })
		w.ok(err)
	}
	target.Endpoint = to.ID
	ctx, cancel := context.WithCancel(w.Context())
	var changes, publishes sync.WaitGroup
	for range 2 {
		changes.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, err := w.s.UpdateEndpoint(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(e *posthorn.Endpoint) error {
					e.Events = []posthorn.Pattern{[]posthorn.Pattern{"cases.*", "*"}[i%2]}
					return nil
				})
				if err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	for range 4 {
		publishes.Go(func() {
			for range 50 {
				p := store.Publication{Tenant: w.tenant.ID, At: w.now, BacklogLimit: 1_000_000, Events: []store.NewEvent{w.event("")}}
				p.Match = func(set store.EndpointSet) error {
					p.Events[0].Targets = []store.PublishTarget{target}
					return nil
				}
				if a, err := w.s.Publish(w.Context(), p); err != nil || a[0].Deliveries != 1 {
					w.Errorf("%+v, %v", a, err)
					return
				}
			}
		})
	}
	publishes.Wait()
	cancel()
	changes.Wait()
}
