package postgres_test

import (
	"context"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// filledFile is a SQLite file with something of each kind, and what it shows.
func filledFile(t *testing.T) (path string, f *storetest.Filled, shown storetest.View) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "posthorn.db")
	open := func() *sqlite.Store {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Synchronous: "OFF", Poll: -1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	f = storetest.Fill(t, s, time.Now().Add(-30*24*time.Hour).UTC().Truncate(time.Microsecond))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open() // what was owned waits
	shown = storetest.Look(t, s, f)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, f, shown
}

var change = store.Change{Actor: "test", At: time.Now().UTC()}

func copyStore(t *testing.T, path, url string) ([]store.Copied, error) {
	t.Helper()
	from, err := sqlite.OpenOrigin(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := postgres.OpenDestination(t.Context(), url)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	return store.Copy(t.Context(), from, to, change, nil)
}

func TestCopiedStoreShowsTheSameAndGoesOn(t *testing.T) {
	path, f, want := filledFile(t)
	url := database(t)
	copied, err := copyStore(t, path, url)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int64{}
	for _, c := range copied {
		rows[c.Table] = c.Rows
	}
	for _, table := range []string{"tenants", "tokens", "endpoints", "endpoint_secrets", "endpoint_health", "endpoint_stats", "events", "due", "deliveries", "idempotency", "audit", "meta", "deletions"} {
		if rows[table] == 0 {
			t.Errorf("no row of %s was copied", table)
		}
	}
	s := open(t, postgres.Options{URL: url})
	got := storetest.Look(t, s, f)
	if diff := cmp.Diff(want, got, cmpopts.EquateErrors(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-file +database)\n%s", diff)
	}
	if len(want.Events) < 10 || len(want.Deliveries) < 10 || len(want.Boxes) < 5 || want.Once != "sealed" {
		t.Errorf("the store was not full: %d events, %d deliveries, %d boxes", len(want.Events), len(want.Deliveries), len(want.Boxes))
	}
	storetest.CheckWorks(t, s, f)

	// The file sends nothing any more.
	old, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if on, err := old.Sending(t.Context()); on || err != nil {
		t.Errorf("the file that was copied sends: %v, %v", on, err)
	}
}

func TestCopyIntoWhatIsNotEmptyIsRefused(t *testing.T) {
	path, _, _ := filledFile(t)
	t.Run("served", func(t *testing.T) {
		url := database(t)
		open(t, postgres.Options{URL: url})
		if _, err := copyStore(t, path, url); err == nil || !strings.Contains(err.Error(), "nodes serve it") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("used", func(t *testing.T) {
		url := database(t)
		s := open(t, postgres.Options{URL: url})
		if _, err := s.CreateTenant(t.Context(), change, "there"); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := copyStore(t, path, url); err == nil || !strings.Contains(err.Error(), "holds rows") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("served file", func(t *testing.T) {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := sqlite.OpenOrigin(t.Context(), sqlite.Options{Path: path}); err == nil {
			t.Error("the file of a running service is copied")
		}
	})
}

// falsified is a destination whose rows come back other than they were loaded.
type falsified struct {
	*postgres.Destination
	spoil func(t store.Table, row []any) (drop bool)
}

func (f falsified) Rows(ctx context.Context, t store.Table) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for row, err := range f.Destination.Rows(ctx, t) {
			if err == nil && f.spoil(t, row) {
				continue
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func TestCopyThatDiffersIsNotKept(t *testing.T) {
	path, _, _ := filledFile(t)
	for name, spoil := range map[string]func(t store.Table, row []any) bool{
		"a row is missing": func(t store.Table, row []any) bool { return t.Name == "deliveries" },
		"a bit has turned": func(t store.Table, row []any) bool {
			if t.Name == "endpoint_secrets" {
				for _, v := range row {
					if b, ok := v.([]byte); ok {
						b[0] ^= 1
					}
				}
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := database(t)
			from, err := sqlite.OpenOrigin(t.Context(), sqlite.Options{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			to, err := postgres.OpenDestination(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Copy(t.Context(), from, falsified{to, spoil}, change, nil)
			if err == nil || !strings.Contains(err.Error(), "checksums") {
				t.Errorf("got %v", err)
			}
			if err := to.Close(); err != nil {
				t.Error(err)
			}
			again, err := postgres.OpenDestination(t.Context(), url) // it is empty still
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		})
	}
}

// A column that one store has and the other has not would be lost by a copy.
func TestCopyRefusesColumnsThatWouldBeLost(t *testing.T) {
	path, _, _ := filledFile(t)
	url := database(t)
	pgtest.Exec(t, url, `ALTER TABLE posthorn.endpoints DROP COLUMN description`)
	if _, err := copyStore(t, path, url); err == nil || !strings.Contains(err.Error(), "endpoints.description") {
		t.Errorf("got %v", err)
	}
	url = database(t)
	pgtest.Exec(t, url, `ALTER TABLE posthorn.endpoints ADD COLUMN more text`)
	if _, err := copyStore(t, path, url); err == nil || !strings.Contains(err.Error(), "endpoints.more") {
		t.Errorf("got %v", err)
	}
}
