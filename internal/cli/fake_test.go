package cli_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// fakeServer answers like the API in what the scripts look at. How deliveries
// fare is decided by the endpoint's URL: "fail" in it fails, "never" is never
// attempted, all others succeed.
type fakeServer struct {
	mu         sync.Mutex
	at         time.Time
	endpoints  []*endpoint // oldest first
	events     []*event
	deliveries []*delivery
	sending    bool
	verbatim   []byte // stands where an answer says "@data": marshalling would tidy it up
}

const fakeToken = "pht_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

type endpoint struct {
	ID          string   `json:"id"`
	URL         string   `json:"url"`
	Description string   `json:"description"`
	Events      []string `json:"events"`
	Status      string   `json:"status"`
	Secret      string   `json:"secret,omitempty"`
	CreatedAt   string   `json:"created_at"`
	UpdatedAt   string   `json:"updated_at"`
}

type event struct {
	ID          string         `json:"id"`
	Type        string         `json:"type"`
	Timestamp   string         `json:"timestamp"`
	AcceptedAt  string         `json:"accepted_at"`
	DeliverAt   *string        `json:"deliver_at"`
	Deliveries  int            `json:"deliveries"`
	Source      *string        `json:"source"`
	Subject     *string        `json:"subject"`
	Data        jsontext.Value `json:"data,omitzero"`
	DeliveryLog []*delivery    `json:"delivery_log,omitzero"`
}

type delivery struct {
	ID            string    `json:"id"`
	Event         string    `json:"event"`
	EventType     string    `json:"event_type"`
	Endpoint      string    `json:"endpoint"`
	State         string    `json:"state"`
	Reason        *string   `json:"reason"`
	AttemptsMade  int       `json:"attempts_made"`
	NextAttemptAt *string   `json:"next_attempt_at"`
	CreatedAt     string    `json:"created_at"`
	Attempts      []attempt `json:"attempts"`
}

type attempt struct {
	Number           int               `json:"number"`
	At               string            `json:"at"`
	DurationMS       float64           `json:"duration_ms"`
	Timings          map[string]any    `json:"timings"`
	Status           *int              `json:"status"`
	Class            string            `json:"class"`
	Explanation      string            `json:"explanation"`
	ResponseHeaders  map[string]string `json:"response_headers"`
	ResponseBody     string            `json:"response_body"`
	ResponseBodyNote *string           `json:"response_body_note"`
	Manual           bool              `json:"manual"`
}

type eventType struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Open        bool           `json:"open"`
	Operational bool           `json:"operational"`
	Schema      jsontext.Value `json:"schema"`
	Example     jsontext.Value `json:"example"`
}

var fakeTypes = []eventType{
	{"cases.updated", "A case was changed.", false, false, jsontext.Value(`{"type":"object"}`), jsontext.Value(`{"case":{"id":590,"big":1152921504606846977},"tags":["a"]}`)},
	{"cases.tasks.*", "Tasks of a case.", true, false, jsontext.Value(`{"type":"object"}`), jsontext.Value(`{"task":{"id":7}}`)},
}

// newFakeServer starts a server; the caller closes it.
func newFakeServer() *httptest.Server {
	f := &fakeServer{at: time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC), sending: true}
	mux := http.NewServeMux()
	const base = "/v2.3/webhooks"
	for pattern, handle := range map[string]func(*http.Request) (int, any){
		"GET /endpoints":             f.listEndpoints,
		"POST /endpoints":            f.createEndpoint,
		"GET /endpoints/{id}":        f.getEndpoint,
		"PATCH /endpoints/{id}":      f.updateEndpoint,
		"DELETE /endpoints/{id}":     f.deleteEndpoint,
		"GET /endpoints/{id}/health": f.health,
		"POST /events":               f.publish,
		"GET /events":                f.listEvents,
		"GET /events/{id}":           f.getEvent,
		"GET /event-types":           func(*http.Request) (int, any) { return page(fakeTypes) },
		"GET /event-types/{name}":    getType,
		"GET /deliveries":            f.listDeliveries,
		"GET /deliveries/{id}":       f.getDelivery,
		"POST /sending/pause":        f.setSending(false),
		"POST /sending/resume":       f.setSending(true),
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+base+path, func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			status, body := handle(r)
			if r.Header.Get("Authorization") != "Bearer "+fakeToken {
				status, body = problem(401, "the token is not known")
			}
			w.Header().Set("Content-Type", "application/json")
			if status >= 400 {
				w.Header().Set("Content-Type", "application/problem+json")
			}
			w.WriteHeader(status)
			if body != nil {
				b, err := json.Marshal(body)
				if err != nil {
					panic(err)
				}
				w.Write(bytes.Replace(b, []byte(`"@data"`), f.verbatim, 1))
			}
		})
	}
	return httptest.NewServer(mux)
}

type problemBody struct {
	Title     string              `json:"title"`
	Status    int                 `json:"status"`
	Detail    string              `json:"detail"`
	Errors    []map[string]string `json:"errors,omitempty"`
	RequestID string              `json:"request_id"`
}

func problem(status int, detail string, faults ...string) (int, any) {
	p := problemBody{http.StatusText(status), status, detail, nil, "req_1"}
	for i := 0; i+1 < len(faults); i += 2 {
		p.Errors = append(p.Errors, map[string]string{"pointer": faults[i], "detail": faults[i+1]})
	}
	return status, p
}

func one(v any) (int, any) { return 200, map[string]any{"data": v} }

func page[T any](all []T) (int, any) {
	return 200, map[string]any{"data": slices.Concat([]T{}, all), "next_cursor": nil}
}

func (f *fakeServer) id(prefix string) string {
	f.at = f.at.Add(time.Second)
	return posthorn.MakeID(f.at, 0, 0).Text(prefix)
}

func (f *fakeServer) second() string { return f.at.Format(time.RFC3339) }
func (f *fakeServer) millis() string { return f.at.Format("2006-01-02T15:04:05.000Z") }

func newestFirst[T any](all []T) []T {
	all = slices.Clone(all)
	slices.Reverse(all)
	return all
}

func (f *fakeServer) listEndpoints(*http.Request) (int, any) { return page(newestFirst(f.endpoints)) }

func (f *fakeServer) createEndpoint(r *http.Request) (int, any) {
	e := &endpoint{ID: f.id("wh_"), Status: "active", CreatedAt: f.second(), UpdatedAt: f.second()}
	if err := json.UnmarshalRead(r.Body, e); err != nil {
		return problem(400, err.Error())
	}
	if !strings.HasPrefix(e.URL, "https://") {
		return problem(422, "the body has faults", "/url", "must begin with https://", "/events/0", `"nope" matches no event type`)
	}
	f.endpoints = append(f.endpoints, e)
	shown := *e
	shown.Secret = "whsec_c2VjcmV0"
	return 201, map[string]any{"data": shown}
}

func (f *fakeServer) find(r *http.Request) (int, *endpoint) {
	i := slices.IndexFunc(f.endpoints, func(e *endpoint) bool { return e.ID == r.PathValue("id") })
	if i < 0 {
		return i, nil
	}
	return i, f.endpoints[i]
}

func (f *fakeServer) getEndpoint(r *http.Request) (int, any) {
	if _, e := f.find(r); e != nil {
		return one(e)
	}
	return problem(404, "there is no such endpoint")
}

func (f *fakeServer) updateEndpoint(r *http.Request) (int, any) {
	_, e := f.find(r)
	if e == nil {
		return problem(404, "there is no such endpoint")
	}
	if err := json.UnmarshalRead(r.Body, e); err != nil {
		return problem(400, err.Error())
	}
	return one(e)
}

func (f *fakeServer) deleteEndpoint(r *http.Request) (int, any) {
	i, e := f.find(r)
	if e == nil {
		return problem(404, "there is no such endpoint")
	}
	f.endpoints = slices.Delete(f.endpoints, i, i+1)
	return 204, nil
}

func (f *fakeServer) health(r *http.Request) (int, any) {
	_, e := f.find(r)
	if e == nil {
		return problem(404, "there is no such endpoint")
	}
	h := map[string]any{"condition": "healthy", "reason": nil, "since": nil, "last_success_at": f.millis(), "last_failure_at": nil,
		"next_attempt_at": nil, "pause_at": nil, "waiting": 0, "waiting_capped": false, "blocked_by": nil}
	if e.Status == "paused" {
		h["condition"], h["reason"], h["since"] = "paused", "user", f.millis()
	}
	return one(h)
}

func (f *fakeServer) publish(r *http.Request) (int, any) {
	var in struct {
		ID, Type, Tenant, Timestamp string
		DeliverAt                   string `json:"deliver_at"`
		Data                        jsontext.Value
	}
	if err := json.UnmarshalRead(r.Body, &in, json.MatchCaseInsensitiveNames(true)); err != nil {
		return problem(400, err.Error())
	}
	if in.Type != "cases.updated" && !strings.HasPrefix(in.Type, "cases.tasks.") {
		return problem(422, "the body has faults", "/type", `there is no event type "`+in.Type+`"`)
	}
	e := &event{ID: in.ID, Type: in.Type, Data: in.Data}
	if i := slices.IndexFunc(f.events, func(e *event) bool { return e.ID == in.ID }); i >= 0 && string(f.events[i].Data) != string(in.Data) {
		return problem(409, "the id was used for another event")
	}
	if e.ID == "" {
		e.ID = f.id("evt_")
	}
	e.AcceptedAt, e.Timestamp = f.millis(), f.millis()
	if in.Timestamp != "" {
		e.Timestamp = in.Timestamp
	}
	if in.DeliverAt != "" {
		e.DeliverAt = &in.DeliverAt
	}
	for _, to := range f.endpoints {
		if (&posthorn.Endpoint{Events: patterns(to.Events)}).Matches(e.Type) {
			e.DeliveryLog = append(e.DeliveryLog, f.deliver(e, to))
		}
	}
	e.Deliveries = len(e.DeliveryLog)
	f.events = append(f.events, e)
	type accepted struct {
		ID         string `json:"id"`
		Type       string `json:"type"`
		Timestamp  string `json:"timestamp"`
		Deliveries int    `json:"deliveries"`
	}
	return 202, map[string]any{"data": accepted{e.ID, e.Type, e.Timestamp, e.Deliveries}}
}

func patterns(texts []string) []posthorn.Pattern {
	var all []posthorn.Pattern
	for _, t := range texts {
		all = append(all, posthorn.Pattern(t))
	}
	return all
}

func (f *fakeServer) deliver(e *event, to *endpoint) *delivery {
	d := &delivery{ID: f.id("dlv_"), Event: e.ID, EventType: e.Type, Endpoint: to.ID, State: "succeeded", CreatedAt: f.millis(), Attempts: []attempt{}}
	f.deliveries = append(f.deliveries, d)
	status, class := 200, posthorn.ClassOK
	switch {
	case to.Status == "paused":
		d.State = "held"
		return d
	case strings.Contains(to.URL, "never"):
		d.State = "pending"
		return d
	case strings.Contains(to.URL, "fail"):
		next := time.Now().Add(5 * time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")
		status, class, d.State, d.NextAttemptAt = 503, posthorn.ClassHTTPStatus, "pending", &next
	}
	made := posthorn.Attempt{Class: class, Status: status, Duration: 41 * time.Millisecond}
	d.AttemptsMade = 1
	d.Attempts = append(d.Attempts, attempt{Number: 1, At: f.millis(), DurationMS: 41.2, Status: &status, Class: class.String(),
		Timings: map[string]any{"dns_ms": 1, "connect_ms": 2, "tls_ms": 3, "first_byte_ms": 35}, Explanation: made.Explain(),
		ResponseHeaders: map[string]string{"content-type": "text/plain"}, ResponseBody: "busy\x1b[31m\nnot red"})
	return d
}

func (f *fakeServer) listEvents(r *http.Request) (int, any) {
	var some []*event
	for _, e := range newestFirst(f.events) {
		if want := r.URL.Query().Get("type"); want == "" || posthorn.Pattern(want).Match(e.Type) {
			short := *e
			short.Data, short.DeliveryLog = nil, nil
			some = append(some, &short)
		}
	}
	return page(some)
}

func (f *fakeServer) getEvent(r *http.Request) (int, any) {
	for _, e := range f.events {
		if e.ID == r.PathValue("id") {
			shown := *e
			shown.Data, f.verbatim = jsontext.Value(`"@data"`), e.Data
			return one(shown)
		}
	}
	return problem(404, "there is no such event")
}

func (f *fakeServer) listDeliveries(r *http.Request) (int, any) {
	var some []*delivery
	q := r.URL.Query()
	for _, d := range newestFirst(f.deliveries) {
		if (q.Get("state") == "" || q.Get("state") == d.State) && (q.Get("endpoint") == "" || q.Get("endpoint") == d.Endpoint) {
			some = append(some, d)
		}
	}
	return page(some)
}

func (f *fakeServer) getDelivery(r *http.Request) (int, any) {
	for _, d := range f.deliveries {
		if d.ID == r.PathValue("id") {
			return one(d)
		}
	}
	return problem(404, "there is no such delivery")
}

func getType(r *http.Request) (int, any) {
	for _, t := range fakeTypes {
		if t.Name == r.PathValue("name") || t.Open && posthorn.Pattern(t.Name).Match(r.PathValue("name")) {
			return one(t)
		}
	}
	return problem(404, fmt.Sprintf("there is no event type %q; did you mean \"cases.updated\"?", r.PathValue("name")))
}

func (f *fakeServer) setSending(on bool) func(*http.Request) (int, any) {
	return func(*http.Request) (int, any) {
		f.sending = on
		return one(map[string]bool{"sending": on})
	}
}

// TestTheFakeIsNotAskedForMoreThanItHas keeps an unknown route from looking like
// a missing resource in scripts.
func TestTheFakeIsNotAskedForMoreThanItHas(t *testing.T) {
	server := newFakeServer()
	defer server.Close()
	resp, err := server.Client().Get(server.URL + "/v2.3/webhooks/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		t.Error("an unknown route answers like the API")
	}
}
