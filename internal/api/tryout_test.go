package api

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

func TestATestGoesToItsEndpointAlone(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", `{"url":"https://a.example.com","events":["assignments.created"]}`)
	w.endpoint("acme", `{"url":"https://b.example.com","events":["*","webhooks.*"]}`)
	got := w.do("acme-write", "POST", "/endpoints/"+id+"/test", "").want(202)
	if ref := got.text("data.id"); !regexp.MustCompile(`^evt_test_[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(ref) || got.text("data.type") != "webhooks.ping" {
		t.Errorf("%s", got.body)
	}
	event := w.do("acme", "GET", "/events/"+got.text("data.id"), "").want(200)
	event.says(`"data":{"endpoint":"` + id + `"}`).says(`"deliveries":1`)
	w.do("acme", "GET", "/deliveries/"+got.text("data.delivery"), "").want(200).says(`"endpoint":"` + id + `"`).says(`"event":"` + got.text("data.id") + `"`)
	w.do("acme", "GET", "/deliveries?event="+got.text("data.id"), "").want(200).says(got.text("data.delivery"))
	example := w.do("acme", "POST", "/endpoints/"+id+"/test", `{"type":"cases.updated"}`).want(202)
	if example.text("data.type") != "cases.updated" {
		t.Errorf("%s", example.body)
	}
	about := w.do("acme", "GET", "/event-types/cases.updated", "").value("data.example")
	if got := w.do("acme", "GET", "/events/"+example.text("data.id"), "").value("data.data"); len(got.(map[string]any)) != len(about.(map[string]any)) {
		t.Errorf("the data is %v, the example %v", got, about)
	}
	w.do("acme", "POST", "/endpoints/"+id+"/test", `{"type":"cases.tasks.created"}`).want(202)
	for _, bad := range []string{`{"type":"cases.*"}`, `{"type":"*"}`, `{"type":"cases.nonsense"}`, `{"type":""}`, `{"type":null}`, `{"type":5}`} {
		w.do("acme", "POST", "/endpoints/"+id+"/test", bad).faults(422, "/type")
	}
	w.do("acme", "POST", "/endpoints/"+id+"/test", `{"url":"x"}`).faults(422, "/url")
	w.do("acme", "POST", "/endpoints/"+id+"/test", `{`).faults(400, "")
	w.do("other", "POST", "/endpoints/"+id+"/test", "").faults(404)
	w.do("acme", "PATCH", "/endpoints/"+id, `{"status":"paused"}`).want(200)
	w.do("acme", "POST", "/endpoints/"+id+"/test", "").want(202)
}

func TestTestsAreTenAMinuteForEachEndpoint(t *testing.T) {
	w := newWorld(t)
	a, b := w.endpoint("acme", validEndpoint), w.endpoint("acme", validEndpoint)
	test := func(id string) *result { return w.do("acme", "POST", "/endpoints/"+id+"/test", "") }
	for range 5 {
		test(a).want(202)
	}
	w.pass(20 * time.Second)
	for range 5 {
		test(a).want(202)
	}
	test(a).faults(429).hasHeader("Retry-After", "40")
	test(b).want(202)
	w.pass(40 * time.Second)
	for range 5 {
		test(a).want(202)
	}
	test(a).faults(429).hasHeader("Retry-After", "20")
	if n, _, err := w.store.Events(t.Context(), store.EventFilter{Type: "webhooks.ping"}, store.Page{Limit: 100}); err != nil || len(n) != 16 {
		t.Errorf("%d events, %v", len(n), err)
	}
}

func TestATestTakesEffectOnceForAKey(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	first := w.as("acme", "POST", "/endpoints/"+id+"/test", "").with("Idempotency-Key", "k").do().want(202)
	again := w.as("acme", "POST", "/endpoints/"+id+"/test", "").with("Idempotency-Key", "k").do().want(202).hasHeader("Idempotent-Replayed", "true")
	if first.body != again.body || !strings.Contains(first.body, "evt_test_") {
		t.Errorf("%s\n%s", first.body, again.body)
	}
}
