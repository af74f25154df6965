package api

import (
	"strings"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// failed records that the event's only delivery failed for good, and returns it.
func (w *world) failed(who, event string) string {
	w.t.Helper()
	id := w.do(who, "GET", "/deliveries?event="+event, "").want(200).text("data.0.id")
	n, _ := posthorn.ParseID(posthorn.DeliveryPrefix, id)
	d, err := w.store.DeliveryByID(w.t.Context(), w.tenant(who).ID, n)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error)
	w.store.Record(store.Result{
		ID: n, Endpoint: d.Endpoint, Tenant: d.Tenant, Tries: d.Progress.Tries, EndedAt: w.now(), Policy: posthorn.Policy{},
		Attempt: posthorn.Attempt{Number: d.Progress.Attempts + 1, At: w.now(), Class: posthorn.ClassHTTPStatus, Status: 500},
	}, func(_ store.Recorded, err error) { done <- err })
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	return id
}

func TestADoubleSubmitStartsOneReplay(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("acme", validEndpoint)
	w.failed("acme", w.event("acme", "cases.updated"))
	w.failed("acme", w.event("acme", "cases.closed"))
	const body = `{"since":"2026-04-29T00:00:00Z","types":["cases.*"],"rate_per_second":0.5}`
	submit := func() *result {
		return w.as("acme", "POST", "/endpoints/"+e+"/replays", body).with("Idempotency-Key", "k1").do()
	}
	dry := strings.TrimSuffix(body, "}") + `,"dry_run":true}`
	w.do("acme", "POST", "/endpoints/"+e+"/replays", dry).want(200).says(`"total":2`).says(`"event_type":"cases.closed"`)
	first := submit().want(201).says(`"state":"running"`).says(`"total":2`).says(`"rate_per_second":0.5`)
	second := submit().want(201).hasHeader("Idempotent-Replayed", "true")
	if first.body != second.body || first.header.Get("Location") != Base+"/replays/"+first.text("data.id") {
		t.Errorf("%s\n%s", first.body, second.body)
	}
	w.do("acme", "POST", "/endpoints/"+e+"/replays", body).faults(409)
	if n := len(w.do("acme", "GET", "/replays?endpoint="+e, "").want(200).ids()); n != 1 {
		t.Errorf("%d replays", n)
	}
	w.do("other", "GET", "/replays", "").want(200).says(`"data":[]`)
	ref := first.text("data.id")
	w.do("acme", "POST", "/replays/"+ref+"/pause", "").want(200).says(`"state":"paused"`)
	w.do("acme", "POST", "/replays/"+ref+"/cancel", "{}").want(200).says(`"state":"canceled"`)
	w.do("acme", "POST", "/replays/"+ref+"/resume", "").faults(409)
}

func TestReplaysSayAllThatIsWrong(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("acme", validEndpoint)
	for body, pointers := range map[string][]string{
		`{}`: {"/since"},
		`{"since":"yesterday","rate_per_second":"fast","missing":1}`: {"/since", "/rate_per_second", "/missing"},
		`{"since":"2026-04-29T09:00:00Z","until":"2026-04-29T09:00:00Z","states":["failed","pending"],"types":["CASES"],"rate_per_second":0.01,"dryrun":true}`: {"/until", "/states/1", "/types/0", "/rate_per_second", "/dryrun"},
		`{"since":"2026-04-29T09:00:00Z","missing":true,"states":["failed"]}`:                                                                                  {"/states"},
	} {
		w.do("acme", "POST", "/endpoints/"+e+"/replays", body).faults(422, pointers...)
	}
	w.do("acme", "POST", "/endpoints/"+e+"/cancel-pending", `{"states":["failed"],"types":["a b"],"until":1}`).faults(422, "/states/0", "/types/0", "/until")
	event := w.event("acme", "cases.updated")
	w.do("acme", "POST", "/events/"+event+"/resend", `{"endpoint":"`+w.endpoint("other", validEndpoint)+`"}`).faults(422, "/endpoint")
	w.do("acme", "POST", "/events/"+event+"/resend", `{"endpoint":"`+w.endpoint("acme", validEndpoint)+`"}`).faults(409)
}

func TestARetryIsRefusedWhileTheEngineHasTheDelivery(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Lanes = nil })
	w.endpoint("acme", validEndpoint)
	event := w.event("acme", "cases.updated")
	id := w.do("acme", "GET", "/deliveries?event="+event, "").text("data.0.id")
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").faults(409).says("An attempt is being made")
	w.failed("acme", event)
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").want(202).says(`"state":"pending"`).says(`"next_attempt_at":"2026-04-29T09:10:00.000Z"`)
	w.do("acme", "POST", "/deliveries/"+id+"/cancel", "").want(200).says(`"state":"failed","reason":null`) // what it was
	w.do("acme", "POST", "/deliveries/"+id+"/cancel", "").want(409)
	w.do("acme", "POST", "/events/"+event+"/resend", "").want(202).says(`"queued":1`)
}

func TestARetryIsRefusedOfASuspendedTenantAndNotOfAPausedEndpoint(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("acme", validEndpoint)
	event := w.event("acme", "cases.updated")
	id := w.failed("acme", event)
	w.do("acme", "PATCH", "/endpoints/"+e, `{"status":"paused"}`).want(200)
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").want(202).says(`"state":"pending"`)
	w.do("acme", "POST", "/events/"+event+"/resend", "").want(202).says(`"queued":1`)
	suspend := func(on bool) {
		if _, err := w.store.SuspendTenant(t.Context(), store.Change{Actor: "test", At: w.now()}, w.tenant("acme").ID, on); err != nil {
			t.Fatal(err)
		}
	}
	suspend(true)
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").faults(409).says("The tenant is suspended").says("resumed")
	w.do("acme", "POST", "/events/"+event+"/resend", "").faults(409).says("The tenant is suspended")
	suspend(false)
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").want(202)
}

func TestDeliveriesOfADeletedEndpointAreListed(t *testing.T) {
	w := newWorld(t)
	e := w.endpoint("acme", validEndpoint)
	id := w.failed("acme", w.event("acme", "cases.updated"))
	w.do("acme", "DELETE", "/endpoints/"+e, "").want(204)
	w.do("acme", "GET", "/deliveries?endpoint="+e, "").want(200).says(id)
	w.do("other", "GET", "/deliveries?endpoint="+e, "").want(200).says(`"data":[]`)
	w.do("acme", "POST", "/deliveries/"+id+"/retry", "").faults(409).says("was deleted")
}
