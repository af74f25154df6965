package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// pages reads a list to its end by next_cursor and returns all ids.
func (w *world) pages(who, path string, filters url.Values) []string {
	w.t.Helper()
	ids := []string{}
	query := url.Values{}
	for name, values := range filters {
		query[name] = values
	}
	for range 1000 {
		page := w.do(who, "GET", path+"?"+query.Encode(), "").want(200)
		ids = append(ids, page.ids()...)
		next := page.value("next_cursor")
		if next == nil {
			return ids
		}
		query.Set("cursor", next.(string))
	}
	w.t.Fatalf("%s has no end", path)
	return nil
}

func reversed(ids []string) []string {
	r := []string{}
	for i := len(ids) - 1; i >= 0; i-- {
		r = append(r, ids[i])
	}
	return r
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	var events, cases []string
	for i := range 70 {
		w.pass(time.Second)
		kind := []string{"cases.updated", "assignments.created"}[i%2]
		id := w.event("acme", kind)
		events = append(events, id)
		if i%2 == 0 {
			cases = append(cases, id)
		}
	}
	w.event("other", "cases.updated")
	for _, limit := range []string{"1", "7", "70", "250"} {
		if diff := cmp.Diff(reversed(events), w.pages("acme", "/events", url.Values{"limit": {limit}})); diff != "" {
			t.Errorf("limit %s (-want +got):\n%s", limit, diff)
		}
	}
	if n := len(w.do("acme", "GET", "/events", "").want(200).ids()); n != 50 {
		t.Errorf("%d events on a page by default, want 50", n)
	}
	if diff := cmp.Diff(reversed(cases), w.pages("acme", "/events", url.Values{"limit": {"10"}, "type": {"cases.*"}})); diff != "" {
		t.Errorf("cases.* (-want +got):\n%s", diff)
	}
	at := func(i int) string { return began.Add(time.Duration(i) * time.Second).Format(time.RFC3339) }
	if diff := cmp.Diff(reversed(events[9:19]), w.pages("acme", "/events", url.Values{"since": {at(10)}, "until": {at(20)}})); diff != "" {
		t.Errorf("since and until (-want +got):\n%s", diff)
	}
	if n := len(w.pages("acme", "/deliveries", url.Values{"limit": {"33"}})); n != 70 {
		t.Errorf("%d deliveries, want 70", n)
	}
	w.do("acme", "GET", "/deliveries?event="+events[3], "").want(200).says(`"event":"` + events[3] + `"`).says(`"next_cursor":null`)
}

func TestACursorFitsOneTenantAndOneSelection(t *testing.T) {
	w := newWorld(t)
	for _, who := range []string{"acme", "acme", "acme", "other", "other"} {
		w.event(who, "cases.updated")
	}
	cursor := w.do("acme", "GET", "/events?limit=1&type=cases.*", "").want(200).text("next_cursor")
	w.do("acme", "GET", "/events?limit=2&type=cases.*&cursor="+cursor, "").want(200) // another page size is fine
	for _, c := range []struct{ who, path string }{
		{"other", "/events?type=cases.*&cursor=" + cursor},
		{"acme", "/events?cursor=" + cursor},
		{"acme", "/events?type=cases.updated&cursor=" + cursor},
		{"acme", "/deliveries?type=cases.*&cursor=" + cursor},
		{"acme", "/events?type=cases.*&cursor=" + cursor[:len(cursor)-1]},
		{"acme", "/events?type=cases.*&cursor=" + cursor + "A"},
		{"acme", "/events?type=cases.*&cursor=" + strings.ToUpper(cursor)},
		{"acme", "/events?type=cases.*&cursor=12345"},
		{"acme", "/events?type=cases.*&cursor="},
	} {
		w.do(c.who, "GET", c.path, "").faults(400).says("cursor")
	}
	// It holds on another node, or after a restart.
	elsewhere, err := New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	w.handler = elsewhere
	w.do("acme", "GET", "/events?type=cases.*&cursor="+cursor, "").want(200)
}

func TestFaultsOfQueries(t *testing.T) {
	w := newWorld(t)
	for query, says := range map[string]string{
		"events?limit=0": "limit", "events?limit=251": "limit", "events?since=today": "since", "events?until=2026-04-29": "until",
		"events?type=Cases": "type", "events?type=": "type", "events?state=failed": "state", "events?Limit=1": "Limit",
		"deliveries?state=done": "state", "deliveries?state=": "state", "deliveries?endpoints=x": "endpoints",
		"events?since=2026-04-29T09:10:00+02:00": "%2B", "event-types?limit=x": "limit", "event-types?cursor=x": "cursor",
		"deliveries?since=x&until=y&limit=z&state=s&type=!": "type must be",
	} {
		w.do("acme", "GET", "/"+query, "").faults(400).says(says)
	}
	many := w.do("acme", "GET", "/deliveries?since=x&until=y&limit=z&state=s&type=!&more=1&event=a&event=b", "").faults(400).says(`more\" is not`).says(`event\" is there 2 times`)
	for _, name := range []string{"since", "until", "limit", "state", "type"} {
		many.says(name + " must be")
	}
	// Filters that name what is not there select nothing.
	for _, query := range []string{"endpoint=wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "endpoint=x", "event=none", "event=evt_x", "event=evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "event=a.b"} {
		if got := w.do("acme", "GET", "/deliveries?"+query, "").want(200); got.body != `{"data":[],"next_cursor":null}` {
			t.Errorf("%s: %s", query, got.body)
		}
	}
}

// record stores an attempt for a delivery, as the engine would.
func (w *world) record(d posthorn.Delivery, a posthorn.Attempt) {
	w.t.Helper()
	done := make(chan error, 1)
	policy := posthorn.DefaultPolicy()
	policy.Jitter = 0
	w.store.Record(store.Result{
		ID: d.ID, Endpoint: d.Endpoint, Tenant: d.Tenant, Tries: d.Progress.Tries, Attempt: a, EndedAt: w.now(), Policy: policy,
	}, func(r store.Recorded, err error) {
		if err == nil && r.Lost {
			err = fmt.Errorf("the result of %v was lost", d.ID)
		}
		done <- err
	})
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delivery(id string) posthorn.Delivery {
	w.t.Helper()
	parsed, ok := posthorn.ParseID("dlv_", id)
	if !ok {
		w.t.Fatalf("%q is no delivery", id)
	}
	d, err := w.store.DeliveryByID(w.t.Context(), w.tenant("acme").ID, parsed)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestADeliveryTellsItsStory(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint("acme", validEndpoint)
	event := w.event("acme", "cases.updated")
	id := w.do("acme", "GET", "/deliveries", "").want(200).text("data.0.id")
	w.do("acme", "GET", "/deliveries/"+id, "").want(200).says(`"state":"pending","reason":null,"note":null,"attempts_made":0,`).says(`"attempts":[]`)

	w.record(w.delivery(id), posthorn.Attempt{
		Number: 1, At: w.now(), Duration: 1234 * time.Microsecond, Class: posthorn.ClassHTTPStatus, Status: 503,
		Timings: posthorn.Timings{DNS: 2 * time.Millisecond, FirstByte: 500 * time.Microsecond},
		Headers: []posthorn.Header{{Name: "Content-Type", Value: "text/plain"}, {Name: "Retry-After", Value: "5"}},
		Snippet: []byte("down\xff <b>"), BodyNote: "truncated",
	})
	want := `{"data":{"id":"` + id + `","event":"` + event + `","event_type":"cases.updated","endpoint":"` + endpoint + `","state":"pending","reason":null,` +
		`"note":null,"attempts_made":1,"next_attempt_at":"2026-04-29T09:10:05.000Z","created_at":"2026-04-29T09:10:00.000Z","attempts":[{"number":1,` +
		`"at":"2026-04-29T09:10:00.000Z","duration_ms":1.234,"timings":{"dns_ms":2,"connect_ms":null,"tls_ms":null,"first_byte_ms":0.5},"status":503,` +
		`"class":"http_status","explanation":"The receiver answered 503: it failed on its side; look into its logs at this time.",` +
		`"response_headers":{"Content-Type":"text/plain","Retry-After":"5"},"response_body":"down` + "\uFFFD" + ` <b>","response_body_note":"truncated","manual":false}]}}`
	got := w.do("acme", "GET", "/deliveries/"+id, "").want(200)
	if diff := cmp.Diff(want, got.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.do("acme", "GET", "/endpoints/"+endpoint+"/health", "").want(200).
		says(`"condition":"failing","reason":null,"since":"2026-04-29T09:10:00.000Z","last_success_at":null,"last_failure_at":"2026-04-29T09:10:00.000Z",` +
			`"next_attempt_at":"2026-04-29T09:10:05.000Z","pause_at":"2026-05-04T09:10:00.000Z","waiting":1,"waiting_capped":false`)

	w.do("acme", "PATCH", "/endpoints/"+endpoint, `{"status":"paused"}`).want(200)
	w.do("acme", "GET", "/deliveries?state=held&endpoint="+endpoint, "").want(200).says(`"state":"held"`)
	w.do("acme", "GET", "/deliveries?state=pending", "").want(200).says(`{"data":[],`)
	w.do("acme", "PATCH", "/endpoints/"+endpoint, `{"status":"active"}`).want(200)

	w.pass(5 * time.Second)
	w.record(w.delivery(id), posthorn.Attempt{Number: 2, At: w.now(), Duration: time.Millisecond, Class: posthorn.ClassOK, Status: 204})
	w.do("acme", "GET", "/deliveries?state=succeeded", "").want(200).says(`"state":"succeeded"`).says(`"next_attempt_at":null`).says(`"number":2`)
	w.do("acme", "GET", "/events/"+event, "").want(200).says(`"delivery_log":[{"id":"` + id + `"`).says(`"number":2`)
	w.do("acme", "GET", "/endpoints/"+endpoint+"/health", "").want(200).
		says(`"condition":"healthy"`).says(`"last_success_at":"2026-04-29T09:10:05.000Z"`).says(`"waiting":0`)

	w.event("acme", "cases.closed")
	w.do("acme", "DELETE", "/endpoints/"+endpoint, "").want(204)
	w.do("acme", "GET", "/deliveries?state=canceled", "").want(200).says(`"state":"canceled","reason":"endpoint_deleted"`)
}

func TestHealthSaysWhatBlocksALine(t *testing.T) {
	w := newWorld(t)
	endpoint := w.endpoint("acme", validEndpoint)
	_, err := w.store.UpdateSettings(t.Context(), store.Change{Actor: "test", At: w.now()}, w.tenant("acme").ID, endpoint, 0, func(s *posthorn.Settings) error {
		s.Ordered = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.event("acme", "cases.updated")
	head := w.do("acme", "GET", "/deliveries", "").want(200).text("data.0.id")
	w.event("acme", "cases.updated")
	w.do("acme", "GET", "/endpoints/"+endpoint+"/health", "").want(200).says(`"waiting":2`).says(`"blocked_by":null`)
	w.record(w.delivery(head), posthorn.Attempt{Number: 1, At: w.now(), Class: posthorn.ClassHTTPStatus, Status: 503})
	w.do("acme", "GET", "/endpoints/"+endpoint+"/health", "").want(200).
		says(`"next_attempt_at":"2026-04-29T09:10:05.000Z"`).says(`"waiting":2`).says(`"blocked_by":"` + head + `"`)
	w.record(w.delivery(head), posthorn.Attempt{Number: 2, At: w.now(), Class: posthorn.ClassOK, Status: 200})
	w.do("acme", "GET", "/endpoints/"+endpoint+"/health", "").want(200).says(`"waiting":1`).says(`"blocked_by":null`)
}

// An answer that never came has no status, whatever else is known.
func TestAnAttemptWithoutAnAnswer(t *testing.T) {
	got := showAttempt(&posthorn.Attempt{Number: 3, At: began, Class: posthorn.ClassTimeout, Duration: 15 * time.Second, Manual: true})
	if got.Status != nil || got.Class != "timeout" || !got.Manual || got.DurationMS != 15000 || got.ResponseBodyNote != nil || got.ResponseHeaders == nil {
		t.Errorf("%+v", got)
	}
}

func TestHealthKnowsWhatTheEngineKnows(t *testing.T) {
	hour := func(n int) time.Time { return began.Add(time.Duration(n) * time.Hour) }
	e := &posthorn.Endpoint{Status: posthorn.StatusActive}
	for _, c := range []struct {
		name    string
		health  posthorn.Health
		lane    LaneView
		waiting int
		next    time.Time
		want    time.Time
	}{
		{"nothing waits", posthorn.Health{}, LaneView{NextProbe: hour(1)}, 0, time.Time{}, time.Time{}},
		{"overdue is now", posthorn.Health{}, LaneView{}, 1, hour(-1), began},
		{"due later", posthorn.Health{}, LaneView{}, 1, hour(2), hour(2)},
		{"probed later", posthorn.Health{}, LaneView{NextProbe: hour(3)}, 1, hour(2), hour(3)},
		{"asked to be left alone", posthorn.Health{HoldUntil: hour(5)}, LaneView{NextProbe: hour(3)}, 1, hour(2), hour(5)},
	} {
		got := showHealth(e, c.health, c.lane, c.waiting, c.next, began)
		if diff := cmp.Diff(maybeTime(c.want), got.NextAttemptAt); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if got := showHealth(e, posthorn.Health{}, LaneView{}, maxCounted, began, began); !got.WaitingCapped || got.Waiting != maxCounted {
		t.Errorf("%+v", got)
	}
}

func TestEventTypes(t *testing.T) {
	w := newWorld(t)
	all := w.pages("acme", "/event-types", url.Values{"limit": {"7"}})
	whole := w.do("acme", "GET", "/event-types?limit=250", "").want(200).says(`"next_cursor":null`)
	if diff := cmp.Diff(whole.ids(), all); diff != "" {
		t.Errorf("by pages (-want +got):\n%s", diff)
	}
	// The reference's list.
	for i, name := range strings.Fields(`cases.* cases.created cases.updated cases.closed cases.archived cases.unarchived cases.tasks.* cases.expenses.*
		assignments.* assignments.created assignments.updated assignments.status.updated assignments.archived assignments.unarchived
		assignments.extensions.created assignments.contacts.* assignments.billing-details.*`) {
		w.endpoint("acme", fmt.Sprintf(`{"url":"https://partner.example.com/%d","events":[%q]}`, i, name))
		w.do("acme", "GET", "/event-types/"+name, "").want(200).says(`"name":"` + name + `"`)
	}
	got := w.do("acme", "GET", "/event-types/cases.updated", "").want(200)
	if got.value("data.open") != false || got.value("data.operational") != false || got.value("data.schema.type") != "object" {
		t.Errorf("%s", got.body)
	}
	if _, ok := got.value("data.example").(map[string]any); !ok {
		t.Errorf("no example in %s", got.body)
	}
	w.do("acme", "GET", "/event-types/cases.tasks.*", "").want(200).says(`"open":true`)
	w.do("acme", "GET", "/event-types/payroll.run", "").faults(404)
	w.do("acme", "GET", "/event-types/%2A%00", "").faults(404)
}

// anAttempt has something in every member.
func anAttempt() posthorn.Attempt {
	return posthorn.Attempt{
		Number: 1, At: began, Duration: 1500 * time.Microsecond, Class: posthorn.ClassHTTPStatus, Status: 500,
		Timings: posthorn.Timings{DNS: 1e6, Connect: 2e6, TLS: 3e6, FirstByte: 4500e3},
		Headers: []posthorn.Header{{Name: "Date", Value: "x"}}, Snippet: []byte("oops"), BodyNote: "truncated",
	}
}
