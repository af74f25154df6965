package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
)

// streamWorld is a store with a tenant, and a way to publish.
func streamWorld(t *testing.T) (s *postgres.Store, url string, tenant int64, publish func() posthorn.ID) {
	url = database(t)
	s = open(t, postgres.Options{URL: url, Role: postgres.Serve, Now: time.Now})
	made, err := s.CreateTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, "acme")
	if err != nil {
		t.Fatal(err)
	}
	set, err := s.EndpointSet(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	return s, url, made.ID, func() posthorn.ID {
		t.Helper()
		now := time.Now()
		a, err := s.Publish(t.Context(), store.Publication{Tenant: made.ID, SetVersion: set.Version, At: now, Events: []store.NewEvent{{
			Type: "cases.closed", OccurredAt: now, Body: posthorn.AppendBody(nil, "", "cases.closed", now, []byte(`{}`)),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return a[0].ID
	}
}

// read reads what follows a place, once.
func read(t *testing.T, s *postgres.Store, tenant int64, after store.StreamPlace) (ids []posthorn.ID, page store.StreamPage) {
	t.Helper()
	page, err := s.Stream(t.Context(), store.StreamFilter{Tenant: tenant}, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Events {
		ids = append(ids, e.ID)
	}
	return ids, page
}

// Another node began to publish before this one and commits after it, with an id
// that is lower.
func TestStreamDoesNotSkipWhatCommitsLate(t *testing.T) {
	s, url, tenant, publish := streamWorld(t)
	first := publish()
	_, page := read(t, s, tenant, store.StreamPlace{})
	other, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late := first + 1
	if _, err := tx.Exec(t.Context(), `INSERT INTO posthorn.events (id, tenant, occurred_at, accepted_at, deliver_at, deliveries, size, kind, key, type, source, subject, source_id, body)
		SELECT $1, tenant, occurred_at, accepted_at, 0, 0, size, 0, '', type, '', '', '', body FROM posthorn.events WHERE id = $2`, int64(late), int64(first)); err != nil {
		t.Fatal(err)
	}
	soon := publish()
	ids, held := read(t, s, tenant, page.Next)
	if len(ids) != 0 || !held.Unsettled {
		t.Fatalf("%v is shown before what may still come, unsettled %v", ids, held.Unsettled)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids, page = read(t, s, tenant, held.Next)
	if len(ids) != 2 || ids[0] != late || ids[1] != soon || page.Unsettled {
		t.Errorf("%v, want %v %v", ids, late, soon)
	}
	if ids, _ = read(t, s, tenant, page.Next); len(ids) != 0 {
		t.Errorf("%v is shown twice", ids)
	}
}

// The database was restored into a cluster whose transactions have lower numbers.
func TestStreamGoesOnInAnotherCluster(t *testing.T) {
	s, url, tenant, publish := streamWorld(t)
	first, second := publish(), publish()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `UPDATE posthorn.events SET tx = tx + 1000000000`); err != nil {
		t.Fatal(err)
	}
	var place store.StreamPlace
	if err := conn.QueryRow(t.Context(), `SELECT tx, id FROM posthorn.events WHERE id = $1`, int64(first)).Scan(&place.Order, (*int64)(&place.ID)); err != nil {
		t.Fatal(err)
	}
	s = open(t, postgres.Options{URL: url, Role: postgres.Serve, Now: time.Now})
	ids, page := read(t, s, tenant, place)
	if len(ids) != 1 || ids[0] != second {
		t.Errorf("%v, want %v", ids, second)
	}
	if ids, _ = read(t, s, tenant, page.Next); len(ids) != 0 {
		t.Errorf("%v is shown twice", ids)
	}
}
