package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

const eventBody = `{"id":"evt_1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{ "case_id": 590 }}`

// post makes a request that is signed now.
func post(t testing.TB, id, body, secret string) *http.Request {
	r := httptest.NewRequest("POST", "/hooks", strings.NewReader(body))
	now := time.Now()
	r.Header.Set(webhook.HeaderID, id)
	r.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(webhook.HeaderSignature, string(webhook.Sign(nil, id, now, []byte(body), mustKey(t, secret))))
	return r
}

func verifier(t testing.TB, secrets ...string) *webhook.Verifier {
	v, err := webhook.NewVerifier(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// serve answers a request; a panic of the handler is status 0.
func serve(h http.Handler, r *http.Request) (w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	defer func() {
		if recover() != nil {
			w.Code = 0
		}
	}()
	h.ServeHTTP(finalOnly{w}, r)
	return w
}

// finalOnly leaves 1xx answers out, which a ResponseRecorder takes for the answer.
type finalOnly struct{ *httptest.ResponseRecorder }

func (w finalOnly) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
	}
}

func TestTheHandlerGetsTheEvent(t *testing.T) {
	rc := &webhook.Receiver{Verifier: verifier(t, secret), Refused: func(_ *http.Request, err error) { t.Error(err) }}
	calls := 0
	h := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		e := webhook.FromContext(r.Context())
		raw, _ := io.ReadAll(r.Body)
		if string(raw) != eventBody || string(e.Body) != eventBody || string(e.Data) != `{ "case_id": 590 }` {
			t.Errorf("body %q, event %+v", raw, e)
		}
		if e.ID != "evt_1" || e.Type != "cases.updated" || !e.Timestamp.Equal(time.Date(2026, 4, 29, 9, 10, 0, 123e6, time.UTC)) ||
			e.Delivery != "dlv_1" || e.Attempt != 3 || !e.Test {
			t.Errorf("%+v", e)
		}
		var data struct {
			CaseID int `json:"case_id"`
		}
		if err := e.Decode(&data); err != nil || data.CaseID != 590 {
			t.Errorf("%+v, %v", data, err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	}))
	r := post(t, "evt_1", eventBody, secret)
	r.Header.Set("posthorn-delivery", "dlv_1")
	r.Header.Set("posthorn-attempt", "3")
	r.Header.Set("posthorn-test", "true")
	if got := serve(h, r); got.Code != 200 || calls != 1 {
		t.Errorf("%d, %d calls", got.Code, calls)
	}
	if webhook.FromContext(t.Context()) != nil {
		t.Error("an event out of nothing")
	}
}

func TestWhatIsNotLetThrough(t *testing.T) {
	var why error
	rc := &webhook.Receiver{Verifier: verifier(t, secret), MaxBody: 200, Refused: func(_ *http.Request, err error) { why = err }}
	h := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was let through") }))
	other := webhook.NewSecret()
	for _, tc := range []struct {
		name   string
		change func(*http.Request)
		status int
		want   error
	}{
		{"wrong secret", func(r *http.Request) { *r = *post(t, "evt_1", eventBody, other) }, 401, webhook.ErrSignature},
		{"altered body", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(eventBody + " ")) }, 401, webhook.ErrSignature},
		{"old", func(r *http.Request) { r.Header.Set(webhook.HeaderTimestamp, "1614265330") }, 401, webhook.ErrTooOld},
		{"early", func(r *http.Request) { r.Header.Set(webhook.HeaderTimestamp, "9614265330") }, 401, webhook.ErrTooNew},
		{"no headers", func(r *http.Request) { r.Header = http.Header{} }, 401, webhook.ErrNoHeaders},
		{"no event", func(r *http.Request) { *r = *post(t, "evt_1", `[1]`, secret) }, 400, webhook.ErrNotEvent},
		{"no type", func(r *http.Request) { *r = *post(t, "evt_1", `{"data":{}}`, secret) }, 400, webhook.ErrNotEvent},
		{"large", func(r *http.Request) { *r = *post(t, "evt_1", eventBody+strings.Repeat(" ", 200), secret) }, 413, nil},
		{"broken off", func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), broken{})) }, 400, errBroken},
		{"GET", func(r *http.Request) { r.Method = "GET" }, 405, nil},
	} {
		why = nil
		r := post(t, "evt_1", eventBody, secret)
		tc.change(r)
		got := serve(h, r)
		if got.Code != tc.status || why == nil || tc.want != nil && !errors.Is(why, tc.want) {
			t.Errorf("%s: %d %v, want %d %v", tc.name, got.Code, why, tc.status, tc.want)
		}
		if text := strings.TrimSpace(got.Body.String()); text != http.StatusText(tc.status) {
			t.Errorf("%s: the answer says %q", tc.name, text)
		}
		if why != nil && strings.Contains(why.Error(), strings.TrimPrefix(secret, "whsec_")) {
			t.Errorf("%s: the reason holds the secret", tc.name)
		}
	}
}

var errBroken = errors.New("connection reset")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func TestAnEventIsHandledOnce(t *testing.T) {
	for _, tc := range []struct {
		name    string
		handle  func(w http.ResponseWriter)
		first   int
		again   int // what the second request is answered
		handled int // how often the handler was called
	}{
		{"nothing written", func(http.ResponseWriter) {}, 200, 200, 1},
		{"body written", func(w http.ResponseWriter) { io.WriteString(w, "ok") }, 200, 200, 1},
		{"204", func(w http.ResponseWriter) { w.WriteHeader(204) }, 204, 200, 1},
		{"early hints, then 202", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(202) }, 202, 200, 1},
		{"500", func(w http.ResponseWriter) { w.WriteHeader(500) }, 500, 500, 2},
		{"early hints, then 500", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(500) }, 500, 500, 2},
		{"422", func(w http.ResponseWriter) { w.WriteHeader(422) }, 422, 422, 2},
		{"500, then a body", func(w http.ResponseWriter) { http.Error(w, "oops", 500) }, 500, 500, 2},
		{"panic", func(http.ResponseWriter) { panic("oops") }, 0, 0, 2},
		{"panic after 200", func(w http.ResponseWriter) { w.WriteHeader(200); panic("oops") }, 0, 0, 2},
	} {
		calls := 0
		rc := &webhook.Receiver{Verifier: verifier(t, secret)}
		h := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { calls++; tc.handle(w) }))
		first, again := serve(h, post(t, "evt_1", eventBody, secret)).Code, serve(h, post(t, "evt_1", eventBody, secret)).Code
		if first != tc.first || again != tc.again || calls != tc.handled {
			t.Errorf("%s: %d, then %d, %d calls; want %d, %d, %d", tc.name, first, again, calls, tc.first, tc.again, tc.handled)
		}
		if other := serve(h, post(t, "evt_2", eventBody, secret)).Code; other != tc.first {
			t.Errorf("%s: another event is answered %d", tc.name, other)
		}
	}
}

// Two requests for one event at a time: the second is told to come later.
func TestAnEventIsNotHandledTwiceAtOnce(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	rc := &webhook.Receiver{Verifier: verifier(t, secret), Seen: &database{}}
	h := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { enter <- true; <-leave }))
	var wg sync.WaitGroup
	var first int
	ctx, cancel := context.WithCancel(t.Context())
	r := post(t, "evt_1", eventBody, secret).WithContext(ctx)
	wg.Go(func() { first = serve(h, r).Code })
	<-enter
	if got := serve(h, post(t, "evt_1", eventBody, secret)).Code; got != 409 {
		t.Errorf("while the first is at work: %d", got)
	}
	cancel() // the sender does not wait any longer
	leave <- true
	wg.Wait()
	if got := serve(h, post(t, "evt_1", eventBody, secret)).Code; got != 200 || first != 200 {
		t.Errorf("first %d, then %d", first, got)
	}
}

// database is a Seen that gives up with the context, as databases do.
type database struct{ webhook.Memory }

func (d *database) Release(ctx context.Context, id string, handled bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.Memory.Release(ctx, id, handled)
}

func TestSecretsRotate(t *testing.T) {
	old, current := webhook.NewSecret(), webhook.NewSecret()
	rc := &webhook.Receiver{Verifier: verifier(t, current, old)}
	h := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i, s := range []string{old, current} {
		if got := serve(h, post(t, fmt.Sprint("evt_", i), eventBody, s)).Code; got != 200 {
			t.Errorf("secret %d: %d", i, got)
		}
	}
}

// Ids that a database forgot to answer for are not handled: it could be twice.
func TestAStoreThatFails(t *testing.T) {
	var why error
	rc := &webhook.Receiver{Verifier: verifier(t, secret), Seen: failing{}, Refused: func(_ *http.Request, err error) { why = err }}
	h := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was handled") }))
	if got := serve(h, post(t, "evt_1", eventBody, secret)); got.Code != 503 || !errors.Is(why, errBroken) || strings.Contains(got.Body.String(), "reset") {
		t.Errorf("%d %q, %v", got.Code, got.Body, why)
	}
}

type failing struct{}

func (failing) Claim(context.Context, string) (webhook.Claim, error) { return 0, errBroken }
func (failing) Release(context.Context, string, bool) error          { return errBroken }

func TestVerifyNowAndThen(t *testing.T) {
	r := post(t, "evt_1", eventBody, secret)
	if err := webhook.Verify(r.Header, []byte(eventBody), webhook.NewSecret(), secret); err != nil {
		t.Error(err)
	}
	if err := webhook.Verify(r.Header, bytes.ToUpper([]byte(eventBody)), secret); !errors.Is(err, webhook.ErrSignature) {
		t.Error(err)
	}
	if err := webhook.Verify(r.Header, []byte(eventBody), "whsec_"); !errors.Is(err, webhook.ErrSecret) {
		t.Error(err)
	}
}
