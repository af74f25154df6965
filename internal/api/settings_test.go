package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
)

const defaultSettings = `{"data":{"headers":{},"rate_per_second":null,"max_in_flight":null,"timeout_seconds":null,"retry_schedule":null,"filter":null,"ordered":false}}`

// values are the header values of an endpoint as an attempt would get them.
func (w *world) headerValues(id string) map[string]string {
	w.t.Helper()
	e, err := w.store.EndpointByRef(w.t.Context(), w.tenant("acme").ID, id)
	if err != nil {
		w.t.Fatal(err)
	}
	target, err := w.store.Target(w.t.Context(), e.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	values := map[string]string{}
	for _, h := range target.Headers {
		value, origin, err := w.keyring.OpenHeader(h.KeyID, h.Box, e.Tenant, e.ID)
		if err != nil || origin != posthorn.Origin(e.URL) {
			w.t.Fatalf("%s is bound to %q, %v", h.Name, origin, err)
		}
		values[h.Name] = value
	}
	return values
}

func TestSettingsAreAMergePatch(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	path := "/endpoints/" + id + "/settings"
	w.do("acme", "GET", path, "").want(200).hasHeader("ETag", `"1"`)
	version := 1
	for _, c := range []struct{ body, want string }{
		{`{}`, ""},
		{`{"headers":null,"rate_per_second":null,"max_in_flight":null,"timeout_seconds":null,"retry_schedule":null,"filter":null,"ordered":null}`, ""},
		{`{"rate_per_second":0.5,"max_in_flight":256,"timeout_seconds":30,"retry_schedule":[5,86400],"filter":"data.n == 1","ordered":true}`,
			`"headers":{},"rate_per_second":0.5,"max_in_flight":256,"timeout_seconds":30,"retry_schedule":[5,86400],"filter":"data.n == 1","ordered":true`},
		{`{"rate_per_second":0.5}`, ""}, // as it is
		{`{"rate_per_second":null,"max_in_flight":1.0}`,
			`"headers":{},"rate_per_second":null,"max_in_flight":1,"timeout_seconds":30,"retry_schedule":[5,86400],"filter":"data.n == 1","ordered":true`},
		{`{"headers":{"X-Key":"one","Authorization":"Bearer two"}}`,
			`"headers":{"X-Key":null,"Authorization":null},"rate_per_second":null,"max_in_flight":1,"timeout_seconds":30,"retry_schedule":[5,86400],"filter":"data.n == 1","ordered":true`},
		{`{"headers":{"x-key":"three","X-None":null},"retry_schedule":null,"filter":null,"ordered":false,"timeout_seconds":null,"max_in_flight":null}`,
			`"headers":{"x-key":null,"Authorization":null},"rate_per_second":null,"max_in_flight":null,"timeout_seconds":null,"retry_schedule":null,"filter":null,"ordered":false`},
	} {
		got := w.as("acme", "PATCH", path, c.body).with("Content-Type", "application/merge-patch+json").do().want(200)
		if c.want != "" {
			version++
			if want := `{"data":{` + c.want + `}}`; got.body != want {
				t.Errorf("%s:\n got %s\nwant %s", c.body, got.body, want)
			}
		}
		got.hasHeader("ETag", fmt.Sprintf(`"%d"`, version))
		if read := w.do("acme", "GET", path, "").want(200).hasHeader("ETag", fmt.Sprintf(`"%d"`, version)); read.body != got.body {
			t.Errorf("answered %s, read %s", got.body, read.body)
		}
	}
	if diff := cmp.Diff(map[string]string{"x-key": "three", "Authorization": "Bearer two"}, w.headerValues(id)); diff != "" {
		t.Error(diff)
	}
	w.do("acme", "PATCH", path, `{"headers":{"X_Key":"four","X-Other":"v"}}`).want(200).says(`"headers":{"X_Key":null,"Authorization":null,"X-Other":null}`)
	w.do("acme", "PATCH", path, `{"headers":{"x-key":"three","x_other":null}}`).want(200).says(`"headers":{"x-key":null,"Authorization":null}`)
	if diff := cmp.Diff(map[string]string{"x-key": "three", "Authorization": "Bearer two"}, w.headerValues(id)); diff != "" {
		t.Errorf("by another spelling (-want +got):\n%s", diff)
	}
	w.do("acme", "PATCH", path, `{"headers":{"AUTHORIZATION":null}}`).want(200)
	if diff := cmp.Diff(map[string]string{"x-key": "three"}, w.headerValues(id)); diff != "" {
		t.Error(diff)
	}
	if got := w.do("acme", "PATCH", path, `{"headers":null}`).want(200); got.body != defaultSettings || len(w.headerValues(id)) != 0 {
		t.Errorf("all is gone: %s", got.body)
	}
	// The endpoint itself is as it was.
	w.do("acme", "GET", "/endpoints/"+id, "").want(200).hasHeader("ETag", `"1"`)
}

// Each row is a body and all that is wrong with it. Nothing changes, and no value
// of a header is repeated.
func TestFaultsOfSettings(t *testing.T) {
	w := newWorld(t)
	path := "/endpoints/" + w.endpoint("acme", validEndpoint) + "/settings"
	long := strings.Repeat("1234567", 300)
	var many []string
	for i := range 21 {
		many = append(many, fmt.Sprintf(`"X-%d":"v"`, i))
	}
	for _, c := range []struct {
		body     string
		pointers []string
		says     string
	}{
		{`{"rate_per_second":0,"max_in_flight":257,"timeout_seconds":31,"retry_schedule":[],"filter":"1 +","ordered":1,"id":"x"}`,
			[]string{"/rate_per_second", "/max_in_flight", "/timeout_seconds", "/retry_schedule", "/filter", "/ordered", "/id"}, "line 1, column 4"},
		{`{"rate_per_second":0.09,"max_in_flight":0,"timeout_seconds":0.5}`, []string{"/rate_per_second", "/max_in_flight", "/timeout_seconds"}, "must be a whole number"},
		{`{"rate_per_second":1000.1,"max_in_flight":"3","timeout_seconds":[]}`, []string{"/rate_per_second", "/max_in_flight", "/timeout_seconds"}, "must be a number, not a string"},
		{`{"retry_schedule":[4,5,86401,"x",1.5]}`, []string{"/retry_schedule/0", "/retry_schedule/2", "/retry_schedule/3", "/retry_schedule/4"}, "5 to 86400"},
		{`{"retry_schedule":[86400,86400,86400,86400,86400,86400,86400,5]}`, []string{"/retry_schedule"}, "604805 seconds in all"},
		{`{"retry_schedule":[` + strings.TrimSuffix(strings.Repeat("5,", 21), ",") + `]}`, []string{"/retry_schedule"}, "has 21 waits"},
		{`{"retry_schedule":{}}`, []string{"/retry_schedule"}, "not an object"},
		{`{"filter":"data.a == \n  dat.b"}`, []string{"/filter"}, "line 2, column 3"},
		{`{"filter":"type"}`, []string{"/filter"}, "must say true or false"},
		{`{"filter":""}`, []string{"/filter"}, "null takes a filter away"},
		{`{"filter":"` + strings.Repeat(" ", 4097) + `"}`, []string{"/filter"}, "at most 4096"},
		{`{"headers":[]}`, []string{"/headers"}, "not an array"},
		{`{"headers":{"Host":"v","webhook-id":"v","Svix-Id":"v","Posthorn-Test":"v","Content-Type":"v","Idempotency-Key":null,"connection":"v","User-Agent":"v","traceparent":"v","Transfer-Encoding":"v"}}`,
			[]string{"/headers/Host", "/headers/webhook-id", "/headers/Svix-Id", "/headers/Posthorn-Test", "/headers/Content-Type", "/headers/Idempotency-Key",
				"/headers/connection", "/headers/User-Agent", "/headers/traceparent", "/headers/Transfer-Encoding"}, "is reserved"},
		{`{"headers":{"webhook_id":"v","Content_Type":"v","Posthorn_Tenant":"v","X-Idempotency_Key":"v","Transfer_Encoding":"v","svix.id":"v","User_Agent":null}}`,
			[]string{"/headers/webhook_id", "/headers/Content_Type", "/headers/Posthorn_Tenant", "/headers/X-Idempotency_Key",
				"/headers/Transfer_Encoding", "/headers/svix.id", "/headers/User_Agent"}, "is reserved"},
		{`{"headers":{"X-A":"1234567","X_A":"1234567","X-B-C":"v","x_b-c":"v","X_D":null,"X-D":"v","X.E":"v","X-E":"v"}}`,
			[]string{"/headers/X_A", "/headers/x_b-c", "/headers/X-D", "/headers/X-E"}, "is there twice"},
		{`{"headers":{"":"v","a b":"v","a:b":"v","a\r\nb":"v","é":"v","a/b":"v"}}`,
			[]string{"/headers/", "/headers/a b", "/headers/a:b", "/headers/a\r\nb", "/headers/é", "/headers/a~1b"}, "RFC 9110"},
		{`{"headers":{"X-A":"1234567\r\nX: y","X-B":"1234567\u0000","X-C":"1234567\n","X-D":" 1234567","X-E":"","X-F":7,"X-G":"` + long + `","X-H":true}}`,
			[]string{"/headers/X-A", "/headers/X-B", "/headers/X-C", "/headers/X-D", "/headers/X-E", "/headers/X-F", "/headers/X-G", "/headers/X-H"}, "line break"},
		{`{"headers":{"X-A":"1234567","x-a":"1234567"}}`, []string{"/headers/x-a"}, "is there twice"},
		{`{"headers":{` + strings.Join(many, ",") + `}}`, []string{"/headers"}, "makes 21 headers"},
		{`{"headers":{"` + strings.Repeat("a", 129) + `":"v"}}`, []string{"/headers/" + clip(strings.Repeat("a", 129))}, "129 bytes long"},
	} {
		got := w.do("acme", "PATCH", path, c.body).faults(422, c.pointers...).says(c.says)
		if strings.Contains(got.body, "1234567") {
			t.Errorf("%s: the answer repeats a value: %s", c.body, got.body)
		}
	}
	w.do("acme", "PATCH", path, `{"headers":{"X-A":"v","X-A":"w"}}`).want(400)
	if got := w.do("acme", "GET", path, "").want(200).hasHeader("ETag", `"1"`); got.body != defaultSettings {
		t.Errorf("something changed: %s", got.body)
	}
	w.do("other", "PATCH", path, `{"max_in_flight":0}`).faults(404)
	w.do("acme-read", "PATCH", path, `{}`).faults(403)
	// 20 are allowed, with those that are there.
	w.do("acme", "PATCH", path, `{"headers":{`+strings.Join(many[:20], ",")+`}}`).want(200)
	w.do("acme", "PATCH", path, `{"headers":{"X-New":"v"}}`).faults(422, "/headers")
	w.do("acme", "PATCH", path, `{"headers":{"X-New":"v","X-0":null}}`).want(200)
}

func TestSettingsHonourIfMatch(t *testing.T) {
	w := newWorld(t)
	path := "/endpoints/" + w.endpoint("acme", validEndpoint) + "/settings"
	patch := func(match, body string) *result {
		return w.as("acme", "PATCH", path, body).with("If-Match", match).do()
	}
	patch(`"1"`, `{"ordered":true}`).want(200).hasHeader("ETag", `"2"`)
	patch(`"1"`, `{"ordered":false}`).faults(412).says("The settings have another ETag")
	patch(`"1", "2"`, `{"ordered":false}`).want(200).hasHeader("ETag", `"3"`)
	patch(`"7", "8"`, `{"ordered":true}`).faults(412)
	patch(`W/"3"`, `{"ordered":true}`).faults(412)
	patch(`*`, `{"ordered":true}`).want(200).hasHeader("ETag", `"4"`)
}

func TestAnotherOriginDeletesTheHeaders(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.do("acme", "PATCH", "/endpoints/"+id+"/settings", `{"headers":{"X-Key":"v"}}`).want(200)
	w.do("acme", "PATCH", "/endpoints/"+id, `{"url":"https://partner.example.com:443/elsewhere"}`).want(200)
	if diff := cmp.Diff(map[string]string{"X-Key": "v"}, w.headerValues(id)); diff != "" {
		t.Error(diff)
	}
	w.do("acme", "PATCH", "/endpoints/"+id, `{"url":"https://partner.example.com:8443/elsewhere"}`).want(200)
	w.do("acme", "GET", "/endpoints/"+id+"/settings", "").want(200).says(`"headers":{}`).hasHeader("ETag", `"3"`)
	if got := w.headerValues(id); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestAFilterIsTriedOnRecentEvents(t *testing.T) {
	w := newWorld(t)
	path := "/endpoints/" + w.endpoint("acme", `{"url":"https://partner.example.com/x","events":["cases.*"]}`) + "/filter/test"
	for i, country := range []string{`"DE"`, `"FR"`, `7`} {
		w.do("acme", "POST", "/events", fmt.Sprintf(`{"id":"e%d","type":"cases.updated","data":{"country":%s}}`, i, country)).want(202)
		w.do("acme", "POST", "/events", `{"type":"assignments.created","data":{"country":"DE"}}`).want(202) // not for it
		w.pass(time.Second)
	}
	want := `{"data":{"matching":1,"failed":1,"events":[` +
		`{"id":"e2","type":"cases.updated","matches":null,"error":"an operation does not fit the types that are in data"},` +
		`{"id":"e1","type":"cases.updated","matches":false,"error":null},` +
		`{"id":"e0","type":"cases.updated","matches":true,"error":null}]}}`
	if got := w.do("acme-read", "POST", path, `{"filter":"data.country.startsWith(\"D\")"}`).want(200); got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
	w.do("acme", "POST", path, `{"filter":"data."}`).faults(422, "/filter").says("column 6")
	w.do("acme", "POST", path, `{}`).faults(422, "/filter")
	w.do("acme", "POST", path, `{"filter":null}`).faults(422, "/filter")
	for range 60 {
		w.event("acme", "cases.updated")
	}
	if got := w.do("acme", "POST", path, `{"filter":"true"}`).want(200); got.value("data.matching") != float64(maxTried) {
		t.Errorf("tried on %v", got.value("data.matching"))
	}
}

// A filter holds for events that are published after it was answered, and where
// it fails the log says so.
func TestTheLogSaysWhereAFilterFailed(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	send := func(data string) float64 {
		t.Helper()
		return w.do("acme", "POST", "/events", `{"type":"cases.updated","data":`+data+`}`).want(202).value("data.deliveries").(float64)
	}
	if n := send(`{"country":"FR"}`); n != 1 {
		t.Errorf("%v deliveries without a filter", n)
	}
	w.do("acme", "PATCH", "/endpoints/"+id+"/settings", `{"filter":"data.country == \"DE\""}`).want(200)
	for data, want := range map[string]float64{`{"country":"FR"}`: 0, `{"country":"DE"}`: 1, `{}`: 1} {
		if n := send(data); n != want {
			t.Errorf("%s: %v deliveries, want %v", data, n, want)
		}
	}
	log := w.do("acme", "GET", "/deliveries", "").want(200)
	if n := strings.Count(log.body, `"note":"The filter failed: data has no such member; has(data.…) asks for one. The event was delivered all the same."`); n != 1 {
		t.Errorf("%d deliveries have the note: %s", n, log.body)
	}
	if n := strings.Count(log.body, `"note":null`); n != 2 {
		t.Errorf("%d deliveries have none", n)
	}
}
