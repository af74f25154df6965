package api

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/webhook"
)

func TestCreateEndpoint(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublicURL = "https://hooks.example.net/" })
	got := w.do("acme", "POST", "/endpoints",
		`{"status":"paused","description":"Ünïcode\n\ttext","events":["cases.tasks.created","webhooks.*","*"],"url":"https://Partner.example.com:8443/a?b=c"}`).want(201)
	id := got.text("data.id")
	if !posthorn.ValidRef("wh_", id) {
		t.Errorf("id %q", id)
	}
	got.hasHeader("Location", "https://hooks.example.net/v2.3/webhooks/endpoints/"+id).hasHeader("ETag", `"1"`).
		hasHeader("Cache-Control", "no-store").hasHeader("X-Content-Type-Options", "nosniff").hasHeader("X-Request-Id", "r1")
	secret := got.text("data.secret")
	key, err := webhook.ParseSecret(secret)
	if err != nil || len(key) != 32 {
		t.Errorf("secret %q: %v", secret, err)
	}
	// url and events come back as they were sent.
	want := `{"data":{"id":"` + id + `","url":"https://Partner.example.com:8443/a?b=c","description":"Ünïcode\n\ttext",` +
		`"events":["cases.tasks.created","webhooks.*","*"],"status":"paused",` +
		`"created_at":"2026-04-29T09:10:00Z","updated_at":"2026-04-29T09:10:00Z"}}`
	read := w.do("acme", "GET", "/endpoints/"+id, "").want(200).hasHeader("ETag", `"1"`)
	if diff := cmp.Diff(want, read.body); diff != "" {
		t.Error(diff)
	}
	// What signs is what was shown, and it is not in the store as it is.
	e, err := w.store.EndpointByRef(t.Context(), w.tenant("acme").ID, id)
	if err != nil {
		t.Fatal(err)
	}
	target, err := w.store.Target(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	sealed := target.Secrets[0]
	stored, err := w.keyring.Open(sealed.KeyID, sealed.Box, secretbox.Bind{Kind: "secret", Tenant: e.Tenant, Endpoint: e.ID})
	if err != nil || webhook.FormatSecret(stored) != secret {
		t.Errorf("the stored secret is another one: %v", err)
	}
	if e.PausedReason != posthorn.PausedByUser || !e.PausedAt.Equal(began) {
		t.Errorf("paused by %q at %v", e.PausedReason, e.PausedAt)
	}
}

// Each row is a body of POST and all that is wrong with it, in its order.
func TestFaultsOfANewEndpoint(t *testing.T) {
	w := newWorld(t)
	const url, events = `"url":"https://partner.example.com/x"`, `"events":["cases.*"]`
	for _, c := range []struct {
		body     string
		pointers []string
		says     string
	}{
		{`{}`, []string{"/url", "/events"}, "is required"},
		{`[]`, []string{""}, "must be a JSON object, not an array"},
		{`"x"`, []string{""}, "not a string"},
		{`null`, []string{""}, "not null"},
		{`{` + url + `}`, []string{"/events"}, "is required"},
		{`{"url":7,"events":{}}`, []string{"/url", "/events"}, "must be a string, not a number"},
		{`{"url":null,"events":null,"description":null,"status":null}`, []string{"/url", "/events", "/description", "/status"}, "must not be null"},
		{`{"events":["cases.*",1,null,"no such",["x"]],` + url + `}`, []string{"/events/1", "/events/2", "/events/3", "/events/4"}, "must be a string, not null"},
		{`{"zeta":1,"URL":"x",` + url + `,"id":"x","secret":"s","created_at":"x","updated_at":"x",` + events + `,"metadata":{}}`,
			[]string{"/zeta", "/URL", "/id", "/secret", "/created_at", "/updated_at", "/metadata"}, "is read-only"},
		{`{"a/b~c":1,` + url + `,` + events + `}`, []string{"/a~1b~0c"}, "the members are url, events, description, status"},
		{`{` + url + `,"events":[]}`, []string{"/events"}, "at least one"},
		{`{` + url + `,"events":["cases.updated","Cases.created","cases.upated","cases.updated","payroll.*","cases.**","","cases"]}`,
			[]string{"/events/1", "/events/2", "/events/3", "/events/4", "/events/5", "/events/6", "/events/7"}, "did you mean cases.updated?"},
		{`{` + url + `,"events":["` + strings.Repeat("a", 300) + `"]}`, []string{"/events/0"}, "is not an event type or pattern"},
		{`{` + url + `,` + events + `,"status":"Active"}`, []string{"/status"}, "must be active or paused"},
		{`{` + url + `,` + events + `,"description":"` + strings.Repeat("é", 1025) + `"}`, []string{"/description"}, "1025 characters"},
		{`{` + url + `,` + events + `,"description":"a\u0000b"}`, []string{"/description"}, "NUL"},
		{`{` + url + `,` + events + `,"description":"a\u001bb"}`, []string{"/description"}, "control"},
		{`{"url":"https://e.example.com/` + strings.Repeat("a", 2048) + `",` + events + `}`, []string{"/url"}, "at most 2048"},
		{`{"url":"https://e.example.com/\u0000",` + events + `}`, []string{"/url"}, "NUL"},
		{`{"url":"ftp://e.example.com","events":["x y"],"status":"on","description":1}`, []string{"/url", "/events/0", "/status", "/description"}, ""},
	} {
		w.do("acme", "POST", "/endpoints", c.body).faults(422, c.pointers...).says(c.says)
	}
	for _, url := range []string{
		"", "x", "/hook", "http://partner.example.com", "https://", "https://user:pw@partner.example.com", "https://partner.example.com/#f",
		"https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://localhost/", "https://intranet/", "https://db.internal/",
		"https://169.254.169.254/latest", "https://2130706433/", "https://partner.example.com:6379/", "javascript:alert(1)", "https://partner .example.com/",
	} {
		w.do("acme", "POST", "/endpoints", fmt.Sprintf(`{"url":%q,"events":["cases.*"]}`, url)).faults(422, "/url")
	}
	w.do("acme", "GET", "/endpoints", "").want(200).says(`{"data":[]}`) // nothing of this was stored
}

func TestLimitsAreInclusive(t *testing.T) {
	w := newWorld(t)
	var events []string
	for i := range 100 {
		events = append(events, fmt.Sprintf("%q", fmt.Sprintf("cases.tasks.t%d", i)))
	}
	url := "https://partner.example.com/"
	url += strings.Repeat("a", 2048-len(url))
	body := `{"url":"` + url + `","description":"` + strings.Repeat("é", 1024) + `","events":[%s]}`
	w.endpoint("acme", fmt.Sprintf(body, strings.Join(events, ",")))
	w.do("acme", "POST", "/endpoints", fmt.Sprintf(body, strings.Join(append(events, `"cases.*"`), ","))).faults(422, "/events").says("101 items")
}

func TestTheNumberOfEndpointsIsBounded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxEndpoints = 2 })
	first := w.endpoint("acme", validEndpoint)
	w.endpoint("acme", validEndpoint)
	w.do("acme", "POST", "/endpoints", validEndpoint).faults(409).says("delete one")
	w.endpoint("other", validEndpoint)
	w.do("acme", "DELETE", "/endpoints/"+first, "").want(204)
	w.endpoint("acme", validEndpoint)
}

func TestTheNumberOfEndpointsWithOneURLIsBounded(t *testing.T) {
	w := newWorld(t)
	at := func(url string) string { return `{"url":"` + url + `","events":["cases.*"]}` }
	for i := range posthorn.MaxSameURL {
		w.endpoint("acme", at(fmt.Sprintf("https://Partner.example.com:443/hooks?n=%d", i)))
	}
	w.do("acme", "POST", "/endpoints", at("https://partner.example.com/hooks")).faults(409).says("10 endpoints with this url")
	beside := "/endpoints/" + w.endpoint("acme", at("https://partner.example.com/beside"))
	w.do("acme", "PATCH", beside, at("https://partner.example.com/hooks")).faults(409).says("use another path")
	w.do("acme", "PATCH", beside, `{"description":"d"}`).want(200)
	w.endpoint("other", at("https://partner.example.com/hooks"))
}

func TestPatchEndpoint(t *testing.T) {
	w := newWorld(t)
	type state struct{ URL, Description, Events, Status, ETag, Updated string }
	read := func(r *result) state {
		return state{r.text("data.url"), r.text("data.description"), fmt.Sprint(r.value("data.events")), r.text("data.status"),
			r.header.Get("ETag"), r.text("data.updated_at")}
	}
	for _, c := range []struct {
		body   string
		change func(*state)
	}{
		{`{}`, nil},
		{`{"status":"active","url":"https://partner.example.com/webhooks/xpath","description":"d","events":["cases.*","assignments.*"]}`, nil}, // the same values
		{`{"description":"new"}`, func(s *state) { s.Description = "new" }},
		{`{"description":""}`, func(s *state) { s.Description = "" }},
		{`{"description":null}`, func(s *state) { s.Description = "" }},
		{`{"url":"https://new.example.com/"}`, func(s *state) { s.URL = "https://new.example.com/" }},
		{`{"events":["assignments.created"]}`, func(s *state) { s.Events = "[assignments.created]" }},
		{`{"events":["assignments.*","cases.*"]}`, func(s *state) { s.Events = "[assignments.* cases.*]" }},
		{`{"status":"paused"}`, func(s *state) { s.Status = "paused" }},
		{`{"status":"paused","description":"x","url":"https://x.example.com"}`, func(s *state) { s.Status, s.Description, s.URL = "paused", "x", "https://x.example.com" }},
	} {
		id := w.endpoint("acme", strings.Replace(validEndpoint, `{`, `{"description":"d",`, 1))
		want := read(w.do("acme", "GET", "/endpoints/"+id, "").want(200))
		w.pass(time.Minute)
		if c.change != nil {
			c.change(&want)
			want.ETag, want.Updated = `"2"`, w.now().Format("2006-01-02T15:04:05Z")
		}
		patched := w.do("acme", "PATCH", "/endpoints/"+id, c.body).want(200)
		for what, got := range map[string]*result{"answer": patched, "later": w.do("acme", "GET", "/endpoints/"+id, "").want(200)} {
			if diff := cmp.Diff(want, read(got)); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", c.body, what, diff)
			}
		}
		if strings.Contains(patched.body, "secret") {
			t.Errorf("PATCH shows the secret: %s", patched.body)
		}
	}
}

func TestFaultsOfAPatchChangeNothing(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	before := w.do("acme", "GET", "/endpoints/"+id, "").body
	w.pass(time.Minute)
	for body, pointers := range map[string][]string{
		`{"url":null}`: {"/url"}, `{"events":null,"status":null}`: {"/events", "/status"}, `{"events":[]}`: {"/events"},
		`{"description":"changed","status":"off"}`: {"/status"}, `{"description":"changed","id":"wh_1"}`: {"/id"},
		`{"description":"changed","secret":null}`: {"/secret"}, `{"updated_at":1,"created_at":1}`: {"/updated_at", "/created_at"},
		`{"description":["changed"]}`: {"/description"}, `{"Status":"paused"}`: {"/Status"}, `[]`: {""},
		`{"url":"http://partner.example.com/","description":"changed"}`: {"/url"},
		`[{"op":"replace","path":"/status","value":"paused"}]`:          {""},
	} {
		w.do("acme", "PATCH", "/endpoints/"+id, body).faults(422, pointers...)
	}
	w.as("acme", "PATCH", "/endpoints/"+id, `{"description":"changed"}`).with("Content-Type", "application/json-patch+json").do().
		faults(415).hasHeader("Accept-Patch", "application/json, application/merge-patch+json")
	w.as("acme-read", "PATCH", "/endpoints/"+id, `{"description":"changed"}`).do().faults(403)
	if after := w.do("acme", "GET", "/endpoints/"+id, "").body; after != before {
		t.Errorf("before %s\nafter %s", before, after)
	}
	w.as("acme", "PATCH", "/endpoints/"+id, `{"description":"changed"}`).with("Content-Type", "application/merge-patch+json; charset=utf-8").do().want(200)
}

func TestPauseAndResumeSayWho(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.pass(time.Minute)
	paused := w.now()
	w.do("acme", "PATCH", "/endpoints/"+id, `{"status":"paused"}`).want(200)
	w.pass(time.Minute)
	w.do("acme", "PATCH", "/endpoints/"+id, `{"status":"paused","description":"still"}`).want(200)
	w.do("acme", "GET", "/endpoints/"+id+"/health", "").want(200).
		says(`"condition":"paused","reason":"user","since":"` + posthorn.FormatTime(paused) + `"`)
	w.do("acme", "PATCH", "/endpoints/"+id, `{"status":"active"}`).want(200)
	if e, err := w.store.EndpointByRef(t.Context(), w.tenant("acme").ID, id); err != nil || e.PausedReason != "" || !e.PausedAt.IsZero() {
		t.Errorf("active, and still paused by %q since %v: %v", e.PausedReason, e.PausedAt, err)
	}
	w.do("acme", "GET", "/endpoints/"+id+"/health", "").want(200).
		says(`{"data":{"condition":"healthy","reason":null,"since":null,"last_success_at":null,"last_failure_at":null,"next_attempt_at":null,` +
			`"pause_at":null,"waiting":0,"waiting_capped":false,"blocked_by":null}}`)
}

func TestIfMatch(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"PATCH", "DELETE"} {
		for tag, matches := range map[string]bool{
			`"2"`: true, `*`: true, `"1", "2"`: true, `"7","2" , "9"`: true,
			`"1"`: false, `"3"`: false, `2`: false, `W/"2"`: false, `"x"`: false, `""`: false, `"1","3"`: false, `"-1"`: false,
		} {
			id := w.endpoint("acme", anEndpoint())
			w.do("acme", "PATCH", "/endpoints/"+id, `{"description":"second"}`).want(200)
			body := ""
			if method == "PATCH" {
				body = `{"description":"third"}`
			}
			got := w.as("acme", method, "/endpoints/"+id, body).with("If-Match", tag).do()
			if (got.status < 300) != matches || !matches && got.status != 412 {
				t.Errorf("%s with If-Match %s: %d %s", method, tag, got.status, got.body)
			}
			if !matches {
				w.do("acme", "GET", "/endpoints/"+id, "").want(200).says("second")
			}
		}
	}
	w.as("acme", "PATCH", "/endpoints/wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", `{}`).with("If-Match", `"1"`).do().faults(404)
	w.as("acme", "DELETE", "/endpoints/wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "").with("If-Match", `"x"`).do().faults(404)
}

func TestConcurrentPatchesOfDifferentMembersAllLast(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	var all sync.WaitGroup
	for _, body := range []string{`{"description":"d"}`, `{"status":"paused"}`, `{"url":"https://new.example.com"}`, `{"events":["cases.closed"]}`} {
		all.Go(func() { w.do("acme", "PATCH", "/endpoints/"+id, body) })
	}
	all.Wait()
	w.do("acme", "GET", "/endpoints/"+id, "").want(200).hasHeader("ETag", `"5"`).
		says(`"url":"https://new.example.com","description":"d","events":["cases.closed"],"status":"paused"`)
}

func TestDeleteEndpoint(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.do("acme", "DELETE", "/endpoints/"+id, "").want(204)
	w.do("acme", "DELETE", "/endpoints/"+id, "").faults(404)
	w.do("acme", "GET", "/endpoints/"+id, "").faults(404)
	w.do("acme", "GET", "/endpoints/"+id+"/health", "").faults(404)
	w.do("acme", "PATCH", "/endpoints/"+id, `{}`).faults(404)
	w.do("acme", "GET", "/endpoints", "").want(200).says(`{"data":[]}`)
	for prefer, status := range map[string]int{
		"return=representation": 200, "respond-async, return=representation; x=1": 200, `Return="representation"`: 200,
		"return=minimal": 204, "representation": 204, "": 204,
	} {
		id := w.endpoint("acme", validEndpoint)
		got := w.as("acme", "DELETE", "/endpoints/"+id, "").with("Prefer", prefer).do().want(status)
		if status == 200 {
			got.hasHeader("Preference-Applied", "return=representation")
		}
		if want := map[int]string{200: `{"deleted":true}`, 204: ""}[status]; got.body != want {
			t.Errorf("Prefer %q: %q", prefer, got.body)
		}
	}
}

func TestListOfEndpoints(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.PublicURL = "https://hooks.example.net" })
	var want []string
	for range 60 {
		w.pass(time.Second)
		want = append([]string{w.endpoint("acme", anEndpoint())}, want...)
	}
	w.endpoint("other", validEndpoint)
	all := w.do("acme", "GET", "/endpoints", "").want(200).hasHeader("Link", "")
	if diff := cmp.Diff(want, all.ids()); diff != "" {
		t.Errorf("without limit (-want +got):\n%s", diff)
	}
	var got []string
	path := "/endpoints?limit=25"
	for pages := 0; path != ""; pages++ {
		if pages > 3 {
			t.Fatal("no end of pages")
		}
		page := w.do("acme", "GET", path, "").want(200)
		if strings.Contains(page.body, "next") {
			t.Errorf("the body has another shape: %s", page.body[:80])
		}
		got = append(got, page.ids()...)
		path = ""
		if link := page.header.Get("Link"); link != "" {
			target, rel, _ := strings.Cut(link, ">; ")
			if rel != `rel="next"` {
				t.Fatalf("Link %q", link)
			}
			var ok bool
			if path, ok = strings.CutPrefix(target, "<https://hooks.example.net"); !ok {
				t.Fatalf("Link %q", link)
			}
			w.do("other", "GET", path, "").faults(400).says("cursor") // bound to the tenant
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by pages (-want +got):\n%s", diff)
	}
	w.do("acme", "GET", "/endpoints?limit=60", "").want(200).hasHeader("Link", "")
	for _, query := range []string{"limit=0", "limit=251", "limit=x", "limit=", "limit=-1", "limit=1.5", "cursor=x", "cursor=", "page=2", "limit=1&limit=2"} {
		w.do("acme", "GET", "/endpoints?"+query, "").faults(400).says(strings.SplitN(query, "=", 2)[0])
	}
	w.do("acme", "GET", "/endpoints?limit=x&cursor=y", "").faults(400).says("limit must be").says("cursor is not one")
}

func TestTheListOfFaultsIsBounded(t *testing.T) {
	w := newWorld(t)
	body := `{"url":"https://partner.example.com","events":[` + strings.Repeat("1,", 5000) + `1]}`
	got := w.do("acme", "POST", "/endpoints", body).want(422).says("5002 faults")
	if n := len(got.value("errors").([]any)); n != 100 {
		t.Errorf("%d faults are listed, want 100", n)
	}
}
