package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// What the writer puts off must not show.

func (s *scene) succeeded(t *testing.T) (n int) {
	t.Helper()
	hour := time.Now().Unix() / 3600
	slots, err := s.Stats(t.Context(), store.StatsFilter{Tenant: s.tenant.ID, Endpoint: s.endpoint.ID, From: hour - 1, Until: hour + 1, Step: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		n += slot.Succeeded
	}
	return n
}

func TestStatisticsSurviveBeingKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path, Synchronous: "FULL"}))
	succeed := func(s *scene, n int) {
		t.Helper()
		for range n {
			a := ok
			a.At = time.Now()
			if _, err := s.record(s.mustPublish(false), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	succeed(s, 3)
	if got := s.succeeded(t); got != 3 { // adds up what was logged
		t.Errorf("%d of 3 are counted", got)
	}
	succeed(s, 2)
	path = asKilled(t, path)
	again := &scene{open(t, sqlite.Options{Path: path, Synchronous: "FULL"}), t, s.tenant, s.endpoint}
	succeed(again, 1)
	if got := again.succeeded(t); got != 6 {
		t.Errorf("%d of 6 are counted after a kill", got)
	}
	if got := again.succeeded(t); got != 6 {
		t.Errorf("%d of 6 are counted when asked again", got)
	}
	last := &scene{open(t, sqlite.Options{Path: asKilled(t, path)}), t, s.tenant, s.endpoint}
	if got := last.succeeded(t); got != 6 {
		t.Errorf("%d of 6 are counted after they were added up", got)
	}
}

func TestLastSuccessIsShownAtOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	shown := func(s *sqlite.Store) time.Time {
		t.Helper()
		h, _, _, err := s.EndpointHealth(t.Context(), 1, 10)
		if err != nil {
			t.Fatal(err)
		}
		return h.LastSuccess
	}
	var last time.Time
	for range 3 {
		began := time.Now()
		if _, err := s.record(s.mustPublish(false), ok); err != nil {
			t.Fatal(err)
		}
		if last = shown(s.Store); last.Before(began) {
			t.Errorf("the last success is shown as of %s, want after %s", last, began)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := shown(open(t, sqlite.Options{Path: path})); !got.Equal(last) {
		t.Errorf("after a restart the last success was at %s, before it at %s", got, last)
	}
}

// TestLastSuccessIsNotForgotten: an endpoint's rate is kept by the time of its last
// attempt, when the engine has long let go of its lane.
func TestLastSuccessIsNotForgotten(t *testing.T) {
	twice := func(s *scene) (began time.Time) { // the first time is written at once
		for range 2 {
			began = time.Now()
			if _, err := s.record(s.mustPublish(false), ok); err != nil {
				s.t.Fatal(err)
			}
		}
		return began
	}
	for name, meanwhile := range map[string]func(*scene, string){
		"nothing": func(*scene, string) {},
		"another process commits": func(s *scene, path string) {
			admin := open(s.t, sqlite.Options{Path: path, Role: sqlite.Admin})
			if _, err := admin.CreateTenant(s.t.Context(), store.Change{Actor: "cli", At: time.Now()}, "other"); err != nil {
				s.t.Fatal(err)
			}
			s.mustPublish(false) // notices it
		},
		"many others succeed": func(s *scene, _ string) {
			for i := range 10 {
				other := *s
				other.endpoint = s.addEndpoint(fmt.Sprintf("wh_other%d", i))
				twice(&other)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := newScene(t, open(t, sqlite.Options{Path: path, Poll: time.Hour}))
			s.Remember(0) // as if there were many
			began := twice(s)
			meanwhile(s, path)
			target, err := s.Target(t.Context(), s.endpoint.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got := target.Health.LastSuccess; got.Before(began) {
				t.Errorf("the last success was %s ago, not %s", time.Since(began), time.Since(got))
			}
		})
	}
}

// TestLogIsTakenIntoTheFile: under load the log stays small, and nobody takes
// the checkpointer's work for a change by another process.
func TestLogIsTakenIntoTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := newScene(t, open(t, sqlite.Options{Path: path, Poll: time.Millisecond}))
	var notices atomic.Int32
	s.Watch(func(store.Notice) { notices.Add(1) })
	const size, events = 200_000, 800
	deadline := time.Now().Add(time.Minute)
	for i := 0; ; i++ {
		if _, err := s.publish(size, "", true); err != nil {
			t.Fatal(err)
		}
		if i < events {
			continue
		}
		file, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if file.Size() > events*size/2 {
			if log.Size() > 80<<20 { // the last resort is at 64 MiB
				t.Errorf("the log has grown to %d bytes", log.Size())
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of %d were taken into the file, %d are in the log", file.Size(), (i+1)*size, log.Size())
		}
	}
	if n := notices.Load(); n != 0 {
		t.Errorf("%d notices of changes that nobody made", n)
	}
}
