package cli_test

import (
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
)

// service starts the service and returns clients of it.
func service(t *testing.T) (s *server, acme, platform *client.Client) {
	t.Helper()
	s, err := startServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	connect := func(token string) *client.Client {
		c, err := client.New(client.Config{Server: s.URL, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return s, connect(s.Token), connect(s.Admin)
}

func status(err error) int {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Status
	}
	return 0
}

// ids gathers a list; an id that comes twice fails the test.
func ids[T any](t *testing.T, list iter.Seq2[*T, error], id func(*T) string) []string {
	t.Helper()
	var all []string
	seen := map[string]bool{}
	for item, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		if seen[id(item)] {
			t.Errorf("%s comes twice", id(item))
		}
		seen[id(item)] = true
		all = append(all, id(item))
	}
	return all
}

func TestTheClientReadsWholeListsOfTheService(t *testing.T) {
	s, acme, platform := service(t)
	ctx := t.Context()
	const endpoints, events = 260, 130 // more than a page of each
	for i := range endpoints {
		e := client.NewEndpoint{URL: fmt.Sprintf("%s/%d", s.Receiver, i), Events: []string{"assignments.created"}}
		if i == 0 {
			e.Events = []string{"cases.*"}
		}
		if _, err := acme.CreateEndpoint(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(t, acme.Endpoints(ctx), func(e *client.Endpoint) string { return e.ID }); len(got) != endpoints {
		t.Errorf("%d of %d endpoints are listed", len(got), endpoints)
	}
	batch := make([]client.Event, events)
	for i := range batch {
		batch[i] = client.Event{Type: "cases.updated", Data: fmt.Appendf(nil, `{"n":%d}`, i)}
	}
	accepted, err := acme.SendBatch(ctx, batch)
	if err != nil || len(accepted) != events || accepted[0].Deliveries != 1 {
		t.Fatalf("%d of %d events are accepted, %v", len(accepted), events, err)
	}
	got := ids(t, acme.Events(ctx, client.EventFilter{Type: "cases.*", PageSize: 50}), func(e *client.Published) string { return e.ID })
	if len(got) != events || got[0] != accepted[events-1].ID {
		t.Errorf("%d of %d events are listed, or not the newest first", len(got), events)
	}
	if got := ids(t, acme.Deliveries(ctx, client.DeliveryFilter{PageSize: 50}), func(d *client.Delivery) string { return d.ID }); len(got) != events {
		t.Errorf("%d of %d deliveries are listed", len(got), events)
	}
	if got := ids(t, acme.Events(ctx, client.EventFilter{Until: time.Now().Add(-time.Hour)}), func(e *client.Published) string { return e.ID }); len(got) != 0 {
		t.Errorf("%d events are older than the service", len(got))
	}
	if got := ids(t, acme.EventTypes(ctx), func(e *client.EventType) string { return e.Name }); len(got) < 20 {
		t.Errorf("the catalogue has %d types", len(got))
	}
	if got := ids(t, platform.Tokens(ctx), func(tok *client.Token) string { return tok.ID }); len(got) != 2 {
		t.Errorf("%d tokens are listed", len(got))
	}
	if got := ids(t, platform.Tenants(ctx), func(ten *client.Tenant) string { return ten.Name }); len(got) != 1 || got[0] != "acme" {
		t.Errorf("the tenants are %v", got)
	}
}

func TestTheClientAndTheServiceAgree(t *testing.T) {
	s, acme, platform := service(t)
	ctx := t.Context()
	e, err := acme.CreateEndpoint(ctx, client.NewEndpoint{URL: s.Receiver, Events: []string{"cases.*"}})
	if err != nil || e.Secret == "" || e.ETag == "" {
		t.Fatalf("%+v, %v", e, err)
	}
	paused, text := "paused", "Production"
	changed, err := acme.UpdateEndpoint(ctx, e.ID, client.EndpointChange{Status: &paused, Description: &text, IfMatch: e.ETag})
	if err != nil || changed.Status != "paused" || changed.Description != text || changed.Secret != "" || changed.ETag == e.ETag {
		t.Errorf("%+v, %v", changed, err)
	}
	if _, err := acme.UpdateEndpoint(ctx, e.ID, client.EndpointChange{Description: &text, IfMatch: e.ETag}); status(err) != 412 {
		t.Errorf("an old ETag: %v", err)
	}
	h, err := acme.EndpointHealth(ctx, e.ID)
	if err != nil || h.Condition != "paused" || h.Reason != "user" || h.Since.IsZero() || !h.NextAttemptAt.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
	if err := acme.DeleteEndpoint(ctx, e.ID, changed.ETag); err != nil {
		t.Error(err)
	}
	if err := acme.DeleteEndpoint(ctx, e.ID, ""); status(err) != 404 {
		t.Errorf("deleting twice: %v", err)
	}
	data := `{ "big": 1152921504606846977, "slash": "\/" }`
	if _, err := acme.Send(ctx, client.Event{Type: "cases.updated", ID: "k-1", Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
	if got, err := acme.Event(ctx, "k-1"); err != nil || string(got.Data) != data || got.DeliveryLog == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := acme.Send(ctx, client.Event{Type: "cases.updated", ID: "k-1", Data: []byte(`{}`)}); status(err) != 409 {
		t.Errorf("an id with other content: %v", err)
	}

	if st, err := acme.Stats(ctx, time.Time{}); err != nil || len(st.Series) != 25 || st.SlotSeconds != 3600 || st.SuccessRate != nil || st.Latency.P50.EstimateMS != nil {
		t.Errorf("%+v, %v", st, err)
	}
	keyed := client.WithIdempotencyKey(ctx, "k-2")
	one, err1 := acme.CreateEndpoint(keyed, client.NewEndpoint{URL: s.Receiver, Events: []string{"cases.*"}})
	two, err2 := acme.CreateEndpoint(keyed, client.NewEndpoint{URL: s.Receiver, Events: []string{"cases.*"}})
	if err1 != nil || err2 != nil || one.ID != two.ID || one.Secret != two.Secret {
		t.Errorf("one key made %v and %v, %v, %v", one, two, err1, err2)
	}

	if _, err := platform.CreateTenant(ctx, "globex"); err != nil {
		t.Error(err)
	}
	if _, err := platform.CreateTenant(ctx, "globex"); status(err) != 409 {
		t.Errorf("a tenant twice: %v", err)
	}
	ten, err := platform.SuspendTenant(ctx, "globex")
	if err != nil || !ten.Suspended || ten.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", ten, err)
	}
	if ten, err = platform.ResumeTenant(ctx, "globex"); err != nil || ten.Suspended {
		t.Errorf("%+v, %v", ten, err)
	}
	tok, err := platform.CreateToken(ctx, client.NewToken{Tenant: "globex", Name: "ci", Scopes: []string{"webhooks:read"}, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil || tok.Text == "" || tok.Tenant != "globex" || tok.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", tok, err)
	}
	if err := platform.DeleteToken(ctx, tok.ID); err != nil {
		t.Error(err)
	}
	if err := platform.DeleteTenant(ctx, "globex"); err != nil {
		t.Error(err)
	}
	if _, err := platform.Tenant(ctx, "globex"); status(err) != 404 {
		t.Errorf("a deleted tenant: %v", err)
	}
	if _, err := acme.PauseSending(ctx); status(err) != 403 {
		t.Errorf("a tenant pulls the brake: %v", err)
	}
	if off, err := platform.PauseSending(ctx); err != nil || off.Sending {
		t.Errorf("%+v, %v", off, err)
	}
	if on, err := platform.ResumeSending(ctx); err != nil || !on.Sending {
		t.Errorf("%+v, %v", on, err)
	}
}
