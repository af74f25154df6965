package app

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// told is a receiver of operational events.
func told(t *testing.T) (url string, bodies chan string) {
	bodies = make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
	}))
	t.Cleanup(receiver.Close)
	return receiver.URL, bodies
}

// record records a result as the engine does.
func record(t *testing.T, s store.Store, r store.Result) {
	t.Helper()
	done := make(chan error, 1)
	s.Record(r, func(rec store.Recorded, err error) {
		if err == nil && rec.Lost {
			err = errors.New("lost")
		}
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The process dies between the commit of a result that pauses the endpoint and
// the publishing of the event about it: the next start tells of it, once.
func TestAPauseBeforeACrashIsToldAfterIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	key := "POSTHORN_ENCRYPTION_KEYS=k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	s := serveStore(t, path, key)
	api := s.tenant(t, "acme")
	url, bodies := told(t)
	paused, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: url + "/paused", Events: []string{"cases.*", "webhooks.*"}, Status: "paused"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: url, Events: []string{"webhooks.endpoint.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"id":590}`)}); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	// The receiver's 410 is recorded, and nothing more is done.
	half, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: sqlite.Serve, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := half.TenantByName(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	by := store.Change{Actor: "test", At: time.Now()}
	if _, err := half.UpdateEndpoint(t.Context(), by, tenant.ID, paused.ID, 0, func(e *posthorn.Endpoint) error {
		e.Status = posthorn.StatusActive
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	e, err := half.EndpointByRef(t.Context(), tenant.ID, paused.ID)
	if err != nil {
		t.Fatal(err)
	}
	work, _, _, err := half.ClaimParked(t.Context(), e.ID, 10)
	if err != nil || len(work) != 1 {
		t.Fatal(work, err)
	}
	record(t, half, store.Result{
		ID: work[0].ID, Endpoint: e.ID, Tenant: tenant.ID, EndedAt: time.Now(), Policy: posthorn.DefaultPolicy(),
		Attempt: posthorn.Attempt{Number: 1, At: time.Now(), Class: posthorn.ClassHTTPStatus, Status: 410},
	})
	if err := half.Close(); err != nil {
		t.Fatal(err)
	}
	// A newer version noted what this one cannot tell of.
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO turns (id, type, tenant, endpoint, ref, url, at, reason, failing_since, failures, last_error)
		SELECT -n, iif(n = 1, 'webhooks.endpoint.tired', type), tenant, endpoint, ref, url, at, 'quota', failing_since, failures, last_error
		FROM turns JOIN (SELECT 1 AS n UNION ALL SELECT 2)`); err != nil {
		t.Fatal(err)
	}
	select {
	case body := <-bodies:
		t.Fatalf("told early: %s", body)
	default:
	}

	s = serveStore(t, path, key)
	select {
	case body := <-bodies:
		if !strings.Contains(body, `"type":"webhooks.endpoint.paused"`) || !strings.Contains(body, paused.ID) {
			t.Errorf("%s", body)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = serveStore(t, path, key)
	api = s.tenant(t, "acme")
	events := 0
	for e, err := range api.Events(t.Context(), client.EventFilter{Type: "webhooks.*"}) {
		if err != nil {
			t.Fatal(err)
		}
		if events++; e.Type != posthorn.TypeEndpointPaused {
			t.Error(e.Type)
		}
	}
	if events != 1 {
		t.Errorf("%d operational events, want 1", events)
	}
	var left int
	if err := db.QueryRow(`SELECT count(*) FROM turns WHERE id < 0`).Scan(&left); err != nil || left != 2 {
		t.Errorf("of a newer version's turns %d are left, %v; want both", left, err)
	}
}

// forgetful is a store that cannot take out what was told, as if the process
// died before it could.
type forgetful struct{ store.Store }

func (forgetful) ForgetTurn(context.Context, int64) error { return errors.New("killed here") }

// quietNode is a node that was not started: the test does what it would.
func quietNode(t *testing.T) *node {
	t.Helper()
	log := &proof.Output{}
	logger, flush := newLogger(log, new(loadServe(t, filepath.Join(t.TempDir(), "posthorn.db"))))
	t.Cleanup(flush)
	n, err := newNode(t.Context(), loadServe(t, filepath.Join(t.TempDir(), "posthorn.db")), logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.close() })
	return n
}

func TestFailingEndpointIsToldOfOnceThoughNothingIsInFlight(t *testing.T) {
	n := quietNode(t)
	now := time.Now().UTC()
	n.now = func() time.Time { return now }
	by := store.Change{Actor: "test", At: now}
	tenant, err := n.store.CreateTenant(t.Context(), by, "acme")
	if err != nil {
		t.Fatal(err)
	}
	seal := func(int64) (store.Sealed, error) {
		return store.Sealed{KeyID: "k1", Box: []byte{1}, CreatedAt: now}, nil
	}
	e, err := n.store.CreateEndpoint(t.Context(), by, posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, now), Tenant: tenant.ID, URL: "https://secret.example.com/path?token=x",
		Events: []posthorn.Pattern{"*", "webhooks.*"}, Status: posthorn.StatusActive, CreatedAt: now, UpdatedAt: now,
	}, seal, 10)
	if err != nil {
		t.Fatal(err)
	}
	set, err := n.store.EndpointSet(t.Context(), tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	a, err := n.store.Publish(t.Context(), store.Publication{
		Tenant: tenant.ID, SetVersion: set.Version, At: now, BacklogLimit: 10, Events: []store.NewEvent{{
			Type: "cases.closed", OccurredAt: now, Body: posthorn.AppendBody(nil, "", "cases.closed", now, []byte(`{}`)),
			Targets: []store.PublishTarget{{Endpoint: e.ID}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	record(t, n.store, store.Result{
		ID: a[0].ID + 1, Endpoint: e.ID, Tenant: tenant.ID, EndedAt: now, Policy: posthorn.Policy{},
		Attempt: posthorn.Attempt{Number: 1, At: now, Class: posthorn.ClassHTTPStatus, Status: 503},
	})
	now = now.Add(4 * 24 * time.Hour)
	real := n.store
	n.store = forgetful{real}
	for range 2 {
		if err := errors.Join(n.warn(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := n.announce(t.Context()); err == nil {
			t.Fatal("the store was to fail")
		}
	}
	n.store = real
	if err := n.announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, _, err := n.store.Events(t.Context(), store.EventFilter{Tenant: tenant.ID, Type: "webhooks.*"}, store.Page{Limit: 10})
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v; want one", len(events), err)
	}
	if left, err := n.store.Turns(t.Context(), 10); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	event, err := n.store.EventByRef(t.Context(), tenant.ID, events[0].Ref())
	if err != nil {
		t.Fatal(err)
	}
	if event.Type != posthorn.TypeEndpointFailing || event.Deliveries != 0 || !event.OccurredAt.Equal(now.Truncate(time.Millisecond)) {
		t.Errorf("%+v", event)
	}
	if strings.Contains(string(event.Body), "path") || strings.Contains(string(event.Body), "token") {
		t.Errorf("the url's path is told: %s", event.Body)
	}
	fitsCatalogue(t, event.Type, event.Data())
}

// fitsCatalogue checks that data has what the catalogue says of the type.
func fitsCatalogue(t *testing.T, name string, data []byte) {
	t.Helper()
	about, ok := catalog.Builtin().Lookup(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	var schema struct {
		Required   []string       `json:"required"`
		Properties map[string]any `json:"properties"`
	}
	var got map[string]any
	if err := errors.Join(json.Unmarshal(about.Schema, &schema), json.Unmarshal(data, &got)); err != nil {
		t.Fatal(err)
	}
	for _, name := range schema.Required {
		if _, ok := got[name]; !ok {
			t.Errorf("the data lacks %s: %s", name, data)
		}
	}
	for name := range got {
		if _, ok := schema.Properties[name]; !ok {
			t.Errorf("the catalogue knows no %s: %s", name, data)
		}
	}
}
