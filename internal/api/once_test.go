package api

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// Every POST: the same request with the same key answers the same and does
// nothing new.
func TestIdempotencyKeyOnEveryPost(t *testing.T) {
	for _, op := range operationsOf(newWorld(t)) {
		if op.method != "POST" {
			continue
		}
		w := newWorld(t)
		s := samples[op.id]
		path := w.furnish()(s.path)
		call := func(key string) *call {
			c := w.as("platform", "POST", path, s.body).with("Idempotency-Key", key)
			if op.reach == ofTenant {
				c.with(tenantHeader, "acme")
			}
			return c
		}
		first := call("k1").do().want(s.status).hasHeader("Idempotent-Replayed", "")
		w.pass(time.Minute)
		again := call(`"k1"`).do().want(s.status).hasHeader("Idempotent-Replayed", "true")
		if first.body != again.body {
			t.Errorf("%s: first %s\nagain %s", op.id, first.body, again.body)
		}
		for _, name := range []string{"Location", "ETag", "Cache-Control", "Content-Type"} {
			again.hasHeader(name, first.header.Get(name))
		}
		w.pass(24 * time.Hour)
		if late := call("k1").do(); late.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: a day later the answer is still repeated", op.id)
		}
	}
}

func TestIdempotencyKeyDoesOnce(t *testing.T) {
	w := newWorld(t)
	create := func(who, key, body string) *result {
		return w.as(who, "POST", "/endpoints", body).with("Idempotency-Key", key).do()
	}
	first := create("acme", "k", validEndpoint).want(201)
	if again := create("acme", "k", validEndpoint).want(201); again.text("data.secret") != first.text("data.secret") {
		t.Error("the repeated answer has another secret")
	}
	create("acme", "k", strings.Replace(validEndpoint, "xpath", "other", 1)).faults(422).says("new key")
	w.as("acme", "POST", "/endpoints?", validEndpoint+" ").with("Idempotency-Key", "k").do().want(422)
	create("acme", "K", validEndpoint).want(201) // keys differ by case
	create("other", "k", validEndpoint).want(201)
	if n := len(w.do("acme", "GET", "/endpoints", "").ids()); n != 2 {
		t.Errorf("%d endpoints, want 2", n)
	}
	// The same key on another route is another key.
	event := `{"type":"cases.updated","data":{"n":1}}`
	one := w.as("acme", "POST", "/events", event).with("Idempotency-Key", "k").do().want(202)
	w.as("acme", "POST", "/events/batch", `{"events":[`+event+`]}`).with("Idempotency-Key", "k").do().want(202)
	if again := w.as("acme", "POST", "/events", event).with("Idempotency-Key", "k").do().want(202); again.body != one.body {
		t.Errorf("first %s, again %s", one.body, again.body)
	}
	// A platform token shares the tenant's keys, wherever it names the tenant.
	w.as("platform", "POST", "/events", event).with("Idempotency-Key", "k").with(tenantHeader, "acme").do().want(202).hasHeader("Idempotent-Replayed", "true")
	if n := len(w.do("acme", "GET", "/events", "").ids()); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

// A refused request leaves the key free for its mended form.
func TestARefusedRequestIsNotRemembered(t *testing.T) {
	w := newWorld(t)
	for body, status := range map[string]int{`{`: 400, `{"url":1}`: 422} {
		w.as("acme", "POST", "/endpoints", body).with("Idempotency-Key", "k").do().want(status)
	}
	w.as("acme", "POST", "/endpoints", validEndpoint).with("Idempotency-Key", "k").do().want(201).hasHeader("Idempotent-Replayed", "")
}

func TestIdempotencyKeyForms(t *testing.T) {
	w := newWorld(t)
	for key, good := range map[string]bool{
		"k": true, `"k k"`: false, "0af76519-16cd-43dd-8448-eb211c80319c": true, strings.Repeat("k", 255): true, `"` + strings.Repeat("k", 255) + `"`: true,
		strings.Repeat("k", 256): false, `""`: false, "é": false, `a"b`: false, `"a`: false, "a b": false, " ": false,
	} {
		want := 202
		if !good {
			want = 400
		}
		w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).with("Idempotency-Key", key).do().want(want)
	}
	c := w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`)
	c.request.Header["Idempotency-Key"] = []string{"a", "b"}
	c.do().faults(400)
	// It means nothing on other methods.
	w.as("acme", "GET", "/events", "").with("Idempotency-Key", "a b").do().want(200)
}

// slow holds the first publish until it is let go.
type slow struct {
	Publisher
	calls          *atomic.Int32
	entered, leave chan struct{}
}

func (s slow) Publish(ctx context.Context, t posthorn.Tenant, events []publish.Event, pointer func(int) string, once *store.Once, answer func([]publish.Accepted) []byte) ([]publish.Accepted, error) {
	if s.calls.Add(1) == 1 {
		close(s.entered)
		<-s.leave
	}
	return s.Publisher.Publish(ctx, t, events, pointer, once, answer)
}

func TestAKeyInFlightIsAConflict(t *testing.T) {
	s := slow{calls: new(atomic.Int32), entered: make(chan struct{}), leave: make(chan struct{})}
	w := newWorld(t, func(c *Config) { s.Publisher = c.Publish; c.Publish = s })
	post := func() *result {
		return w.as("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).with("Idempotency-Key", "k").do()
	}
	done := make(chan *result, 1)
	go func() { done <- post() }()
	<-s.entered
	meanwhile := post()
	close(s.leave)
	meanwhile.faults(409)
	first := <-done
	first.want(202)
	if again := post().want(202); again.body != first.body {
		t.Errorf("first %s, again %s", first.body, again.body)
	}
}

// A remembered answer cannot be read in the store.
func TestRememberedAnswersAreSealed(t *testing.T) {
	w := newWorld(t)
	rep := &reply{status: 201, body: []byte(`{"data":{"secret":"whsec_topsecret"}}`), location: "/x", etag: `"1"`, secret: true}
	s := &server{Config: w.config}
	sealed, err := s.sealAnswer(7, rep)
	if err != nil || strings.Contains(string(sealed), "topsecret") || strings.Contains(string(sealed), "whsec") {
		t.Fatalf("%q %v", sealed, err)
	}
	if got, err := s.openAnswer(7, sealed); err != nil || string(got.body) != string(rep.body) || got.location != "/x" || !got.secret || !got.repeated {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := s.openAnswer(8, sealed); err == nil {
		t.Error("another tenant's answer opens")
	}
	for _, damaged := range [][]byte{nil, {}, {9}, sealed[:5]} {
		if _, err := s.openAnswer(7, damaged); err == nil {
			t.Errorf("%q opens", damaged)
		}
	}
}

// A key that was used for one tenant's suspension does not answer for
// another's.
func TestAKeyStandsForOnePath(t *testing.T) {
	w := newWorld(t)
	w.as("platform", "POST", "/tenants/acme/suspend", "").with("Idempotency-Key", "k").do().want(200)
	w.as("platform", "POST", "/tenants/other/suspend", "").with("Idempotency-Key", "k").do().faults(422)
	w.do("platform", "GET", "/tenants/other", "").want(200).says(`"suspended":false`)
}

// An answer that shows a token is given again to whoever asked for it only: a key
// is no secret, and another token may be allowed less.
func TestAnotherTokenIsNotGivenTheAnswerOfThePlatforms(t *testing.T) {
	w := newWorld(t)
	create := func(who string) *result {
		return w.as(who, "POST", "/tokens", `{"scopes":["events:publish"]}`).with("Idempotency-Key", "ci").do()
	}
	first := create("platform").want(201)
	if again := create("platform").want(201); again.body != first.body {
		t.Errorf("the same token is given %s", again.body)
	}
	got := create("platform-admin")
	if got.status != 403 || strings.Contains(got.body, first.text("data.token")) {
		t.Errorf("a token that may not publish was given one that may: %d %s", got.status, got.body)
	}
}
