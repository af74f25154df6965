package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

const day = 24 * time.Hour

// tables lists the weeks that are there, attached or not.
func tables(t *testing.T, url string) string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var all string
	if err := c.QueryRow(t.Context(), `SELECT coalesce(string_agg(relname::text, ' ' ORDER BY relname), '') FROM pg_class
		WHERE relnamespace = 'posthorn'::regnamespace AND relkind = 'r' AND relname ~ '_[0-9]{8}$'`).Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// history is a store with an endpoint, at a time of its own.
type history struct {
	*testing.T
	s   *postgres.Store
	url string
	now time.Time
	e   posthorn.Endpoint
}

func newHistory(t *testing.T) *history {
	h := &history{T: t, url: database(t), now: time.Now().UTC().Truncate(time.Second)}
	h.s = open(t, postgres.Options{URL: h.url})
	c := store.Change{Actor: "test", At: h.now}
	tenant, err := h.s.CreateTenant(t.Context(), c, "acme")
	if err != nil {
		t.Fatal(err)
	}
	h.e, err = h.s.CreateEndpoint(t.Context(), c, posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, h.now), Tenant: tenant.ID, URL: "https://example.com", Events: []posthorn.Pattern{"*"}, Status: posthorn.StatusActive,
	}, func(int64) (store.Sealed, error) { return store.Sealed{KeyID: "k", Box: []byte("b")}, nil }, 10)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *history) publish(key, data string, to ...posthorn.Endpoint) posthorn.ID {
	h.Helper()
	set, err := h.s.EndpointSet(h.Context(), h.e.Tenant)
	if err != nil {
		h.Fatal(err)
	}
	var targets []store.PublishTarget
	for _, e := range to {
		targets = append(targets, store.PublishTarget{Endpoint: e.ID})
	}
	a, err := h.s.Publish(h.Context(), store.Publication{Tenant: h.e.Tenant, SetVersion: set.Version, At: h.now, BacklogLimit: 1000, Events: []store.NewEvent{{
		Key: key, Type: "cases.updated", OccurredAt: h.now, Body: posthorn.AppendBody(nil, key, "cases.updated", h.now, []byte(data)),
		Targets: targets,
	}}})
	if err != nil {
		h.Fatal(err)
	}
	return a[0].ID
}

func TestOldWeeksAreDetachedAndDropped(t *testing.T) {
	h := newHistory(t)
	first := h.publish("k", `{"n":1}`, h.e)
	before := tables(t, h.url)
	keep := store.Retention{Events: 30 * day}
	sweep := func() {
		t.Helper()
		storetest.Sweep(t, h.s, h.now, keep)
	}
	h.now = h.now.Add(45 * day)
	sweep()
	h.now = h.now.Add(2 * time.Hour)
	sweep()
	oldest := strings.Fields(before)[0]
	eventually(t, oldest+" is dropped", func() bool { return !strings.Contains(tables(t, h.url), oldest) })
	after := tables(t, h.url)
	if !strings.Contains(after, h.now.Add(7*day).Format("200601")) {
		t.Errorf("the coming week is not there: %s", after)
	}
	if again := h.publish("k", `{"n":1}`); again <= first {
		t.Errorf("id %x after %x", again, first)
	}
}

// A detachment that was cut short is brought to its end.
func TestCutShortDetachmentIsFinished(t *testing.T) {
	h := newHistory(t)
	h.publish("", `{"n":1}`)
	oldest := strings.Fields(tables(t, h.url))[0]
	// An old snapshot holds the detachment up until its time is over.
	holder, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	for _, query := range []string{`BEGIN ISOLATION LEVEL REPEATABLE READ`, `SELECT count(*) FROM posthorn.deliveries`} {
		if _, err := holder.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	other, err := pgx.Connect(t.Context(), h.url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), `SET statement_timeout = '300ms'`); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), `ALTER TABLE posthorn.deliveries DETACH PARTITION posthorn.`+oldest+` CONCURRENTLY`, pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Fatal("the detachment was not held up: the test shows nothing")
	}
	if _, err := holder.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(45 * day)
	eventually(t, oldest+" is dropped", func() bool {
		h.now = h.now.Add(2 * time.Hour)
		storetest.Sweep(t, h.s, h.now, store.Retention{Events: 30 * day})
		return !strings.Contains(tables(t, h.url), oldest)
	})
}
