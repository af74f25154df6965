package storetest

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/store"
)

// boxes lists all in pages.
func (w *world) boxes(page int) (list []store.Box) {
	w.Helper()
	var after store.Box
	for range 1000 {
		some, err := w.s.Boxes(w.Context(), after, page)
		w.ok(err)
		list = append(list, some...)
		if len(some) < page {
			return list
		}
		after = some[len(some)-1]
	}
	w.Fatal("the list of boxes never ends")
	return nil
}

// answer remembers an answer under an Idempotency-Key.
func (w *world) answer(key, answer string) {
	w.Helper()
	c := w.change()
	c.Once = &store.Once{Tenant: w.tenant.ID, Route: "POST /x", Key: key, Hash: sha256.Sum256([]byte(key)), Answer: []byte(answer), Expires: w.now.Add(time.Hour)}
	_, err := w.s.CreateTenant(w.Context(), c, "made-with-"+key)
	w.ok(err)
}

// plain is what is sealed, without the place in the store.
type plain struct {
	Kind             store.BoxKind
	Tenant, Endpoint int64
	KeyID, Sealed    string
}

func plains(boxes []store.Box) (list []plain) {
	for _, b := range boxes {
		list = append(list, plain{b.Kind, b.Tenant, b.Endpoint, b.KeyID, string(b.Sealed)})
	}
	return list
}

var sealingPromises = []promise{
	{"the keys that are noted last are known, and only they", func(w *world) {
		want := func(keys map[string]int64) {
			w.Helper()
			got, err := w.s.NotedKeys(w.Context())
			w.ok(err)
			if diff := cmp.Diff(keys, got); diff != "" {
				w.Error(diff)
			}
		}
		want(map[string]int64{})
		w.ok(w.s.NoteKeys(w.Context(), map[string]int64{"k1": 7, "k2": -9}))
		want(map[string]int64{"k1": 7, "k2": -9})
		w.ok(w.s.NoteKeys(w.Context(), map[string]int64{"k2": 8, "A_-z": 1 << 62}))
		want(map[string]int64{"k2": 8, "A_-z": 1 << 62})
	}},
	{"all that is sealed is listed once, in pages of any size", func(w *world) {
		var want []plain
		for range 3 {
			to := w.endpoint()
			want = append(want, plain{store.BoxSecret, w.tenant.ID, to.ID, "k1", fmt.Sprint("secret of ", to.ID)})
		}
		for i := range 3 {
			key := fmt.Sprint("key-", i)
			w.answer(key, "answer to "+key)
			want = append(want, plain{store.BoxAnswer, w.tenant.ID, 0, "", "answer to " + key})
		}
		// What nobody sealed is not listed: a publisher's ids are kept beside the answers.
		w.publish(w.event("mine"))
		for page := 1; page < 9; page++ {
			if diff := cmp.Diff(want, plains(w.boxes(page))); diff != "" {
				w.Errorf("pages of %d: %s", page, diff)
			}
		}
	}},
	{"a box is replaced where it stands, once, and only as it was listed", func(w *world) {
		to := w.endpoint()
		w.answer("k", "old answer")
		w.noticed()
		var change []store.Resealed
		for _, b := range w.boxes(10) {
			r := store.Resealed{Box: b, NewSealed: append([]byte("new "), b.Sealed...)}
			if b.Kind != store.BoxAnswer {
				r.NewKeyID = "k2"
			}
			change = append(change, r)
		}
		for _, want := range []int{2, 0} { // again it changes nothing
			if n, err := w.s.Reseal(w.Context(), w.change(), change); err != nil || n != want {
				w.Errorf("%d replaced, %v; want %d", n, err, want)
			}
		}
		want := []plain{
			{store.BoxSecret, w.tenant.ID, to.ID, "k2", fmt.Sprint("new secret of ", to.ID)},
			{store.BoxAnswer, w.tenant.ID, 0, "", "new old answer"},
		}
		if diff := cmp.Diff(want, plains(w.boxes(10))); diff != "" {
			w.Error(diff)
		}
		target, err := w.s.Target(w.Context(), to.ID)
		w.ok(err)
		if len(target.Secrets) != 1 || target.Secrets[0].KeyID != "k2" || string(target.Secrets[0].Box) != want[0].Sealed || target.Secrets[0].CreatedAt != w.now {
			w.Errorf("the endpoint has %+v", target.Secrets)
		}
		if n := w.noticed(); len(n) != 0 {
			w.Errorf("somebody was told: %v", n)
		}
	}},
}
