package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

func open(t testing.TB, o sqlite.Options) *sqlite.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "posthorn.db")
	}
	if o.Synchronous == "" {
		o.Synchronous = "OFF"
	}
	s, err := sqlite.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, sqlite.Options{}) })
}

// Each commit moves entries of lists from the memory into their table.
func TestConformanceWithLittleGathered(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, sqlite.Options{Gather: 2}) })
}

func TestModel(t *testing.T) {
	storetest.RunModel(t, func(t *testing.T, now func() time.Time) (store.Store, func() store.Store) {
		o := sqlite.Options{Path: filepath.Join(t.TempDir(), "posthorn.db"), Now: now, Gather: 7}
		return open(t, o), func() store.Store { return open(t, o) }
	})
}

// execute changes a file as nobody should.
func execute(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}
