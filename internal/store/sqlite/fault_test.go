package sqlite_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// scene is a store with a tenant and an endpoint.
type scene struct {
	*sqlite.Store
	t        *testing.T
	tenant   posthorn.Tenant
	endpoint posthorn.Endpoint
}

func newScene(t *testing.T, s *sqlite.Store) *scene {
	t.Helper()
	c := store.Change{Actor: "test", At: time.Now()}
	tenant, err := s.CreateTenant(t.Context(), c, "acme")
	if err != nil {
		t.Fatal(err)
	}
	made := &scene{Store: s, t: t, tenant: tenant}
	made.endpoint = made.addEndpoint("wh_1")
	return made
}

func (s *scene) addEndpoint(ref string) posthorn.Endpoint {
	s.t.Helper()
	c := store.Change{Actor: "test", At: time.Now()}
	e, err := s.CreateEndpoint(s.t.Context(), c, posthorn.Endpoint{Ref: ref, Tenant: s.tenant.ID, URL: "https://example.com/" + ref, Events: []posthorn.Pattern{"*"}},
		func(int64) (store.Sealed, error) { return store.Sealed{}, nil }, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// publish publishes an event of a size; parked tells where its delivery goes.
func (s *scene) publish(size int, key string, parked bool) (posthorn.ID, error) {
	now := time.Now()
	set, err := s.EndpointSet(s.t.Context(), s.tenant.ID)
	if err != nil {
		return 0, err
	}
	a, err := s.Publish(s.t.Context(), store.Publication{
		Tenant: s.tenant.ID, SetVersion: set.Version, At: now, BacklogLimit: 1_000_000,
		Events: []store.NewEvent{{
			Key: key, Type: "cases.updated", OccurredAt: now,
			Body:    posthorn.AppendBody(nil, key, "cases.updated", now, fmt.Appendf(nil, `"%0*d"`, size, 7)),
			Targets: []store.PublishTarget{{Endpoint: s.endpoint.ID, Parked: parked}},
		}},
	})
	if err != nil {
		return 0, err
	}
	return a[0].ID + 1, nil
}

func (s *scene) mustPublish(parked bool) posthorn.ID {
	s.t.Helper()
	id, err := s.publish(10, "", parked)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *scene) record(id posthorn.ID, a posthorn.Attempt) (store.Recorded, error) {
	type answer struct {
		rec store.Recorded
		err error
	}
	c := make(chan answer, 1)
	s.Record(store.Result{
		ID: id, Tenant: s.tenant.ID, Endpoint: s.endpoint.ID, Attempt: a, EndedAt: time.Now(), Policy: posthorn.DefaultPolicy(),
	}, func(rec store.Recorded, err error) { c <- answer{rec, err} })
	got := <-c
	return got.rec, got.err
}

func (s *scene) state(id posthorn.ID) posthorn.ShownState {
	s.t.Helper()
	d, err := s.DeliveryByID(s.t.Context(), s.tenant.ID, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Shown()
}

var ok = posthorn.Attempt{Class: posthorn.ClassOK, Status: 200}

func TestDiskBelowTheReserveTakesResultsButNoEvents(t *testing.T) {
	var mu sync.Mutex
	free := uint64(1 << 40)
	now := time.Now()
	s := newScene(t, open(t, sqlite.Options{
		FreeSpace: func(string) (uint64, uint64, error) { mu.Lock(); defer mu.Unlock(); return free, 1 << 40, nil },
		Now:       func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
	}))
	id := s.mustPublish(false)
	set := func(f uint64) {
		mu.Lock()
		defer mu.Unlock()
		free, now = f, now.Add(2*time.Second)
	}
	set(1<<30 - 1)
	if _, err := s.publish(10, "", false); !errors.Is(err, store.ErrFull) {
		t.Errorf("published with %v", err)
	}
	if rec, err := s.record(id, ok); err != nil || rec.Progress.State != posthorn.Succeeded {
		t.Errorf("%+v, %v", rec, err)
	}
	set(1 << 30)
	s.mustPublish(false)
}

// TestFullDisk fills a file that may not grow: what does not fit is refused
// whole, what was accepted stays, and it goes on when there is room again.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	if err := s.Limit(60); err != nil {
		t.Fatal(err)
	}
	var accepted []posthorn.ID
	for i := range 100 {
		id, err := s.publish(20_000, fmt.Sprint("key", i), false)
		if err == nil {
			accepted = append(accepted, id)
			continue
		}
		if !errors.Is(err, store.ErrFull) {
			t.Fatalf("event %d: %v", i, err)
		}
		if _, err := s.EventByRef(t.Context(), s.tenant.ID, fmt.Sprint("key", i)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a refused event was stored: %v", err)
		}
	}
	if len(accepted) == 0 || len(accepted) == 100 {
		t.Fatalf("%d accepted", len(accepted))
	}
	// In one group with publishes that do not fit, results are not lost.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.publish(100_000, "", false); !errors.Is(err, store.ErrFull) {
				t.Errorf("published with %v", err)
			}
		})
	}
	for _, id := range accepted {
		wg.Go(func() {
			if _, err := s.record(id, ok); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range accepted {
		if got := s.state(id); got != "succeeded" {
			t.Errorf("%x is %s", id, got)
		}
	}
	if err := s.Limit(1 << 30); err != nil {
		t.Fatal(err)
	}
	if _, err := s.publish(20_000, "", false); err != nil {
		t.Error(err)
	}
}

func TestUnwritableFileIsUnavailableUntilItIsWritable(t *testing.T) {
	s := newScene(t, open(t, sqlite.Options{}))
	id := s.mustPublish(false)
	if err := s.SetReadOnly(true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.publish(10, "", false); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("published with %v", err)
	}
	if _, err := s.record(id, ok); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("recorded with %v", err)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("pinged with %v", err)
	}
	if got := s.state(id); got != "pending" {
		t.Errorf("the delivery is %s", got)
	}
	if err := s.SetReadOnly(false); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.record(id, ok); err != nil || rec.Lost {
		t.Errorf("%+v, %v", rec, err)
	}
}

func TestLockedFileIsUnavailableAfterOneWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	const wait = 200 * time.Millisecond
	if err := s.SetBusyTimeout(wait); err != nil {
		t.Fatal(err)
	}
	s.EmptyLog(t) // which does not wait, and leaves the time-out as it was
	db, err := sql.Open("sqlite", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	lock, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := s.publish(10, "", false); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("published with %v", err)
			}
		})
	}
	wg.Wait()
	// The first caller may go alone; the others wait together, not in turn.
	if took := time.Since(start); took > 50*wait {
		t.Errorf("200 callers waited %v, one waits %v", took, wait)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.mustPublish(false)
}

func TestNobodyFailsForAnothersFault(t *testing.T) {
	s := newScene(t, open(t, sqlite.Options{}))
	fault := errors.New("no key")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%10 == 0 {
				// Fails after it has written: the group must be rolled back.
				_, err := s.CreateEndpoint(t.Context(), store.Change{}, posthorn.Endpoint{Ref: fmt.Sprint("wh_x", i), Tenant: s.tenant.ID},
					func(int64) (store.Sealed, error) { return store.Sealed{}, fault }, 0)
				if !errors.Is(err, fault) {
					t.Errorf("created with %v", err)
				}
				return
			}
			if _, err := s.publish(10, fmt.Sprint("key", i), false); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	events, _, err := s.Events(t.Context(), store.EventFilter{Tenant: s.tenant.ID}, store.Page{Limit: 1000})
	if err != nil || len(events) != 180 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Open != 180 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSecureDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	secret := "a-passport-number-that-must-not-stay"
	if _, err := s.publish(10, secret, false); err != nil {
		t.Fatal(err)
	}
	storetest.Sweep(t, s, time.Now().Add(48*time.Hour), store.Retention{Events: time.Hour})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err == nil && bytes.Contains(b, []byte(secret)) {
			t.Errorf("%q still holds what was erased", suffix)
		}
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var check string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Errorf("%s, %v", check, err)
	}
}
