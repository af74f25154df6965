package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

func TestPublishAnEvent(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	w.endpoint("acme", strings.Replace(validEndpoint, `"cases.*",`, "", 1))
	w.endpoint("other", validEndpoint)
	got := w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{"case_id":590}}`).want(202)
	id := got.text("data.id")
	if _, ok := posthorn.ParseID("evt_", id); !ok {
		t.Errorf("id %q", id)
	}
	want := `{"data":{"id":"` + id + `","type":"cases.updated","timestamp":"2026-04-29T09:10:00.000Z","deliveries":1}}`
	if got.body != want || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s, want %s", got.body, want)
	}
	given := w.do("acme", "POST", "/events", `{"id":"case-590_1","type":"assignments.created","timestamp":"2026-04-29T11:00:00.1239+02:00","data":{}}`).want(202)
	if want := `{"data":{"id":"case-590_1","type":"assignments.created","timestamp":"2026-04-29T09:00:00.123Z","deliveries":2}}`; given.body != want {
		t.Errorf("%s, want %s", given.body, want)
	}
}

func TestEventsCanBeMarkedAsTests(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	for value, want := range map[string]posthorn.EventKind{"true": posthorn.EventTest, "false": posthorn.EventNormal} {
		id := w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).with("Posthorn-Test", value).do().want(202).text("data.id")
		e, err := w.store.EventByRef(t.Context(), w.tenant("acme").ID, id)
		if err != nil || e.Kind != want {
			t.Errorf("Posthorn-Test: %s gives kind %d, %v; want %d", value, e.Kind, err, want)
		}
	}
	w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).with("Posthorn-Test", "yes").do().want(400)
}

// What is published is kept and shown as the bytes that came in.
func TestDataKeepsItsBytes(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	data := "{ \"amount\" : 1.0, \"big\":12345678901234567890123, \"text\":\"\\u003c é \\/\", \"e\":1E+2,\n\t\"deep\":[ {} ] }"
	id := w.do("acme", "POST", "/events", `{"data":`+data+`,"type":"cases.updated"}`).want(202).text("data.id")
	got := w.do("acme", "GET", "/events/"+id, "").want(200)
	head := `{"data":{"id":"` + id + `","type":"cases.updated","timestamp":"2026-04-29T09:10:00.000Z","accepted_at":"2026-04-29T09:10:00.000Z",` +
		`"deliver_at":null,"deliveries":1,"source":null,"subject":null,"source_id":null,"payload_erased_at":null,"payload_state":"kept","data":`
	if !strings.HasPrefix(got.body, head+data+`,"delivery_log":[{"id":"dlv_`) {
		t.Errorf("got %s\nwant %s…", got.body, head+data)
	}
	if got.text("data.delivery_log.0.event") != id {
		t.Errorf("the log is another event's: %s", got.body)
	}
}

func TestFaultsOfAnEvent(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	for _, c := range []struct {
		body     string
		status   int
		pointers []string
	}{
		{`{}`, 422, []string{"/type", "/data"}},
		{`{"type":"cases.updated","data":[]}`, 422, []string{"/data"}},
		{`{"type":"cases.upated","data":{},"more":1}`, 422, []string{"/more", "/type"}},
		{`{"type":"cases.*","data":{}}`, 422, []string{"/type"}},
		{`{"type":"webhooks.ping","data":{}}`, 422, []string{"/type"}},
		{`{"type":"cases.updated","data":{},"id":"evt_1"}`, 422, []string{"/id"}},
		{`{"type":"cases.updated","data":{},"id":"a.b"}`, 422, []string{"/id"}},
		{`{"type":"cases.updated","data":{},"timestamp":"yesterday","deliver_at":7}`, 422, []string{"/timestamp", "/deliver_at"}},
		{`{"type":"cases.updated","data":{},"timestamp":"2026-05-01T09:10:01Z"}`, 422, []string{"/timestamp"}},
		{`{"type":"cases.updated","data":{},"deliver_at":"2026-05-20T00:00:00Z"}`, 422, []string{"/deliver_at"}},
		{`{"type":"cases.updated","data":{"a":1,"a":2}}`, 400, []string{"/data/a"}},
		{`{"type":"cases.updated","data":{}} x`, 400, nil},
		{`{"type":"cases.updated","data":{"a":` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `}}`, 400, nil},
		{`{"type":"cases.updated","data":{"a":"` + strings.Repeat("x", 256<<10) + `"}}`, 413, nil},
		{`{"type":"cases.updated","data":{"a":"` + strings.Repeat("x", 300<<10) + `"}}`, 413, nil},
	} {
		got := w.do("acme", "POST", "/events", c.body).want(c.status)
		if c.pointers != nil {
			got.faults(c.status, c.pointers...)
		}
	}
	w.as("acme", "POST", "/events", zipped(`{"type":"cases.updated","data":{}}`)).with("Content-Encoding", "gzip").do().faults(415)
	w.do("acme", "GET", "/events", "").want(200).says(`{"data":[],"next_cursor":null}`)
	w.do("acme", "GET", "/deliveries", "").want(200).says(`{"data":[],"next_cursor":null}`)
}

func TestAnEventsIDMakesPublishingIdempotent(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	body := `{"id":"e1","type":"cases.updated","data":{"v":1}}`
	first := w.do("acme", "POST", "/events", body).want(202)
	w.pass(time.Hour)
	w.endpoint("acme", validEndpoint)
	if again := w.do("acme", "POST", "/events", body).want(202); again.body != first.body {
		t.Errorf("first %s, again %s", first.body, again.body)
	}
	w.do("acme", "POST", "/events", strings.Replace(body, `"v":1`, `"v":2`, 1)).faults(409, "/id")
	w.do("acme", "POST", "/events/batch", `{"events":[`+body+`,`+strings.Replace(body, "e1", "e2", 1)+`]}`).want(202).says(`"id":"e2"`)
	w.do("other", "POST", "/events", strings.Replace(body, `"v":1`, `"v":2`, 1)).want(202)
	if ids := w.do("acme", "GET", "/events", "").want(200).ids(); !cmp.Equal(ids, []string{"e2", "e1"}) {
		t.Errorf("events %v", ids)
	}
}

func TestPublishABatch(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	list := `{"events":[{"id":"a","type":"cases.created","data":{"n":1}},{"id":"b","type":"cases.closed","data":{"n":2}},{"id":"a","type":"cases.created","data":{"n":1}}]}`
	want := `{"data":[{"id":"a","type":"cases.created","timestamp":"2026-04-29T09:10:00.000Z","deliveries":1},` +
		`{"id":"b","type":"cases.closed","timestamp":"2026-04-29T09:10:00.000Z","deliveries":1},` +
		`{"id":"a","type":"cases.created","timestamp":"2026-04-29T09:10:00.000Z","deliveries":1}]}`
	if got := w.do("acme", "POST", "/events/batch", list).want(202); got.body != want {
		t.Errorf("got %s\nwant %s", got.body, want)
	}
	lines := "{\"id\":\"c\",\"type\":\"cases.created\",\"data\":{}}\n\n{\"id\":\"d\",\"type\":\"cases.closed\",\"data\":{}}\r\n"
	w.as("acme", "POST", "/events/batch", lines).with("Content-Type", "application/x-ndjson").do().want(202).says(`"id":"c"`).says(`"id":"d"`)
	if ids := w.do("acme", "GET", "/events", "").want(200).ids(); !cmp.Equal(ids, []string{"d", "c", "b", "a"}) {
		t.Errorf("events %v", ids)
	}
}

// A batch is all or nothing, and every fault is told with its place.
func TestFaultsOfABatch(t *testing.T) {
	w := newWorld(t)
	const good = `{"type":"cases.created","data":{}}`
	w.do("acme", "POST", "/events/batch", `{"events":[`+good+`,{"type":"no.such","data":{}},{"data":1,"type":"cases.closed","x":0}]}`).
		faults(422, "/events/1/type", "/events/2/data", "/events/2/x")
	w.as("acme", "POST", "/events/batch", good+"\n{\"type\":\"no.such\"}\n").with("Content-Type", "application/x-ndjson").do().
		faults(422, "/events/1/data", "/events/1/type")
	w.as("acme", "POST", "/events/batch", good+"\n{").with("Content-Type", "application/x-ndjson").do().want(400)
	w.do("acme", "POST", "/events/batch", `{"events":[]}`).want(422)
	w.do("acme", "POST", "/events/batch", `{"events":[`+strings.Repeat(good+",", 1000)+good+`]}`).want(422)
	w.do("acme", "POST", "/events/batch", `{"events":[{"id":"x","type":"cases.created","data":{"n":1}},{"id":"x","type":"cases.created","data":{"n":2}}]}`).
		faults(409, "/events/1/id")
	w.do("acme", "POST", "/events/batch", `{"events":[`+good+`],"pad":"`+strings.Repeat("x", 8<<20)+`"}`).faults(413)
	w.do("acme", "GET", "/events", "").want(200).says(`{"data":[],"next_cursor":null}`)
}

func TestWhoseEventItIs(t *testing.T) {
	w := newWorld(t)
	event := func(tenant string) string {
		if tenant == "" {
			return `{"type":"cases.updated","data":{}}`
		}
		return `{"type":"cases.updated","tenant":"` + tenant + `","data":{}}`
	}
	w.do("acme", "POST", "/events", event("acme")).want(202)
	w.do("acme", "POST", "/events", event("other")).faults(403)
	w.do("acme", "POST", "/events", event("nobody")).faults(403)
	w.do("acme", "POST", "/events/batch", `{"events":[`+event("")+`,`+event("other")+`]}`).faults(403)
	w.do("platform", "POST", "/events", event("other")).want(202)
	w.do("platform", "POST", "/events", event("")).faults(422, "/tenant")
	w.do("platform", "POST", "/events", event("nobody")).faults(422, "/tenant")
	w.do("platform", "POST", "/events", `{"type":"cases.updated","tenant":"../acme","data":{}}`).faults(422, "/tenant")
	w.as("platform", "POST", "/events", event("")).with(tenantHeader, "other").do().want(202)
	w.as("platform", "POST", "/events", event("acme")).with(tenantHeader, "other").do().faults(422, "/tenant")
	w.do("platform", "POST", "/events/batch", `{"events":[`+event("acme")+`,`+event("other")+`]}`).faults(422, "/events/1/tenant")
	w.do("platform", "POST", "/events/batch", `{"events":[`+event("acme")+`,`+event("")+`]}`).want(202) // one named it for all
	w.do("platform", "POST", "/events/batch", `{"events":[`+event("")+`,`+event("")+`]}`).faults(422, "/events/0/tenant", "/events/1/tenant")
	for who, n := range map[string]int{"acme": 3, "other": 2} {
		if ids := w.do(who, "GET", "/events", "").want(200).ids(); len(ids) != n {
			t.Errorf("%s has %d events, want %d", who, len(ids), n)
		}
	}
}

func TestASuspendedTenantMayNotPublish(t *testing.T) {
	w := newWorld(t)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).want(202)
	w.do("platform", "POST", "/tenants/acme/suspend", "").want(200).says(`"suspended":true`)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).faults(403).says("suspended")
	w.do("platform", "POST", "/events", `{"type":"cases.updated","tenant":"acme","data":{}}`).faults(403)
	w.do("acme", "GET", "/events", "").want(200)
	w.do("platform", "POST", "/tenants/acme/resume", "{}").want(200).says(`"suspended":false`)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).want(202)
}

// refusing is a publisher that cannot.
type refusing struct {
	Publisher
	err error
}

func (r refusing) ParseEvent([]byte) (publish.Event, error) { return publish.Event{}, r.err }

func TestWhatPassesIsSaidToPass(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{store.ErrOverloaded, 503, "More is waiting"}, {store.ErrFull, 503, "disk space"},
		{store.ErrUnavailable, 503, "store"}, {store.ErrClosed, 503, "store"},
		{context.Canceled, 503, "The request was broken off"}, {context.DeadlineExceeded, 503, "took too long"},
		{fmt.Errorf("deep inside: %w", store.ErrFull), 503, "disk space"}, {fmt.Errorf("disk sda"), 500, "on our side"},
		{&posthorn.Error{Code: posthorn.RateLimited, Message: "m", RetryAfter: time.Second}, 429, "m"},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Publish = refusing{cfg.Publish, c.err} })
		got := w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).faults(c.status)
		if (got.header.Get("Retry-After") == "") != (c.status == 500) {
			t.Errorf("%v: Retry-After %q", c.err, got.header.Get("Retry-After"))
		}
		if !strings.Contains(got.body, c.says) {
			t.Errorf("%v is answered %s", c.err, got.body)
		}
		if strings.Contains(got.body, "sda") || strings.Contains(got.body, "deep") {
			t.Errorf("%v is shown: %s", c.err, got.body)
		}
	}
	w := newWorld(t, func(cfg *Config) { cfg.Publish = panicking{cfg.Publish} })
	got := w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).faults(500)
	if strings.Contains(got.body, "boom") || !strings.Contains(w.log.String(), "boom") {
		t.Errorf("a panic: %s, log %s", got.body, w.log)
	}
}

type panicking struct{ Publisher }

func (panicking) ParseEvent([]byte) (publish.Event, error) { panic("boom") }

func BenchmarkPublish(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.Publish = instant{c.Publish}; c.Log = nil })
	body := `{"type":"cases.updated","data":{"case_id":590,"text":"` + strings.Repeat("x", 900) + `"}}`
	b.ReportAllocs()
	for b.Loop() {
		if got := w.do("acme", "POST", "/events", body); got.status != http.StatusAccepted {
			b.Fatal(got.body)
		}
	}
}

// instant accepts without a store.
type instant struct{ Publisher }

func (instant) Publish(_ context.Context, _ posthorn.Tenant, events []publish.Event, _ func(int) string, _ *store.Once, _ func([]publish.Accepted) []byte) ([]publish.Accepted, error) {
	return []publish.Accepted{{Ref: "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", Type: events[0].Type, Timestamp: began}}, nil
}

// counted counts the look-ups of tenants.
type counted struct {
	Store
	n *int
}

func (c counted) TenantByName(ctx context.Context, name string) (posthorn.Tenant, error) {
	*c.n++
	return c.Store.TenantByName(ctx, name)
}

// A platform's token publishes for a tenant without a read for each event, and
// a change of the tenant is felt at once.
func TestAPlatformsTenantsAreRemembered(t *testing.T) {
	n := 0
	w := newWorld(t, func(c *Config) { c.Store = counted{c.Store, &n} })
	publish := func() *result {
		return w.do("platform", "POST", "/events", `{"type":"cases.updated","tenant":"acme","data":{}}`)
	}
	for range 10 {
		publish().want(202)
	}
	if n != 1 {
		t.Errorf("%d look-ups for 10 events", n)
	}
	w.do("platform", "POST", "/tenants/acme/suspend", "").want(200)
	publish().faults(403)
	w.do("platform", "POST", "/tenants/acme/resume", "").want(200)
	publish().want(202)
	w.do("platform", "DELETE", "/tenants/acme", "").want(204)
	publish().faults(422, "/tenant")
	w.do("platform", "POST", "/tenants", `{"name":"acme"}`).want(201)
	publish().want(202)
}
