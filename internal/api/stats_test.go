package api

import (
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

func TestStats(t *testing.T) {
	w := newWorld(t) // it is 09:10
	endpoint := w.endpoint("acme", validEndpoint)
	other := w.endpoint("acme", `{"url":"https://other.example.com/x","events":["cases.closed"]}`)
	try := func(event string, class posthorn.Class, took time.Duration) {
		w.t.Helper()
		id := w.event("acme", event)
		d := w.delivery(w.do("acme", "GET", "/deliveries?event="+id, "").want(200).text("data.0.id"))
		w.record(d, posthorn.Attempt{Number: 1, At: w.now(), Class: class, Duration: took})
	}
	none := `"attempts":{"succeeded":0,"failed":0},"deliveries":{"succeeded":0,"failed":0,"canceled":0,"expired":0}`
	got := w.do("acme", "GET", "/endpoints/"+endpoint+"/stats", "").want(200)
	got.says(`{"data":{"since":"2026-04-28T09:00:00.000Z","until":"2026-04-29T09:10:00.000Z","slot_seconds":3600,` + none +
		`,"success_rate":null,"latency":{"p50":{"estimate_ms":null,"over_ms":null,"at_most_ms":null},` +
		`"p95":{"estimate_ms":null,"over_ms":null,"at_most_ms":null},"p99":{"estimate_ms":null,"over_ms":null,"at_most_ms":null}},"series":[{"start":"2026-04-28T09:00:00.000Z",` + none + `,"p95_ms":null},`)
	if n := strings.Count(got.body, `"start"`); n != 25 {
		t.Errorf("%d slots, want one for each hour from 9 to 9", n)
	}

	try("cases.updated", posthorn.ClassOK, 20*time.Millisecond)
	try("cases.updated", posthorn.ClassOK, 20*time.Millisecond)
	w.pass(2 * time.Hour)
	try("cases.updated", posthorn.ClassTimeout, 40*time.Second)
	try("cases.updated", posthorn.ClassLocal, 5*time.Second) // counts nowhere
	try("cases.closed", posthorn.ClassHTTPStatus, time.Second)

	mine := w.do("acme", "GET", "/endpoints/"+endpoint+"/stats?since=2026-04-29T08:59:59%2B00:00", "").want(200)
	mine.says(`"since":"2026-04-29T08:00:00.000Z","until":"2026-04-29T11:10:00.000Z"`).
		says(`"attempts":{"succeeded":2,"failed":1},"deliveries":{"succeeded":2,"failed":0,"canceled":0,"expired":0},"success_rate":0.666666,` +
			// Of three, the second is the later of two that took 10 to 30 ms.
			`"latency":{"p50":{"estimate_ms":30,"over_ms":10,"at_most_ms":30},` +
			`"p95":{"estimate_ms":30000,"over_ms":30000,"at_most_ms":null},"p99":{"estimate_ms":30000,"over_ms":30000,"at_most_ms":null}}`).
		says(`{"start":"2026-04-29T10:00:00.000Z",` + none + `,"p95_ms":null},{"start":"2026-04-29T11:00:00.000Z","attempts":{"succeeded":0,"failed":1}`)
	if n := strings.Count(mine.body, `"start"`); n != 4 {
		t.Errorf("%d slots from 8 to 11", n)
	}
	w.do("acme", "GET", "/endpoints/"+other+"/stats", "").want(200).says(`"attempts":{"succeeded":0,"failed":1}`)
	w.do("acme", "GET", "/stats", "").want(200).says(`"attempts":{"succeeded":2,"failed":2}`)

	// Beyond seven days a slot is a day.
	long := w.do("acme", "GET", "/stats?since=2026-04-20T23:00:00Z", "").want(200).
		says(`"since":"2026-04-20T00:00:00.000Z"`).says(`"slot_seconds":86400`).
		says(`{"start":"2026-04-29T00:00:00.000Z","attempts":{"succeeded":2,"failed":2}`)
	if n := strings.Count(long.body, `"start"`); n != 10 {
		t.Errorf("%d days", n)
	}

	w.do("other", "GET", "/stats", "").want(200).says(`"attempts":{"succeeded":0,"failed":0}`)
	w.do("other", "GET", "/endpoints/"+endpoint+"/stats", "").faults(404)
	for query, why := range map[string]string{
		"since=yesterday":            "since must be an RFC 3339 time",
		"since=2026-04-29T12:00:00Z": "since must lie in the past",
		"since=2025-01-01T00:00:00Z": "within the last 366 days",
		"until=2026-04-29T09:00:00Z": "not a query parameter",
	} {
		w.do("acme", "GET", "/stats?"+query, "").faults(400).says(why)
		w.do("acme", "GET", "/endpoints/"+endpoint+"/stats?"+query, "").faults(400).says(why)
	}

	w.do("acme", "DELETE", "/endpoints/"+endpoint, "").want(204)
	w.do("acme", "GET", "/endpoints/"+endpoint+"/stats", "").faults(404)
	w.do("acme", "GET", "/stats", "").want(200).says(`"attempts":{"succeeded":2,"failed":2}`)
}
