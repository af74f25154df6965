package api

import (
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/publish"
)

func cloudEvent(id, data string) string {
	return `{"specversion":"1.0","id":"` + id + `","source":"/cases","subject":"590","type":"cases.updated","time":"2026-04-29T08:00:00Z","data":` + data + `}`
}

func TestCloudEventsArePublishedInEveryMode(t *testing.T) {
	w := newWorld(t)
	ref := publish.CloudEventRef("/cases", "a/1")
	structured := w.as("acme-publish", "POST", "/events", cloudEvent("a/1", `{ "n": 1 }`)).with("Content-Type", "application/cloudevents+json; charset=UTF-8").do().want(202)
	if structured.text("data.id") != ref || structured.text("data.timestamp") != "2026-04-29T08:00:00.000Z" {
		t.Errorf("%s", structured.body)
	}
	w.do("acme", "GET", "/events/"+ref, "").want(200).
		says(`"source":"/cases","subject":"590","source_id":"a/1","payload_erased_at":null,"payload_state":"kept","data":{ "n": 1 },`)
	binary := func(id, data string) *call {
		return w.as("acme", "POST", "/events", data).with("Ce-Specversion", "1.0").with("Ce-Id", id).with("Ce-Source", "/cases").with("Ce-Type", "cases.updated").
			with("Content-Type", "application/vnd.case+json")
	}
	if got := binary("a/1", `{ "n": 1 }`).do().want(202); got.text("data.id") != ref {
		t.Errorf("the same event again: %s", got.body)
	}
	binary("a/1", `{ "n": 2 }`).do().faults(409, "/id")
	if got := binary("a%2F2", `{}`).do().want(202); got.text("data.id") != publish.CloudEventRef("/cases", "a/2") {
		t.Errorf("%s", got.body)
	}
	if got := binary("a/2", `{}`).with("Content-Type", "application/json").do().want(202); got.text("data.id") != publish.CloudEventRef("/cases", "a/2") {
		t.Errorf("%s", got.body)
	}
	batch := w.as("platform", "POST", "/events/batch", `[`+cloudEvent("b", `{}`)+`,`+strings.Replace(cloudEvent("c", `{}`), `"data"`, `"tenant":"acme","data"`, 1)+`]`).
		with("Content-Type", "application/cloudevents-batch+json")
	batch.do().faults(422, "/0/tenant")
	batch = w.as("platform", "POST", "/events/batch", `[`+cloudEvent("b", `{}`)+`,`+cloudEvent("c", `{}`)+`]`).
		with("Content-Type", "application/cloudevents-batch+json").with(tenantHeader, "acme")
	if got := batch.do().want(202); got.text("data.1.id") != publish.CloudEventRef("/cases", "c") {
		t.Errorf("%s", got.body)
	}
	// Found by what they came with.
	list := func(query string, want ...string) {
		t.Helper()
		got := w.do("acme", "GET", "/events?"+query, "").want(200).ids()
		for i, id := range want {
			want[i] = publish.CloudEventRef("/cases", id)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	list("source=/cases", "c", "b", "a/2", "a/1")
	list("subject=590", "c", "b", "a/1")
	list("source_id=b", "b")
	list("source=/cases&source_id=a/1", "a/1")
	list("source=/cases&source_id=a/1&type=cases.closed")
	list("source=/other&source_id=a/1")
	list("source=/CASES")
	w.do("other", "GET", "/events?source=/cases&source_id=a/1", "").want(200).says(`"data":[]`)
	w.do("acme", "GET", "/events?source=", "").faults(400)
	// The id is Posthorn's own form: nobody can take it.
	w.do("acme", "POST", "/events", `{"id":"`+ref+`","type":"cases.updated","data":{}}`).faults(422, "/id")
}

func TestCloudEventsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	send := func(path, contentType, body string) *result {
		return w.as("acme", "POST", path, body).with("Content-Type", contentType).do()
	}
	send("/events", typeCloudEvent, strings.Replace(cloudEvent("a", `"x"`), `"data"`, `"datacontenttype":"text/plain","data"`, 1)).faults(415, "/datacontenttype")
	send("/events", typeCloudEvent, `{"type":"webhooks.ping","time":"2027-01-01T00:00:00Z"}`).faults(422, "/specversion", "/id", "/source", "/data", "/type", "/time")
	send("/events", typeCloudEvents, `[]`).faults(415)
	send("/events/batch", typeCloudEvent, cloudEvent("a", `{}`)).faults(415)
	send("/events/batch", typeCloudEvents, `[`+cloudEvent("a", `{}`)+`,`+cloudEvent("a", `{"b":1}`)+`]`).faults(409, "/1/id")
	w.as("acme", "POST", "/events", `<a/>`).with("Ce-Specversion", "1.0").with("Content-Type", "text/xml").do().faults(415)
	w.as("acme", "POST", "/events", `{}`).with("Ce-Specversion", "1.0").do().faults(422, "/id", "/source", "/type")
	// The attributes count for an Idempotency-Key.
	keyed := func(id string) *call {
		return w.as("acme", "POST", "/events", `{}`).with("Ce-Specversion", "1.0").with("Ce-Id", id).with("Ce-Source", "/s").with("Ce-Type", "cases.closed").with("Idempotency-Key", "k")
	}
	keyed("1").do().want(202)
	keyed("1").do().want(202).hasHeader("Idempotent-Replayed", "true")
	keyed("2").do().faults(422)
	if got := w.do("acme", "GET", "/events", "").ids(); len(got) != 1 {
		t.Errorf("%v is stored", got)
	}
}
