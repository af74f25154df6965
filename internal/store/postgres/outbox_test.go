package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestThePublishFunctionRefuses holds posthorn.publish to what docs/postgres.md
// says of it: what is wrong is refused with a SQLSTATE, and nothing is stored.
func TestThePublishFunctionRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.node(c.url)
	db, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	suspended, err := s.CreateTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, "late")
	if err == nil {
		_, err = s.SuspendTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, suspended.ID, true)
	}
	if err == nil {
		err = s.OutboxAhead(t.Context(), 15*24*time.Hour)
	}
	if err != nil {
		t.Fatal(err)
	}
	large := `{"a":"` + strings.Repeat("x", 256<<10) + `"}`
	cases := []struct{ args, code, says string }{
		{`'nobody', 'cases.updated', '{}'`, "23503", "no tenant 'nobody'"},
		{`'late', 'cases.updated', '{}'`, "42501", "suspended"},
		{`NULL, 'cases.updated', '{}'`, "22004", "must not be null"},
		{`'acme', NULL, '{}'`, "22004", "must not be null"},
		{`'acme', 'cases.updated', NULL`, "22004", "must not be null"},
		{`'acme', 'Cases Updated', '{}'`, "22023", "type must be"},
		{`'acme', 'cases..updated', '{}'`, "22023", "type must be"},
		{`'acme', '', '{}'`, "22023", "type must be"},
		{`'acme', 'webhooks.ping', '{}'`, "22023", "by Posthorn alone"},
		{`'acme', 'cases.updated', '[1]'`, "22023", "JSON object"},
		{`'acme', 'cases.updated', '"x"'`, "22023", "JSON object"},
		{`'acme', 'cases.updated', '{"a":'`, "22P02", "json"},
		{`'acme', 'cases.updated', '` + large + `'`, "54000", "at most 262144"},
		{`'acme', 'cases.updated', '{}', ''`, "22023", "id must be"},
		{`'acme', 'cases.updated', '{}', 'evt_1'`, "22023", "id must be"},
		{`'acme', 'cases.updated', '{}', 'a b'`, "22023", "id must be"},
		{`'acme', 'cases.updated', '{}', NULL, clock_timestamp() + interval '16 days'`, "22008", "15 days"},
		{`'acme', 'cases.updated', '{}', NULL, 'infinity'`, "22008", "15 days"},
		{`'acme', 'cases.updated', '{}', NULL, '9999-01-01'`, "22008", "15 days"},
	}
	for _, k := range cases {
		_, err := db.Exec(t.Context(), `SELECT posthorn.publish(`+k.args+`)`)
		got, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || got.Code != k.code || !strings.Contains(got.Message, k.says) {
			t.Errorf("%.90s: %v, want %s with %q", k.args, err, k.code, k.says)
		}
	}
	rows, err := s.OutboxWaiting(t.Context(), nil, 10)
	if err != nil || len(rows) != 0 {
		t.Errorf("%d rows were stored, %v", len(rows), err)
	}
	tally.Count(t, "posthorn.publish refuses what is wrong, with its SQLSTATE", len(cases))
}

// TestARowOfTheOutboxIsPublishedOnce has two nodes publish the same rows, and one
// that was rolled back, delayed and all kinds of bytes.
func TestARowOfTheOutboxIsPublishedOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	nodes := []interface {
		store.Publisher
		store.Outbox
		store.Endpoints
		store.Log
	}{c.node(c.url), c.node(c.url)}
	db, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	const data = `{"b": 1.50,"a":"\u00e4ä",  "c":[ ]}`
	exec(`BEGIN`)
	exec(`SELECT posthorn.publish('acme', 'cases.updated', '{"rolled":"back"}')`)
	exec(`ROLLBACK`)
	for i := range 20 {
		exec(`SELECT posthorn.publish('acme', 'cases.updated', $1, $2)`, data, fmt.Sprint("k", i))
	}
	rows, err := nodes[1].OutboxWaiting(t.Context(), nil, 100)
	if err != nil || len(rows) != 20 || string(rows[3].Data) != data || rows[3].Key != "k3" {
		t.Fatalf("%d rows wait, %v", len(rows), err)
	}
	set, err := nodes[0].EndpointSet(t.Context(), c.tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct{ err error }
	outcomes := make(chan outcome, 2*len(rows))
	for i := range rows {
		for _, n := range nodes {
			go func() {
				p := store.Publication{Tenant: c.tenant.ID, SetVersion: set.Version, At: time.Now(), BacklogLimit: 1000,
					Events: []store.NewEvent{c.event("")}, Outbox: []int64{rows[i].ID}}
				_, err := n.Publish(t.Context(), p)
				outcomes <- outcome{err}
			}()
		}
	}
	published := 0
	for range 2 * len(rows) {
		switch o := <-outcomes; {
		case o.err == nil:
			published++
		case !errors.Is(o.err, store.ErrTaken):
			t.Errorf("published with %v", o.err)
		}
	}
	events, _, err := nodes[0].Events(t.Context(), store.EventFilter{Tenant: c.tenant.ID}, store.Page{Limit: 250})
	if err != nil || len(events) != len(rows) || published != len(rows) {
		t.Errorf("%d were published and %d are stored, want %d of both; %v", published, len(events), len(rows), err)
	}
	if left, err := nodes[0].OutboxWaiting(t.Context(), nil, 100); err != nil || len(left) > 0 {
		t.Errorf("%d rows are left, %v", len(left), err)
	}
}

// TestAStalePublicationLeavesItsRows: nothing is published, nothing is lost.
func TestAStalePublicationLeavesItsRows(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.node(c.url)
	db, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	var row int64
	if err := db.QueryRow(t.Context(), `SELECT posthorn.publish('acme', 'cases.updated', '{}')`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	p := c.publication(s, "")
	p.Outbox = []int64{row}
	p.SetVersion--
	if _, err := s.Publish(t.Context(), p); !errors.Is(err, store.ErrStale) {
		t.Errorf("published with %v", err)
	}
	if err := s.OutboxRefuse(t.Context(), time.Now(), map[int64]string{row: "no"}); err != nil {
		t.Fatal(err)
	}
	p.SetVersion++
	if _, err := s.Publish(t.Context(), p); !errors.Is(err, store.ErrTaken) {
		t.Errorf("a refused row was published with %v", err)
	}
	change := store.Change{Actor: "test", At: time.Now()}
	if err := s.OutboxRetry(t.Context(), change, row); err != nil {
		t.Fatal(err)
	}
	if err := s.OutboxDrop(t.Context(), change, row); !errors.Is(err, store.ErrExists) {
		t.Errorf("a waiting row was dropped with %v", err)
	}
	if waiting, refused, oldest, err := s.OutboxCounts(t.Context(), 10); err != nil || waiting != 1 || refused != 0 || oldest.IsZero() {
		t.Errorf("%d wait, %d are refused, %v", waiting, refused, err)
	}
	if _, err := s.Publish(t.Context(), p); err != nil {
		t.Error(err)
	}
}
