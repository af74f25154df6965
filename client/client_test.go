package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/client"
)

const token = "pht_test"

// connect returns a client of a server that answers with handle.
func connect(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return newClient(t, client.Config{Server: server.URL, Token: token, HTTP: server.Client()})
}

func newClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// endpointBody is the reference's answer to POST /endpoints.
const endpointBody = `{
"data": {
"id": "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
"url": "https://partner.example.com/webhooks/xpath",
"description": "Partner production endpoint",
"events": ["cases.*", "assignments.*"],
"status": "active",
"secret": "whsec_...",
"created_at": "2026-04-29T09:10:00Z",
"updated_at": "2026-04-29T09:10:00Z"
}
}`

func TestCreateEndpointIsTheReferencesRequest(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := `{"url":"https://partner.example.com/webhooks/xpath","events":["cases.*","assignments.*"],"description":"Partner production endpoint"}`
		if got := r.Method + " " + r.RequestURI; got != "POST /v2.3/webhooks/endpoints" || string(body) != want {
			t.Errorf("got %s %s", got, body)
		}
		for name, want := range map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json", "Accept": "application/json"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s is %q", name, got)
			}
		}
		if len(r.Header.Get("Idempotency-Key")) < 20 {
			t.Error("the POST has no Idempotency-Key")
		}
		w.Header().Set("ETag", `"1"`)
		answer(w, 201, endpointBody)
	})
	e, err := c.CreateEndpoint(t.Context(), client.NewEndpoint{
		URL: "https://partner.example.com/webhooks/xpath", Events: []string{"cases.*", "assignments.*"}, Description: "Partner production endpoint",
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW" || e.Secret != "whsec_..." || e.ETag != `"1"` || !e.CreatedAt.Equal(time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)) {
		t.Errorf("got %+v", e)
	}
	if !strings.Contains(string(e.JSON()), `"secret": "whsec_..."`) {
		t.Errorf("the server's JSON is not kept: %s", e.JSON())
	}
}

func TestUpdateSendsOnlyWhatChanges(t *testing.T) {
	empty, paused := "", "paused"
	for _, tc := range []struct {
		change client.EndpointChange
		body   string
	}{
		{client.EndpointChange{Status: &paused, Events: []string{"cases.*"}}, `{"events":["cases.*"],"status":"paused"}`},
		{client.EndpointChange{Description: &empty}, `{"description":""}`},
		{client.EndpointChange{IfMatch: `"7"`}, `{}`},
	} {
		c := connect(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Method != "PATCH" || string(body) != tc.body || r.Header.Get("If-Match") != tc.change.IfMatch {
				t.Errorf("got %s %s, If-Match %s", r.Method, body, r.Header.Get("If-Match"))
			}
			answer(w, 200, endpointBody)
		})
		if _, err := c.UpdateEndpoint(t.Context(), "wh_1", tc.change); err != nil {
			t.Error(err)
		}
	}
}

func TestDataGoesOutByteForByte(t *testing.T) {
	const data = "{ \"big\": 1152921504606846977,\n  \"slash\": \"\\/\", \"u\": \"\\u00e9\" }"
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := `{"type":"cases.updated","id":"k-1","tenant":"acme","timestamp":"2026-04-29T09:10:00Z","data":` + data + `}`
		if string(body) != want {
			t.Errorf("got  %s\nwant %s", body, want)
		}
		answer(w, 202, `{"data":{"id":"k-1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.000Z","deliveries":2}}`)
	})
	a, err := c.Send(t.Context(), client.Event{
		Type: "cases.updated", ID: "k-1", Tenant: "acme", Data: []byte(data),
		Timestamp: time.Date(2026, 4, 29, 11, 10, 0, 0, time.FixedZone("", 7200)),
	})
	if err != nil || a.Deliveries != 2 {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestDataCannotForgeMembers(t *testing.T) {
	c := connect(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	for _, data := range []string{"", "null", "[]", `{"a":1},"tenant":"other"`, `{"a":1}}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}"} {
		if _, err := c.Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(data)}); err == nil {
			t.Errorf("%s is sent", data)
		}
		if _, err := c.SendBatch(t.Context(), []client.Event{{Type: "cases.updated", Data: []byte(data)}}); err == nil {
			t.Errorf("%s is sent in a batch", data)
		}
	}
}

func TestBatchAnswersInOrder(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != `{"events":[{"type":"a","data":{"n":1}},{"type":"b","data":{}}]}` {
			t.Errorf("got %s", body)
		}
		answer(w, 202, `{"data":[{"id":"evt_1","type":"a","timestamp":"2026-04-29T09:10:00.000Z","deliveries":1},{"id":"evt_2","type":"b","timestamp":"2026-04-29T09:10:00.000Z","deliveries":0}]}`)
	})
	all, err := c.SendBatch(t.Context(), []client.Event{{Type: "a", Data: []byte(`{"n":1}`)}, {Type: "b", Data: []byte(`{}`)}})
	if err != nil || len(all) != 2 || all[0].ID != "evt_1" || all[1].ID != "evt_2" {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestListsAskForPagesAsNeeded(t *testing.T) {
	var asked []string
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("cursor"))
		switch r.URL.Query().Get("cursor") {
		case "":
			if got := r.URL.Query(); got.Get("state") != "failed" || got.Get("limit") != "2" || got.Get("since") != "2026-04-29T09:10:00Z" || got.Has("until") {
				t.Errorf("the query is %s", got.Encode())
			}
			answer(w, 200, `{"data":[{"id":"dlv_3"},{"id":"dlv_2"}],"next_cursor":"a b"}`)
		case "a b": // a page may be empty and still go on
			answer(w, 200, `{"data":[],"next_cursor":"c"}`)
		default:
			answer(w, 200, `{"data":[{"id":"dlv_1","next_attempt_at":null,"reason":null,"new_member":1}],"next_cursor":null}`)
		}
	})
	filter := client.DeliveryFilter{State: "failed", Since: time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC), PageSize: 2}
	var got []string
	for d, err := range c.Deliveries(t.Context(), filter) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.ID)
	}
	if diff := cmp.Diff([]string{"dlv_3", "dlv_2", "dlv_1"}, got); diff != "" {
		t.Error(diff)
	}
	asked = nil
	for range c.Deliveries(t.Context(), filter) {
		break
	}
	if len(asked) != 1 {
		t.Errorf("a list that was left asked for %d pages", len(asked))
	}
}

func TestEndpointPagesFollowTheLinksCursorOnly(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			w.Header().Set("Link", `<https://evil.example/steal?limit=250&cursor=x%2By>; rel="next"`)
			answer(w, 200, `{"data":[{"id":"wh_2"}]}`)
			return
		}
		if got := r.URL.Query().Get("cursor"); got != "x+y" {
			t.Errorf("the cursor is %q", got)
		}
		answer(w, 200, `{"data":[{"id":"wh_1"}]}`)
	})
	var got []string
	for e, err := range c.Endpoints(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID)
	}
	if diff := cmp.Diff([]string{"wh_2", "wh_1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEventHasItsBytesAndDeliveries(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/v2.3/webhooks/events/a%2Fb" {
			t.Errorf("the path is %s", r.URL.EscapedPath())
		}
		answer(w, 200, `{"data":{"id":"a/b","type":"t","timestamp":"2026-04-29T09:10:00.123Z","accepted_at":"2026-04-29T09:10:00.123Z","deliver_at":null,"deliveries":1,"source":null,"subject":null,"data":{ "n": 1152921504606846977 },
			"delivery_log":[{"id":"dlv_1","state":"failed","attempts_made":1,"attempts":[{"number":1,"at":"2026-04-29T09:10:00.123Z","duration_ms":1.5,"timings":{"dns_ms":0,"connect_ms":1,"tls_ms":0,"first_byte_ms":0.5},"status":null,"class":"timeout","explanation":"No answer.","response_headers":{},"response_body":"","response_body_note":null,"manual":false}]}]}}`)
	})
	e, err := c.Event(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Data) != `{ "n": 1152921504606846977 }` || !e.DeliverAt.IsZero() {
		t.Errorf("got %s, %v", e.Data, e.DeliverAt)
	}
	d := e.DeliveryLog[0]
	if d.ID != "dlv_1" || !d.Final() || d.Attempts[0].Class != "timeout" || d.Attempts[0].Status != 0 || d.Attempts[0].DurationMS != 1.5 {
		t.Errorf("got %+v", d)
	}
}

func TestErasedDataIsNil(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, `{"data":{"id":"e","type":"t","data":null,"delivery_log":[]}}`)
	})
	if e, err := c.Event(t.Context(), "e"); err != nil || e.Data != nil {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestProblemsAreErrors(t *testing.T) {
	c := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(422)
		io.WriteString(w, `{"type":"about:blank","title":"Invalid","status":422,"detail":"the body has faults","errors":[{"pointer":"/events/0","detail":"unknown type"},{"pointer":"/url","detail":"is not https"}],"request_id":"req_1"}`)
	})
	_, err := c.Endpoint(t.Context(), "wh_1")
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	want := &client.Error{Status: 422, Type: "about:blank", Title: "Invalid", Detail: "the body has faults", RequestID: "req_1",
		Faults: []client.Fault{{Pointer: "/events/0", Detail: "unknown type"}, {Pointer: "/url", Detail: "is not https"}}}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if e.Error() != "the body has faults: /events/0: unknown type; /url: is not https" {
		t.Error(e.Error())
	}
}

func TestStrangersAnswersAreErrors(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"a proxy's page": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Forbidden</h1>", http.StatusForbidden)
		},
		"a login page": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"other JSON":   func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `{"ok":true}`) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
		},
		"an empty answer": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) },
	} {
		_, err := connect(t, handle).Endpoint(t.Context(), "wh_1")
		if e, ok := errors.AsType[*client.Error](err); !ok || !strings.Contains(e.Error(), "is the server's URL right?") {
			t.Errorf("%s: %v", name, err)
		}
		for _, err := range connect(t, handle).Events(t.Context(), client.EventFilter{}) {
			if err == nil {
				t.Errorf("%s: a list without error", name)
			}
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for _, cfg := range []client.Config{
		{}, {Server: "hooks.example.com", Token: token}, {Server: "ftp://x", Token: token}, {Server: "https://u:p@x", Token: token},
		{Server: "https://x"}, {Server: "https://x", Token: "a b"}, {Server: "https://x", Token: "a\nb"}, {Server: "https://x", Token: token, Tenant: "a/b"},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		} else if cfg.Token != "" && strings.Contains(err.Error(), cfg.Token) {
			t.Errorf("the error holds the token: %v", err)
		}
	}
	for _, server := range []string{"https://x/", "https://x/v2.3/webhooks", "https://x/prefix/"} {
		if _, err := client.New(client.Config{Server: server, Token: token}); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
}

func TestAdministration(t *testing.T) {
	var got []string
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, strings.TrimSpace(r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2.3/webhooks")+" "+string(body)))
		switch {
		case r.Method == "DELETE":
			w.WriteHeader(204)
		case strings.HasPrefix(r.URL.Path, "/v2.3/webhooks/sending"):
			answer(w, 200, `{"data":{"sending":true}}`)
		default:
			answer(w, 200, `{"data":{"name":"acme","created_at":"2026-04-29T09:10:00.000Z","suspended":true,"token":"pht_x","tenant":null,"expires_at":null}}`)
		}
	})
	ctx := t.Context()
	var faults []error
	note := func(err error) { faults = append(faults, err) }
	_, err := c.CreateTenant(ctx, "acme")
	note(err)
	tenant, err := c.SuspendTenant(ctx, "acme")
	note(err)
	_, err = c.ResumeTenant(ctx, "acme")
	note(err)
	_, err = c.Tenant(ctx, "acme")
	note(err)
	note(c.DeleteTenant(ctx, "acme"))
	made, err := c.CreateToken(ctx, client.NewToken{Tenant: "acme", Scopes: []string{"webhooks:read"}})
	note(err)
	note(c.DeleteToken(ctx, "tok_1"))
	sending, err := c.ResumeSending(ctx)
	note(err)
	_, err = c.PauseSending(ctx)
	note(err)
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	if !tenant.Suspended || made.Text != "pht_x" || made.Tenant != "" || !sending.Sending {
		t.Errorf("got %+v, %+v, %+v", tenant, made, sending)
	}
	want := []string{
		`POST /tenants {"name":"acme"}`, `POST /tenants/acme/suspend`, `POST /tenants/acme/resume`, `GET /tenants/acme`, `DELETE /tenants/acme`,
		`POST /tokens {"tenant":"acme","scopes":["webhooks:read"]}`, `DELETE /tokens/tok_1`, `POST /sending/resume`, `POST /sending/pause`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnErasureMayBeUnderWay(t *testing.T) {
	status := 204
	c := connect(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "DELETE" || r.URL.Path != "/v2.3/webhooks/events/e1/payload" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if status == 204 {
			w.WriteHeader(status)
			return
		}
		answer(w, status, `{"data":{"id":"e1","payload_state":"erasing"}}`)
	})
	if done, err := c.ErasePayload(t.Context(), "e1"); !done || err != nil {
		t.Error(done, err)
	}
	status = 202
	if done, err := c.ErasePayload(t.Context(), "e1"); done || err != nil {
		t.Error(done, err)
	}
}
