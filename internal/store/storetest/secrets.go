package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// rotate makes a secret the current one; the former one ends after the overlap.
func (w *world) rotate(to posthorn.Endpoint, box string, overlap time.Duration) error {
	return w.s.ChangeSecrets(w.Context(), w.change(), to.Tenant, to.Ref, func(e posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error) {
		if e.ID != to.ID {
			w.Errorf("the endpoint is %+v", e)
		}
		valid[0].ExpiresAt = w.now.Add(overlap)
		return append([]store.Sealed{{KeyID: "k2", Box: []byte(box), CreatedAt: w.now}}, valid...), nil
	})
}

// signing are the boxes that sign now, in their order, by both ways to them.
func (w *world) signing(to posthorn.Endpoint, want ...string) {
	w.Helper()
	e, revealed, err := w.s.RevealSecrets(w.Context(), w.change(), to.Tenant, to.Ref)
	w.ok(err)
	target, err := w.s.Target(w.Context(), to.ID)
	w.ok(err)
	for _, list := range [][]store.Sealed{revealed, store.Valid(target.Secrets, w.now)} {
		var got []string
		for _, s := range list {
			got = append(got, string(s.Box))
		}
		if diff := cmp.Diff(want, got); diff != "" || e.ID != to.ID {
			w.Errorf("of %s: %s", e.Ref, diff)
		}
	}
}

var secretPromises = []promise{
	{"former secrets sign behind the current one until they expire, to the instant", func(w *world) {
		to := w.endpoint()
		first := fmt.Sprint("secret of ", to.ID)
		w.signing(to, first)
		w.noticed()
		w.ok(w.rotate(to, "b", time.Hour))
		want := []store.Notice{{Kind: store.NoticeEndpoint, Tenant: w.tenant.ID, Endpoint: to.ID}}
		if diff := cmp.Diff(want, w.noticed()); diff != "" {
			w.Error(diff)
		}
		w.now = w.now.Add(time.Minute)
		w.ok(w.rotate(to, "c", time.Minute))
		w.signing(to, "c", "b", first)
		w.now = w.now.Add(time.Minute - time.Nanosecond)
		w.signing(to, "c", "b", first)
		w.now = w.now.Add(time.Nanosecond)
		w.signing(to, "c", first)
		w.sweep(store.Retention{Events: 24 * time.Hour})
		w.signing(to, "c", first)
		w.now = w.now.Add(time.Hour)
		w.signing(to, "c")
		if got, err := w.s.EndpointByRef(w.Context(), to.Tenant, to.Ref); err != nil || got.Version != to.Version || !got.UpdatedAt.Equal(to.UpdatedAt) {
			w.Errorf("the resource changed: %+v, %v", got, err)
		}
		if n := len(w.boxes(10)); n != 2 {
			w.Errorf("%d boxes: what expired is not swept away or more is", n)
		}
		w.sweep(store.Retention{Events: 24 * time.Hour})
		if n := len(w.boxes(10)); n != 1 {
			w.Errorf("%d boxes are left", n)
		}
	}},
	{"what is left out does not sign any more", func(w *world) {
		to := w.endpoint()
		w.ok(w.rotate(to, "b", time.Hour))
		w.ok(w.s.ChangeSecrets(w.Context(), w.change(), to.Tenant, to.Ref, func(_ posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error) {
			return valid[:1], nil
		}))
		w.signing(to, "b")
		if n := len(w.boxes(10)); n != 1 {
			w.Errorf("%d boxes are left", n)
		}
	}},
	{"a change of secrets that is refused changes nothing", func(w *world) {
		to, other := w.endpoint(), w.newTenant("other")
		first, fault := fmt.Sprint("secret of ", to.ID), errors.New("no")
		w.noticed()
		for name, fn := range map[string]func(valid []store.Sealed) ([]store.Sealed, error){
			"an error":     func([]store.Sealed) ([]store.Sealed, error) { return nil, fault },
			"none left":    func([]store.Sealed) ([]store.Sealed, error) { return nil, nil },
			"two current":  func(v []store.Sealed) ([]store.Sealed, error) { return append(v, store.Sealed{Box: []byte("x")}), nil },
			"none current": func(v []store.Sealed) ([]store.Sealed, error) { v[0].ExpiresAt = w.now.Add(time.Hour); return v, nil },
			"a stranger":   func(v []store.Sealed) ([]store.Sealed, error) { v[0].ID += 1000; return v, nil },
		} {
			err := w.s.ChangeSecrets(w.Context(), w.change(), to.Tenant, to.Ref, func(_ posthorn.Endpoint, v []store.Sealed) ([]store.Sealed, error) { return fn(v) })
			if err == nil || name == "an error" && !errors.Is(err, fault) {
				w.Errorf("%s: %v", name, err)
			}
		}
		if n := w.noticed(); len(n) != 0 {
			w.Errorf("somebody was told: %v", n)
		}
		w.signing(to, first)
		for _, ref := range []string{to.Ref, "wh_none"} {
			_, _, err := w.s.RevealSecrets(w.Context(), w.change(), other.ID, ref)
			w.is(err, store.ErrNotFound)
			w.is(w.s.ChangeSecrets(w.Context(), w.change(), other.ID, ref, nil), store.ErrNotFound)
		}
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), to.Tenant, to.Ref, 0))
		_, _, err := w.s.RevealSecrets(w.Context(), w.change(), to.Tenant, to.Ref)
		w.is(err, store.ErrNotFound)
	}},
	{"rotations at a time follow each other", func(w *world) {
		to := w.endpoint()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { w.ok(w.rotate(to, fmt.Sprint("r", i), time.Hour)) })
		}
		wg.Wait()
		_, valid, err := w.s.RevealSecrets(w.Context(), w.change(), to.Tenant, to.Ref)
		w.ok(err)
		if len(valid) != 9 || !valid[0].ExpiresAt.IsZero() || valid[1].ExpiresAt.IsZero() {
			w.Errorf("%+v", valid)
		}
	}},
}
