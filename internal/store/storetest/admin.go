package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var tenantPromises = []promise{
	{"a tenant is found by name and id, until it is deleted", func(w *world) {
		want := w.tenant
		got, err := w.s.TenantByName(w.Context(), "acme")
		w.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			w.Error(diff)
		}
		if got, err = w.s.TenantByID(w.Context(), want.ID); err != nil || got != want {
			w.Errorf("by id: %+v, %v", got, err)
		}
		w.noticed()
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), want.ID))
		if !slices.Contains(w.noticed(), store.Notice{Kind: store.NoticeTenant, Tenant: want.ID}) {
			w.Error("nobody was told before DeleteTenant returned")
		}
		_, err = w.s.TenantByName(w.Context(), "acme")
		w.is(err, store.ErrNotFound)
		_, err = w.s.TenantByID(w.Context(), want.ID)
		w.is(err, store.ErrNotFound)
		w.is(w.s.DeleteTenant(w.Context(), w.change(), want.ID), store.ErrNotFound)
	}},
	{"a name is taken once and free again after deletion, with another id", func(w *world) {
		_, err := w.s.CreateTenant(w.Context(), w.change(), "acme")
		w.is(err, store.ErrExists)
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), w.tenant.ID))
		w.sweep(store.Retention{Events: time.Hour})
		if again := w.newTenant("acme"); again.ID == w.tenant.ID {
			w.Error("the id was used again")
		}
	}},
	{"tenants are listed newest first, in pages", func(w *world) {
		want := []posthorn.Tenant{w.newTenant("c"), w.newTenant("b"), w.tenant}
		want[0], want[1] = want[1], want[0]
		first, err := w.s.Tenants(w.Context(), 0, 2)
		w.ok(err)
		rest, err := w.s.Tenants(w.Context(), first[1].ID, 2)
		w.ok(err)
		if diff := cmp.Diff(want, append(first, rest...)); diff != "" {
			w.Error(diff)
		}
	}},
	{"a suspended tenant is shown so, and its deliveries held", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		got, err := w.s.SuspendTenant(w.Context(), w.change(), w.tenant.ID, true)
		w.ok(err)
		if !got.SuspendedAt.Equal(w.now) {
			w.Errorf("%+v", got)
		}
		w.shown(id, posthorn.Held, "")
		target, err := w.s.Target(w.Context(), to.ID)
		w.ok(err)
		if !target.TenantSuspended {
			w.Error("the target does not say so")
		}
		w.noticed()
		at := w.now
		w.now = w.now.Add(time.Hour)
		got, err = w.s.SuspendTenant(w.Context(), w.change(), w.tenant.ID, true)
		w.ok(err)
		if !got.SuspendedAt.Equal(at) || len(w.noticed()) != 0 {
			w.Error("suspending again changed something")
		}
		got, err = w.s.SuspendTenant(w.Context(), w.change(), w.tenant.ID, false)
		w.ok(err)
		if got.Suspended() || len(w.noticed()) != 1 {
			w.Errorf("%+v", got)
		}
		w.shown(id, "pending", "")
	}},
	{"sending is on until it is switched off", func(w *world) {
		want := func(on bool) {
			w.Helper()
			if got, err := w.s.Sending(w.Context()); err != nil || got != on {
				w.Errorf("sending is %v, %v; want %v", got, err, on)
			}
		}
		want(true)
		w.ok(w.s.SetSending(w.Context(), w.change(), false))
		want(false)
		w.ok(w.s.SetSending(w.Context(), w.change(), true))
		want(true)
	}},
	{"a change with an Idempotency-Key is made once", func(w *world) {
		c := w.change()
		c.Once = &store.Once{Route: "POST /tenants", Key: "k", Hash: sha256.Sum256([]byte("b")), Answer: []byte("created"), Expires: w.now.Add(time.Hour)}
		_, err := w.s.CreateTenant(w.Context(), c, "b")
		w.ok(err)
		_, err = w.s.CreateTenant(w.Context(), c, "b")
		var again *store.ErrRepeated
		if !errors.As(err, &again) || string(again.Answer) != "created" {
			w.Errorf("got %v", err)
		}
		once := *c.Once
		once.Hash[0]++
		c.Once = &once
		_, err = w.s.CreateTenant(w.Context(), c, "c")
		w.is(err, store.ErrOnceReused)
		_, err = w.s.TenantByName(w.Context(), "c")
		w.is(err, store.ErrNotFound)
	}},
	{"a change that fails keeps its Idempotency-Key free", func(w *world) {
		c := w.change()
		c.Once = &store.Once{Route: "POST /tenants", Key: "k", Expires: w.now.Add(time.Hour)}
		_, err := w.s.CreateTenant(w.Context(), c, "acme")
		w.is(err, store.ErrExists)
		_, err = w.s.CreateTenant(w.Context(), c, "b")
		w.ok(err)
	}},
}

func (w *world) token(tenant int64, name string) store.Token {
	w.Helper()
	t, err := w.s.CreateToken(w.Context(), w.change(), store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, w.now), Tenant: tenant, Name: name, Hash: sha256.Sum256([]byte(name)),
		Scopes: []string{"webhooks:read", "events:publish"}, CreatedAt: w.now, ExpiresAt: w.now.Add(time.Hour),
	})
	w.ok(err)
	return t
}

var tokenPromises = []promise{
	{"a token is found by its hash until it or its tenant is deleted", func(w *world) {
		a, b := w.token(w.tenant.ID, "a"), w.token(w.tenant.ID, "b")
		got, err := w.s.TokenByHash(w.Context(), a.Hash)
		w.ok(err)
		if diff := cmp.Diff(a, got); diff != "" {
			w.Error(diff)
		}
		other := w.newTenant("other")
		w.is(w.s.DeleteToken(w.Context(), w.change(), other.ID, a.Ref), store.ErrNotFound)
		w.noticed()
		w.ok(w.s.DeleteToken(w.Context(), w.change(), -1, a.Ref))
		if n := w.noticed(); len(n) != 1 || n[0].Kind != store.NoticeToken {
			w.Errorf("noticed %v", n)
		}
		_, err = w.s.TokenByHash(w.Context(), a.Hash)
		w.is(err, store.ErrNotFound)
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), w.tenant.ID))
		_, err = w.s.TokenByHash(w.Context(), b.Hash)
		w.is(err, store.ErrNotFound)
	}},
	{"tokens are listed by tenant, newest first", func(w *world) {
		a, b, p := w.token(w.tenant.ID, "a"), w.token(w.tenant.ID, "b"), w.token(0, "platform")
		for tenant, want := range map[int64][]store.Token{w.tenant.ID: {b, a}, 0: {p}, -1: {p, b, a}} {
			got, err := w.s.Tokens(w.Context(), tenant, 0, 10)
			w.ok(err)
			if diff := cmp.Diff(want, got); diff != "" {
				w.Errorf("tenant %d: %s", tenant, diff)
			}
		}
		got, err := w.s.Tokens(w.Context(), -1, p.ID, 1)
		w.ok(err)
		if diff := cmp.Diff([]store.Token{b}, got); diff != "" {
			w.Error(diff)
		}
	}},
	{"the last use of a token never goes back", func(w *world) {
		a := w.token(w.tenant.ID, "a")
		for _, d := range []time.Duration{time.Minute, time.Second} {
			w.ok(w.s.TouchTokens(w.Context(), map[int64]time.Time{a.ID: w.now.Add(d)}))
		}
		got, err := w.s.TokenByHash(w.Context(), a.Hash)
		w.ok(err)
		if !got.LastUsedAt.Equal(w.now.Add(time.Minute)) {
			w.Errorf("last used %v", got.LastUsedAt)
		}
	}},
	{"a token of an unknown tenant is refused", func(w *world) {
		_, err := w.s.CreateToken(w.Context(), w.change(), store.Token{Ref: "tok_1", Tenant: 4711, Name: "x"})
		w.is(err, store.ErrNotFound)
	}},
}

var endpointPromises = []promise{
	{"an endpoint can be read as it was made, with its secret bound to its id", func(w *world) {
		w.noticed()
		to := w.endpoint()
		if n := w.noticed(); !slices.Contains(n, store.Notice{Kind: store.NoticeEndpoint, Tenant: w.tenant.ID, Endpoint: to.ID}) {
			w.Errorf("noticed %v", n)
		}
		got, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if diff := cmp.Diff(to, got); diff != "" {
			w.Error(diff)
		}
		target, err := w.s.Target(w.Context(), to.ID)
		w.ok(err)
		if len(target.Secrets) != 1 || string(target.Secrets[0].Box) != fmt.Sprintf("secret of %d", to.ID) || target.Secrets[0].KeyID != "k1" {
			w.Errorf("secrets %+v", target.Secrets)
		}
		_, err = w.s.EndpointByRef(w.Context(), w.newTenant("other").ID, to.Ref)
		w.is(err, store.ErrNotFound)
	}},
	{"an endpoint made paused says who paused it", func(w *world) {
		e, err := w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
			Ref: "wh_1", Tenant: w.tenant.ID, Status: posthorn.StatusPaused,
		}, func(int64) (store.Sealed, error) { return store.Sealed{Box: []byte("s")}, nil }, 10)
		w.ok(err)
		if e.PausedReason != posthorn.PausedByUser || !e.PausedAt.Equal(w.now) || e.Version != 1 {
			w.Errorf("%+v", e)
		}
	}},
	{"an endpoint whose secret cannot be sealed is not made", func(w *world) {
		fault := errors.New("no key")
		_, err := w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{Ref: "wh_1", Tenant: w.tenant.ID},
			func(int64) (store.Sealed, error) { return store.Sealed{}, fault }, 10)
		w.is(err, fault)
		_, err = w.s.EndpointByRef(w.Context(), w.tenant.ID, "wh_1")
		w.is(err, store.ErrNotFound)
	}},
	{"a tenant has no more endpoints than it may", func(w *world) {
		first := w.endpoint()
		e := posthorn.Endpoint{Ref: "wh_2", Tenant: w.tenant.ID}
		seal := func(int64) (store.Sealed, error) { return store.Sealed{Box: []byte("s")}, nil }
		_, err := w.s.CreateEndpoint(w.Context(), w.change(), e, seal, 1)
		w.is(err, store.ErrEndpointLimit)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, first.Ref, 0))
		_, err = w.s.CreateEndpoint(w.Context(), w.change(), e, seal, 1)
		w.ok(err)
	}},
	{"a tenant has no more endpoints with one url than it may", func(w *world) {
		made := 0
		create := func(t posthorn.Tenant, url string) (posthorn.Endpoint, error) {
			made++
			return w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
				Ref: fmt.Sprintf("wh_same%d", made), Tenant: t.ID, URL: url, Events: []posthorn.Pattern{"*"}, Status: posthorn.StatusActive,
			}, nil, 0)
		}
		move := func(ref, url string) error {
			_, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, ref, 0, func(e *posthorn.Endpoint) error { e.URL = url; return nil })
			return err
		}
		var refs []string
		for i := range posthorn.MaxSameURL {
			e, err := create(w.tenant, fmt.Sprintf("https://Hooks.example.com:443?%d", i))
			w.ok(err)
			refs = append(refs, e.Ref)
		}
		_, err := create(w.tenant, "https://hooks.example.com/")
		w.is(err, store.ErrSameURL)
		beside, err := create(w.tenant, "https://hooks.example.com/beside")
		w.ok(err)
		w.is(move(beside.Ref, "https://hooks.example.com/?another"), store.ErrSameURL)
		w.ok(move(refs[0], "https://hooks.example.com/?another"))
		_, err = w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, refs[1], 0, func(e *posthorn.Endpoint) error { e.Description = "new"; return nil })
		w.ok(err)
		_, err = create(w.newTenant("other"), "https://hooks.example.com/")
		w.ok(err)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, refs[2], 0))
		w.ok(move(beside.Ref, "https://hooks.example.com/"))
		_, err = create(w.tenant, "https://hooks.example.com/")
		w.is(err, store.ErrSameURL)
	}},
	{"endpoints that are made and moved at one time are no more with one url either", func(w *world) {
		const many = 3 * posthorn.MaxSameURL
		moved := make([]posthorn.Endpoint, many)
		for i := range moved {
			moved[i] = w.endpoint()
		}
		outcomes := make(chan error, 2*many)
		for i := range many {
			go func() {
				_, err := w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
					Ref: fmt.Sprintf("wh_race%d", i), Tenant: w.tenant.ID, URL: "https://hooks.example.com/", Events: []posthorn.Pattern{"*"},
				}, nil, 0)
				outcomes <- err
			}()
			go func() {
				_, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, moved[i].Ref, 0, func(e *posthorn.Endpoint) error {
					e.URL = "https://hooks.example.com"
					return nil
				})
				outcomes <- err
			}()
		}
		done := 0
		for range 2 * many {
			if err := <-outcomes; err == nil {
				done++
			} else if !errors.Is(err, store.ErrSameURL) {
				w.Error(err)
			}
		}
		if done != posthorn.MaxSameURL {
			w.Errorf("%d endpoints have one url, want %d", done, posthorn.MaxSameURL)
		}
	}},
	{"a change takes effect once, with the next version", func(w *world) {
		to := w.endpoint()
		w.now = w.now.Add(time.Minute)
		got, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, to.Version, func(e *posthorn.Endpoint) error {
			e.URL, e.Description, e.Events = "https://example.org", "new", []posthorn.Pattern{"cases.*"}
			e.Settings.Ordered, e.SettingsVersion = true, 99 // UpdateSettings' to change
			e.Ref, e.Tenant, e.Version = "wh_other", 99, 99  // not fn's to change
			return nil
		})
		w.ok(err)
		want := to
		want.URL, want.Description, want.Events = "https://example.org", "new", []posthorn.Pattern{"cases.*"}
		want.Version, want.UpdatedAt = 2, w.now
		if diff := cmp.Diff(want, got); diff != "" {
			w.Error(diff)
		}
		read, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if diff := cmp.Diff(want, read); diff != "" {
			w.Error(diff)
		}
		w.noticed()
		_, err = w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, to.Version, func(e *posthorn.Endpoint) error { return nil })
		w.is(err, store.ErrVersion)
		w.now = w.now.Add(time.Minute)
		same, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, func(e *posthorn.Endpoint) error { return nil })
		w.ok(err)
		if diff := cmp.Diff(want, same); diff != "" || len(w.noticed()) != 0 {
			w.Errorf("a change of nothing: %s", diff)
		}
		fault := errors.New("bad")
		_, err = w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, func(e *posthorn.Endpoint) error { e.URL = "x"; return fault })
		if err != fault {
			w.Errorf("got %v, want fn's own error", err)
		}
	}},
	{"a change of the settings takes effect once, with their next version", func(w *world) {
		to := w.endpoint()
		if to.SettingsVersion != 1 {
			w.Errorf("a new endpoint's settings have version %d", to.SettingsVersion)
		}
		w.noticed()
		set := w.setVersion(w.tenant)
		w.now = w.now.Add(time.Minute)
		update := func(version int64, fn func(*posthorn.Settings) error) (posthorn.Endpoint, error) {
			return w.s.UpdateSettings(w.Context(), w.change(), w.tenant.ID, to.Ref, version, fn)
		}
		want := to
		want.Settings = posthorn.Settings{
			MaxInFlight: 3, TimeoutSeconds: 7, RetrySchedule: []int{5, 300}, RatePerSecond: 0.5, Filter: "true", Ordered: true,
		}
		want.SettingsVersion = 2
		got, err := update(1, func(s *posthorn.Settings) error { *s = want.Settings; return nil })
		w.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			w.Error(diff)
		}
		read, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if diff := cmp.Diff(want, read); diff != "" {
			w.Error(diff)
		}
		notices := []store.Notice{{Kind: store.NoticeEndpoint, Tenant: w.tenant.ID, Endpoint: to.ID}}
		if diff := cmp.Diff(notices, w.noticed()); diff != "" {
			w.Error(diff)
		}
		if w.setVersion(w.tenant) == set {
			w.Error("publishers do not match anew")
		}
		set = w.setVersion(w.tenant)
		_, err = update(1, func(*posthorn.Settings) error { return nil })
		w.is(err, store.ErrVersion)
		same, err := update(2, func(s *posthorn.Settings) error { s.RetrySchedule[1] = 300; return nil })
		w.ok(err)
		if diff := cmp.Diff(want, same); diff != "" || len(w.noticed()) != 0 || w.setVersion(w.tenant) != set {
			w.Errorf("a change of nothing: %s", diff)
		}
		fault := errors.New("bad")
		if _, err = update(0, func(s *posthorn.Settings) error { s.Ordered = false; return fault }); err != fault {
			w.Errorf("got %v, want fn's own error", err)
		}
		_, err = update(0, func(s *posthorn.Settings) error { s.Filter = "a\x00"; return nil })
		w.is(err, store.ErrNUL)
		got, err = update(0, func(s *posthorn.Settings) error { s.RetrySchedule = nil; return nil })
		w.ok(err)
		if got.Settings.RetrySchedule != nil || !got.Settings.Ordered || got.SettingsVersion != 3 {
			w.Errorf("%+v", got)
		}
		_, err = w.s.UpdateSettings(w.Context(), w.change(), w.newTenant("other").ID, to.Ref, 0, func(*posthorn.Settings) error { return nil })
		w.is(err, store.ErrNotFound)
	}},
	{"two changes of different fields at a time both take effect", func(w *world) {
		to := w.endpoint()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				_, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, func(e *posthorn.Endpoint) error {
					if i%2 == 0 {
						e.URL += "u"
					} else {
						e.Description += "d"
					}
					return nil
				})
				if err != nil {
					w.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if got.URL != to.URL+"uuuuu" || got.Description != "ddddd" || got.Version != 11 {
			w.Errorf("%+v", got)
		}
	}},
	{"watchers know of a change before it is answered", func(w *world) {
		to := w.endpoint()
		w.noticed()
		w.pause(to)
		want := []store.Notice{{Kind: store.NoticeEndpoint, Tenant: w.tenant.ID, Endpoint: to.ID}}
		if diff := cmp.Diff(want, w.noticed()); diff != "" {
			w.Error(diff)
		}
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		if diff := cmp.Diff(want, w.noticed()); diff != "" {
			w.Error(diff)
		}
	}},
	{"what a watcher does last is done before a change is answered, beside the writes of others", func(w *world) {
		to := w.endpoint()
		var settled atomic.Int32
		w.s.WatchSettling(func(n store.Notice) func() {
			if n.Kind != store.NoticeEndpoint {
				return nil
			}
			return func() {
				// The change is committed and its locks are gone: others write.
				if _, err := w.s.CreateTenant(w.Context(), w.change(), "beside"); err != nil {
					w.Error(err)
				}
				settled.Add(1)
			}
		})
		w.pause(to)
		if n := settled.Load(); n != 1 {
			w.Errorf("%d calls when the pause was answered, want 1", n)
		}
	}},
	{"pausing holds what is pending, resuming lets it go", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		w.pause(to)
		w.shown(id, posthorn.Held, "")
		got := w.setStatus(to, posthorn.StatusActive)
		if got.PausedReason != "" || !got.PausedAt.IsZero() {
			w.Errorf("%+v", got)
		}
		w.shown(id, "pending", "")
	}},
	{"a deleted endpoint is unknown at once and its deliveries shown as canceled", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		w.is(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 7), store.ErrVersion)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, to.Version))
		_, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.is(err, store.ErrNotFound)
		w.is(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0), store.ErrNotFound)
		w.shown(id, "canceled", posthorn.ReasonEndpointDeleted)
		target, err := w.s.Target(w.Context(), to.ID)
		w.ok(err)
		if !target.Endpoint.DeletedAt.Equal(w.now) {
			w.Errorf("%+v", target.Endpoint)
		}
		list, err := w.s.EndpointsOf(w.Context(), w.tenant.ID, "", 0)
		w.ok(err)
		if len(list) != 0 {
			w.Errorf("listed %v", list)
		}
	}},
	{"endpoints are listed newest first, in pages", func(w *world) {
		a, b, c := w.endpoint(), w.endpoint(), w.endpoint()
		w.endpointOf(w.newTenant("other"))
		first, err := w.s.EndpointsOf(w.Context(), w.tenant.ID, "", 2)
		w.ok(err)
		rest, err := w.s.EndpointsOf(w.Context(), w.tenant.ID, b.Ref, 2)
		w.ok(err)
		if diff := cmp.Diff([]posthorn.Endpoint{c, b, a}, append(first, rest...)); diff != "" {
			w.Error(diff)
		}
		set, err := w.s.EndpointSet(w.Context(), w.tenant.ID)
		w.ok(err)
		if diff := cmp.Diff([]posthorn.Endpoint{a, b, c}, set.Endpoints); diff != "" {
			w.Error(diff)
		}
	}},
}
