package api

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// timesIn are the places where a time comes in: a request in which TIME stands for it,
// and the pointer of the fault; empty for a query, whose faults have none.
var timesIn = []struct {
	who, path, media, body string
	pointer                string
}{
	{"acme", "/events", "", `{"type":"cases.updated","data":{},"deliver_at":"TIME"}`, "/deliver_at"},
	{"acme", "/events", "", `{"type":"cases.updated","data":{},"timestamp":"TIME"}`, "/timestamp"},
	{"acme", "/events/batch", "", `{"events":[{"type":"cases.updated","data":{}},{"type":"cases.updated","data":{},"deliver_at":"TIME"}]}`, "/events/1/deliver_at"},
	{"acme", "/events/batch", "application/x-ndjson", `{"type":"cases.updated","data":{},"timestamp":"TIME"}`, "/events/0/timestamp"},
	{"acme", "/events", "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/c","type":"cases.updated","data":{},"time":"TIME"}`, "/time"},
	{"acme", "/events", "application/cloudevents+json", `{"specversion":"1.0","id":"2","source":"/c","type":"cases.updated","data":{},"deliverat":"TIME"}`, "/deliverat"},
	{"acme", "/endpoints/ENDPOINT/replays", "", `{"since":"TIME","dry_run":true}`, "/since"},
	{"acme", "/endpoints/ENDPOINT/replays", "", `{"since":"2026-04-01T00:00:00Z","until":"TIME","dry_run":true}`, "/until"},
	{"acme", "/endpoints/ENDPOINT/cancel-pending", "", `{"until":"TIME","dry_run":true}`, "/until"},
	{"acme", "/exports", "", `{"since":"TIME"}`, "/since"},
	{"acme", "/exports", "", `{"until":"TIME"}`, "/until"},
	{"platform", "/tokens", "", `{"tenant":"acme","scopes":["webhooks:read"],"expires_at":"TIME"}`, "/expires_at"},
	{"acme", "/events?since=TIME", "", "", ""},
	{"acme", "/events?until=TIME", "", "", ""},
	{"acme", "/deliveries?since=TIME", "", "", ""},
	{"acme", "/deliveries?until=TIME", "", "", ""},
	{"acme", "/audit?since=TIME", "", "", ""},
	{"acme", "/audit?until=TIME", "", "", ""},
	{"acme", "/stats?since=TIME", "", "", ""},
	{"acme", "/endpoints/ENDPOINT/stats?since=TIME", "", "", ""},
}

// A time that no store can keep is refused wherever it comes in, by a sentence that
// names it: it would wrap around to another time, or stand for none.
func TestTimesThatCannotBeKeptAreRefusedEverywhere(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	ask := func(i int, at string) *result {
		in := timesIn[i]
		if in.body == "" {
			return w.do(in.who, "GET", strings.NewReplacer("TIME", url.QueryEscape(at), "ENDPOINT", id).Replace(in.path), "")
		}
		body := strings.ReplaceAll(in.body, "TIME", at)
		c := w.as(in.who, "POST", strings.ReplaceAll(in.path, "ENDPOINT", id), body)
		if in.media != "" {
			c.with("Content-Type", in.media)
		}
		return c.do()
	}
	for at, sentence := range map[string]string{
		"1677-09-21T00:12:43Z":      "must be 1678-01-01T00:00:00Z or later", // the first that an int64 of nanoseconds holds
		"1678-01-01T00:30:00+01:00": "must be 1678-01-01T00:00:00Z or later",
		"1385-06-11T00:00:00Z":      "must be 1678-01-01T00:00:00Z or later", // wraps around to 1969 and later
		"0001-01-01T00:00:00Z":      "must be 1678-01-01T00:00:00Z or later",
		"0000-01-01T00:00:00Z":      "must be 1678-01-01T00:00:00Z or later",
		"2262-04-12T00:00:00Z":      "must be",
		"2610-11-23T00:00:00Z":      "must be", // wraps around to about now
		"9999-12-31T23:59:59Z":      "must be",
		"-0001-01-01T00:00:00Z":     "must be an RFC 3339 time",
		"-1":                        "must be an RFC 3339 time",
	} {
		for i, in := range timesIn {
			r := ask(i, at)
			if in.pointer == "" {
				r.faults(400).says(sentence)
			} else {
				r.faults(422, in.pointer).says(sentence)
			}
			if t.Failed() {
				t.Fatalf("%s as %s %s", at, in.path, in.body)
			}
		}
	}
	if ids := w.do("acme", "GET", "/events", "").ids(); len(ids) > 0 {
		t.Errorf("kept were %v", ids)
	}
	for i, in := range timesIn {
		if strings.Contains(in.pointer, "deliver") {
			for _, at := range []string{"1969-12-31T23:59:59Z", "1970-01-01T00:30:00+01:00", "1900-01-01T00:00:00Z"} {
				ask(i, at).faults(422, in.pointer).says("must be 1970-01-01T00:00:00Z or later")
			}
		}
	}
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{},"timestamp":"1970-01-01T00:00:00Z"}`).faults(422, "/timestamp").says("must be another time")
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{},"deliver_at":-1,"timestamp":0}`).faults(422, "/deliver_at", "/timestamp")
}

// The first and the usual past times are taken: a past deliver_at sends now.
func TestPastTimesAreTaken(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	for _, at := range []string{"1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1999-12-31T23:59:59+14:00", began.Add(-time.Second).Format(time.RFC3339)} {
		w.do("acme", "GET", "/events?since="+url.QueryEscape(at), "").want(200)
		id := w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{},"deliver_at":"`+at+`"}`).want(202).text("data.id")
		e, err := w.store.EventByRef(t.Context(), w.tenant("acme").ID, id)
		if err != nil || !e.DeliverAt.IsZero() {
			t.Errorf("%s: deliver at %s, %v", at, e.DeliverAt, err)
		}
	}
	for _, at := range []string{"1970-01-01T00:00:00.001Z", "1969-12-31T23:59:59.999Z", "1678-01-01T00:00:00.000Z"} {
		got := w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{},"timestamp":"`+at+`"}`).want(202)
		w.do("acme", "GET", "/events/"+got.text("data.id"), "").want(200).says(`"timestamp":"` + at + `"`)
		w.do("acme", "GET", "/events?since="+at, "").want(200)
	}
}
