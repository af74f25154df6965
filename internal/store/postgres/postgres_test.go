package postgres_test

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const template = "posthorn_template"

var makeTemplate sync.Once

// database returns a migrated database of the test's own.
func database(t testing.TB) string {
	t.Helper()
	pgtest.URL(t)
	makeTemplate.Do(func() {
		pgtest.Exec(t, pgtest.URL(t), "DROP DATABASE IF EXISTS "+template)
		pgtest.Exec(t, pgtest.URL(t), "CREATE DATABASE "+template)
		if _, _, err := postgres.Migrate(t.Context(), pgtest.With(pgtest.URL(t), template)); err != nil {
			t.Fatal(err)
		}
	})
	return pgtest.Database(t, template)
}

func open(t testing.TB, o postgres.Options) *postgres.Store {
	t.Helper()
	if o.URL == "" {
		o.URL = database(t)
	}
	s, err := postgres.Open(t.Context(), o)
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
	storetest.Run(t, func(t *testing.T) (store.Store, storetest.Raw) {
		url := database(t)
		return open(t, postgres.Options{URL: url}), raw(url)
	})
}

// raw reaches a database as no store does.
func raw(url string) storetest.Raw {
	connect := func(t testing.TB) *pgx.Conn {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err == nil {
			_, err = c.Exec(t.Context(), `SET search_path = posthorn`)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return storetest.Raw{
		Open: "due",
		Exec: func(t testing.TB, query string, args ...any) {
			t.Helper()
			c := connect(t)
			defer c.Close(t.Context())
			if _, err := c.Exec(t.Context(), query, args...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		},
		Bytes: func(t testing.TB, query string, args ...any) (b []byte) {
			t.Helper()
			c := connect(t)
			defer c.Close(t.Context())
			if err := c.QueryRow(t.Context(), query, args...).Scan(&b); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			return b
		},
	}
}

func TestModel(t *testing.T) {
	storetest.RunModel(t, func(t *testing.T, now func() time.Time) (store.Store, func() store.Store) {
		o := postgres.Options{URL: database(t), Now: now}
		return open(t, o), func() store.Store { return open(t, o) }
	})
}
