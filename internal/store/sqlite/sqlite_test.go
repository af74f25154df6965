package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
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
	conform(t, sqlite.Options{})
}

// Each commit moves entries of lists from the memory into their table.
func TestConformanceWithLittleGathered(t *testing.T) {
	if proof.RaceDetector {
		t.Skip("TestConformance runs the same code; where entries stand matters to no goroutine")
	}
	conform(t, sqlite.Options{Gather: 2})
}

func conform(t *testing.T, o sqlite.Options) {
	storetest.Run(t, func(t *testing.T) (store.Store, storetest.Raw) {
		o := o
		o.Path = filepath.Join(t.TempDir(), "posthorn.db")
		return open(t, o), raw(o.Path)
	})
}

// raw reaches a file as no store does.
func raw(path string) storetest.Raw {
	connect := func(t testing.TB) *sql.DB {
		t.Helper()
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=secure_delete(1)")
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	numbered := func(query string) string { return strings.ReplaceAll(query, "$", "?") }
	return storetest.Raw{
		Open: "deliveries",
		Exec: func(t testing.TB, query string, args ...any) {
			t.Helper()
			db := connect(t)
			defer db.Close()
			if _, err := db.Exec(numbered(query), args...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		},
		Bytes: func(t testing.TB, query string, args ...any) (b []byte) {
			t.Helper()
			db := connect(t)
			defer db.Close()
			if err := db.QueryRow(numbered(query), args...).Scan(&b); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			return b
		},
	}
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
