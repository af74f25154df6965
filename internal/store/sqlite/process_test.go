package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// asKilled copies the files of a living store, which is what a killed process
// leaves.
func asKilled(t *testing.T, path string) (copied string) {
	t.Helper()
	copied = filepath.Join(t.TempDir(), "copied.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

// TestKilled opens what a killed process leaves: all that was answered is there,
// and what was owned waits.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path, Synchronous: "FULL"}))
	owned, parked, done, last := s.mustPublish(false), s.mustPublish(true), s.mustPublish(false), s.mustPublish(false)
	if _, err := s.record(done, ok); err != nil {
		t.Fatal(err)
	}
	again := &scene{open(t, sqlite.Options{Path: asKilled(t, path)}), t, s.tenant, s.endpoint}
	if c, err := again.Counts(t.Context()); err != nil || c.Open != 3 || c.Oldest != owned.Time() {
		t.Errorf("%+v, %v", c, err)
	}
	work, _, err := again.ClaimDue(t.Context(), time.Now().Add(time.Second), 10)
	if err != nil || len(work) != 2 || work[0].ID != owned || work[1].ID != last {
		t.Errorf("%+v, %v", work, err)
	}
	work, _, _, err = again.ClaimParked(t.Context(), s.endpoint.ID, 10)
	if err != nil || len(work) != 1 || work[0].ID != parked {
		t.Errorf("%+v, %v", work, err)
	}
	if got := again.state(done); got != "succeeded" {
		t.Errorf("done is %s", got)
	}
	if next := again.mustPublish(false); next <= last {
		t.Error("an id was given out again")
	}
}

func TestIdsAreNeverGivenOutAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	ahead := time.Now().Add(time.Hour)
	s := newScene(t, open(t, sqlite.Options{Path: path, Now: func() time.Time { return ahead }}))
	id := s.mustPublish(false)
	if err := s.DeleteTenant(t.Context(), store.Change{At: time.Now()}, s.tenant.ID); err != nil {
		t.Fatal(err)
	}
	storetest.Sweep(t, s, time.Now(), store.Retention{Events: 30 * 24 * time.Hour})
	if _, err := s.DeliveryByID(t.Context(), s.tenant.ID, id); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("not erased: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The row is gone and the clock went back.
	again := open(t, sqlite.Options{Path: path})
	c := store.Change{Actor: "test", At: time.Now()}
	tenant, err := again.CreateTenant(t.Context(), c, "acme")
	if err != nil {
		t.Fatal(err)
	}
	e, err := again.CreateEndpoint(t.Context(), c, posthorn.Endpoint{Ref: "wh_2", Tenant: tenant.ID}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	after := &scene{again, t, tenant, e}
	if next := after.mustPublish(false); next <= id {
		t.Errorf("id %x after %x", next, id)
	}
}

func TestAdminBesideServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path, Poll: 5 * time.Millisecond}))
	noticed := make(chan store.Notice, 100)
	s.Watch(func(n store.Notice) { noticed <- n })
	admin := open(t, sqlite.Options{Path: path, Role: sqlite.Admin})
	c := store.Change{Actor: "cli", At: time.Now()}
	token, err := admin.CreateToken(t.Context(), c, store.Token{Ref: "tok_1", Tenant: s.tenant.ID, Name: "x", Hash: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.TokenByHash(t.Context(), token.Hash); err != nil {
		t.Error(err)
	}
	if n := <-noticed; n.Kind != store.NoticeAll {
		t.Errorf("noticed %+v", n)
	}
	s.mustPublish(false)
	s.mustPublish(true)
	for limit, want := range map[int]int{10: 2, 1: 1} {
		if _, n, _, err := admin.EndpointHealth(t.Context(), s.endpoint.ID, limit); err != nil || n != want {
			t.Errorf("%d waiting, %v; want %d", n, err, want)
		}
	}
	if _, err := admin.Publish(t.Context(), store.Publication{}); err == nil {
		t.Error("an admin process published")
	}
	if _, _, err := admin.ClaimDue(t.Context(), time.Now(), 1); err == nil {
		t.Error("an admin process claimed")
	}
	// A change of endpoints makes what the server matched before stale.
	set, err := s.EndpointSet(t.Context(), s.tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.DeleteEndpoint(t.Context(), c, s.tenant.ID, s.endpoint.Ref, 0); err != nil {
		t.Fatal(err)
	}
	_, err = s.Publish(t.Context(), store.Publication{Tenant: s.tenant.ID, SetVersion: set.Version, At: time.Now(), Events: []store.NewEvent{{
		Body: posthorn.AppendBody(nil, "", "a", time.Now(), nil), Targets: []store.PublishTarget{{Endpoint: s.endpoint.ID}},
	}}})
	if !errors.Is(err, store.ErrStale) {
		t.Errorf("published with %v", err)
	}
}

func TestAdminGetsItsTurnBesideABusyServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	admin := open(t, sqlite.Options{Path: path, Role: sqlite.Admin})
	done := make(chan struct{})
	var load sync.WaitGroup
	for range 16 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := s.publish(10, "", true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		_, err := admin.CreateToken(t.Context(), store.Change{Actor: "cli"}, store.Token{Ref: fmt.Sprint("tok_", i), Hash: [32]byte{byte(i)}})
		if err != nil {
			t.Error(err)
		}
	}
	close(done)
	load.Wait()
}

// TestVirtualTime shows that the store works in a bubble of virtual time and
// that Close ends all that it started.
func TestVirtualTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, open(t, sqlite.Options{Path: path}))
		id := s.mustPublish(false)
		if rec, err := s.record(id, posthorn.Attempt{Class: posthorn.ClassTimeout}); err != nil || rec.Progress.State != posthorn.Pending {
			t.Fatalf("%+v, %v", rec, err)
		}
		<-time.After(time.Hour)
		if work, _, err := s.ClaimDue(t.Context(), time.Now(), 10); err != nil || len(work) != 1 {
			t.Errorf("%d claimed, %v", len(work), err)
		}
	})
}
