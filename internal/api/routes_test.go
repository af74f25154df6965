package api

import (
	"strings"
	"testing"
)

// sample is how a route is called when nothing is wrong: by whom, and what it
// answers.
type sample struct {
	path, body string
	status     int
}

// samples has a row for every operation: a new one without a row fails the
// tests below. {…} in a path stands for something that exists.
var samples = map[string]sample{
	"list-endpoints":           {"/endpoints", "", 200},
	"create-endpoint":          {"/endpoints", validEndpoint, 201},
	"get-endpoint":             {"/endpoints/{endpoint}", "", 200},
	"update-endpoint":          {"/endpoints/{endpoint}", `{"description":"x"}`, 200},
	"delete-endpoint":          {"/endpoints/{endpoint}", "", 204},
	"get-endpoint-health":      {"/endpoints/{endpoint}/health", "", 200},
	"get-endpoint-stats":       {"/endpoints/{endpoint}/stats", "", 200},
	"get-stats":                {"/stats", "", 200},
	"publish-event":            {"/events", `{"type":"cases.updated","tenant":"acme","data":{}}`, 202},
	"publish-batch":            {"/events/batch", `{"events":[{"type":"cases.updated","tenant":"acme","data":{}}]}`, 202},
	"list-events":              {"/events", "", 200},
	"get-event":                {"/events/{event}", "", 200},
	"stream-events":            {"/stream", "", 200},
	"test-endpoint":            {"/endpoints/{endpoint}/test", `{"type":"webhooks.ping"}`, 202},
	"list-event-types":         {"/event-types", "", 200},
	"get-event-type":           {"/event-types/cases.updated", "", 200},
	"list-deliveries":          {"/deliveries", "", 200},
	"get-delivery":             {"/deliveries/{delivery}", "", 200},
	"list-tenants":             {"/tenants", "", 200},
	"create-tenant":            {"/tenants", `{"name":"new"}`, 201},
	"get-tenant":               {"/tenants/acme", "", 200},
	"delete-tenant":            {"/tenants/acme", "", 204},
	"suspend-tenant":           {"/tenants/acme/suspend", "", 200},
	"resume-tenant":            {"/tenants/acme/resume", "", 200},
	"list-tokens":              {"/tokens", "", 200},
	"create-token":             {"/tokens", `{"tenant":"acme","scopes":["admin"]}`, 201},
	"delete-token":             {"/tokens/{token}", "", 204},
	"pause-sending":            {"/sending/pause", "", 200},
	"resume-sending":           {"/sending/resume", "", 200},
	"list-audit":               {"/audit", "", 200},
	"reveal-endpoint-secret":   {"/endpoints/{endpoint}/secret", "", 200},
	"rotate-endpoint-secret":   {"/endpoints/{endpoint}/secret/rotate", `{"overlap_seconds":0}`, 200},
	"get-endpoint-settings":    {"/endpoints/{endpoint}/settings", "", 200},
	"update-endpoint-settings": {"/endpoints/{endpoint}/settings", `{"headers":{"X-Key":"v"},"retry_schedule":[5,60]}`, 200},
	"test-endpoint-filter":     {"/endpoints/{endpoint}/filter/test", `{"filter":"data.case_id == 590"}`, 200},
	"retry-delivery":           {"/deliveries/{delivery}/retry", "", 202},
	"cancel-delivery":          {"/deliveries/{delivery}/cancel", "", 200},
	"resend-event":             {"/events/{event}/resend", `{}`, 202},
	"cancel-event":             {"/events/{event}/cancel", "", 200},
	"cancel-pending":           {"/endpoints/{endpoint}/cancel-pending", `{}`, 200},
	"create-replay":            {"/endpoints/{endpoint}/replays", `{"since":"2026-04-29T00:00:00Z"}`, 201},
	"list-replays":             {"/replays", "", 200},
	"get-replay":               {"/replays/{replay}", "", 200},
	"pause-replay":             {"/replays/{replay}/pause", "", 200},
	"resume-replay":            {"/replays/{replay}/resume", "", 200},
	"cancel-replay":            {"/replays/{replay}/cancel", "", 200},
	"erase-event-payload":      {"/events/{event}/payload", "", 204},
	"create-export":            {"/exports", `{"since":"2026-04-01T00:00:00Z"}`, 201},
	"get-export":               {"/exports/{export}", "", 200},
	"download-export":          {"/exports/{export}/content", "", 200},
	"list-deletions":           {"/deletions", "", 200},
	"list-outbox":              {"/outbox", "", 200},
	"retry-outbox":             {"/outbox/{outbox}/retry", "", 202},
	"drop-outbox":              {"/outbox/{outbox}", "", 204},
}

// operationsOf lists the declared operations.
func operationsOf(w *world) []*operation { return (&server{Config: w.config}).declare() }

// furnish makes what the paths of samples name, all of the tenant acme.
func (w *world) furnish() func(path string) string {
	w.t.Helper()
	names := []string{"{endpoint}", w.endpoint("acme", validEndpoint), "{event}", w.event("acme", "cases.updated")}
	names = append(names, "{delivery}", w.do("acme", "GET", "/deliveries", "").want(200).text("data.0.id"))
	names = append(names, "{replay}", w.replay("acme", w.endpoint("acme", validEndpoint)))
	names = append(names, "{token}", w.do("platform", "POST", "/tokens", `{"name":"spare"}`).want(201).text("data.id"))
	names = append(names, "{export}", w.do("acme", "POST", "/exports", `{}`).want(201).text("data.id"))
	names = append(names, "{outbox}", w.outbox.refusedRow("acme"))
	return strings.NewReplacer(names...).Replace
}

func TestEveryOperationHasASampleAndTheSampleWorks(t *testing.T) {
	w := newWorld(t)
	ops := operationsOf(w)
	if len(ops) != len(samples) {
		t.Errorf("%d operations, %d samples", len(ops), len(samples))
	}
	for _, op := range ops {
		s, ok := samples[op.id]
		if !ok {
			t.Fatalf("%s has no row in samples", op.id)
		}
		w := newWorld(t)
		path := w.furnish()(s.path)
		c := w.as("platform", op.method, path, s.body)
		if op.reach != ofPlatform {
			c.with(tenantHeader, "acme")
		}
		got := c.do().want(s.status)
		if !declares(op, got.status) {
			t.Errorf("%s answers %d, which it does not declare", op.id, got.status)
		}
		if op.reach != ofPlatform && w.do("acme", op.method, path, s.body).status >= 400 && s.status != 204 {
			t.Errorf("%s does not work for a tenant's token", op.id)
		}
	}
}

func declares(op *operation, status int) bool {
	for _, s := range op.success {
		if s.status == status {
			return true
		}
	}
	return false
}

// Who may call what: no token, bad tokens, tokens with all scopes but the one
// needed, and the tokens of others, on every route.
func TestAccessToEveryRoute(t *testing.T) {
	w := newWorld(t)
	fill := w.furnish()
	one := map[string]string{"webhooks:read": "acme-read", "webhooks:write": "acme-write", "events:publish": "acme-publish", "admin": "platform-admin"}
	for _, op := range operationsOf(w) {
		s := samples[op.id]
		path := fill(s.path)
		call := func(who string) *call { return w.as(who, op.method, path, s.body) }

		call("").do().faults(401).hasHeader("WWW-Authenticate", "Bearer")
		for _, bad := range []string{"Bearer", "Bearer pht_nonsense", "Basic YWNtZTphY21l", "Bearer " + w.tokens["acme"] + "x"} {
			call("").with("Authorization", bad).do().faults(401).hasHeader("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.pass(4e9) // or the address is told to wait
		}
		call("").with("Authorization", "Bearer "+strings.ToLower(w.tokens["acme"])).do().faults(401)
		w.pass(60e9)

		for scope, who := range one {
			if scope == op.scope || scope == op.platformScope {
				continue
			}
			got := call(who).do().faults(403)
			if want := `Bearer error="insufficient_scope", scope="` + op.scope + `"`; got.header.Get("WWW-Authenticate") != want {
				t.Errorf("%s as %s: %q, want %q", op.id, who, got.header.Get("WWW-Authenticate"), want)
			}
		}
		if op.reach == ofPlatform {
			call("acme-admin").do().faults(403) // admin, but of a tenant
			call("acme").do().faults(403)
		}
		if strings.ContainsAny(s.path, "{") && op.reach == ofTenant {
			call("other").do().faults(404) // as if it were not there
		}
	}
	w.do("acme", "GET", fill("/endpoints/{endpoint}"), "").want(200)
	w.do("platform", "GET", "/tenants/acme", "").want(200).says(`"suspended":false`)
}

// A foreign id is answered with the same bytes as one that never was.
func TestForeignIdsLookUnknown(t *testing.T) {
	w := newWorld(t)
	fill := w.furnish()
	unknown := strings.NewReplacer(
		"{endpoint}", "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "{event}", "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		"{delivery}", "dlv_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "{replay}", "rpl_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		"{export}", "exp_01J1C6ZGQ6FQTH2X6M2VS3P0XW").Replace
	tried := 0
	for _, op := range operationsOf(w) {
		s := samples[op.id]
		if op.reach != ofTenant || !strings.Contains(s.path, "{") {
			continue
		}
		tried++
		foreign := w.do("other", op.method, fill(s.path), s.body).faults(404)
		for _, path := range []string{unknown(s.path), strings.NewReplacer("{endpoint}", "x", "{event}", "no%20id", "{delivery}", "%00", "{replay}", "%00", "{export}", "x").Replace(s.path)} {
			if got := w.do("other", op.method, path, s.body).faults(404); got.body != foreign.body {
				t.Errorf("%s: foreign %s\nunknown %s", op.id, foreign.body, got.body)
			}
		}
	}
	if tried < 5 {
		t.Errorf("only %d routes tried", tried)
	}
	if got := w.do("other", "PATCH", fill("/endpoints/{endpoint}"), `{"url":1}`).faults(404); !strings.Contains(got.body, "There is no endpoint") {
		t.Errorf("a bad body tells a foreign endpoint from an unknown one: %s", got.body)
	}
}

func TestPlatformTokensNameTheTenant(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	w.do("platform", "GET", "/endpoints", "").faults(400).says("Posthorn-Tenant")
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "acme").do().want(200).says("partner.example.com")
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "other").do().want(200).says(`{"data":[]}`)
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "nobody").do().faults(404)
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "a/b").do().faults(404)
	w.as("acme", "GET", "/endpoints", "").with(tenantHeader, "acme").do().want(200)
	w.as("acme", "GET", "/endpoints", "").with(tenantHeader, "other").do().faults(403)
	w.as("acme", "GET", "/endpoints", "").with(tenantHeader, "nobody").do().faults(403)
	c := w.as("platform", "GET", "/endpoints", "")
	c.request.Header[tenantHeader] = []string{"acme", "other"}
	c.do().faults(400)
}

// The token is judged before a byte of the body is read.
func TestTheTokenComesBeforeTheBody(t *testing.T) {
	w := newWorld(t)
	c := w.as("", "POST", "/events", `{`)
	read := false
	c.request.Body = spy{&read}
	c.do().faults(401)
	c = w.as("acme-read", "POST", "/events", `{`)
	c.request.Body = spy{&read}
	c.do().faults(403)
	if read {
		t.Error("the body was read")
	}
}

type spy struct{ read *bool }

func (s spy) Read([]byte) (int, error) { *s.read = true; return 0, nil }
func (s spy) Close() error             { return nil }

func TestManyBadTokensAreToldToWait(t *testing.T) {
	w := newWorld(t)
	for range 20 {
		w.as("", "GET", "/endpoints", "").with("Authorization", "Bearer pht_x").do().faults(401)
	}
	got := w.as("", "GET", "/endpoints", "").with("Authorization", "Bearer pht_x").do().faults(429)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.do("acme", "GET", "/endpoints", "").want(200)
	c := w.as("acme", "GET", "/endpoints", "")
	c.request.Header.Add("Authorization", "Bearer x")
	c.do().faults(429)
}

func TestWhatEveryRouteRefuses(t *testing.T) {
	w := newWorld(t)
	fill := w.furnish()
	for _, op := range operationsOf(w) {
		s := samples[op.id]
		path := fill(s.path)
		call := func(path string) *call {
			c := w.as("platform", op.method, path, s.body)
			if op.reach != ofPlatform {
				c.with(tenantHeader, "acme")
			}
			return c
		}
		call(path).with("Accept", "text/html").do().faults(406)
		call(path + "?colour=red").do().faults(400).says("colour")
		call(path + "?a=%zz").do().faults(400)
		for _, p := range op.query {
			call(path + "?" + p.name + "=1&" + p.name + "=2").do().faults(400).says(p.name)
		}
		if op.body == nil {
			continue
		}
		large := call(path)
		large.with("Content-Type", "application/json").request.ContentLength = 100 << 20
		large.do().faults(413)
		if op.body.model == nil {
			call(path).with("Content-Type", "application/x-www-form-urlencoded").do().want(s.status)
			s.body = "{}"
		}
		call(path).with("Content-Type", "text/plain").do().faults(415)
		if op.id != "publish-event" {
			call(path).with("Content-Type", "application/cloudevents+json").do().faults(415)
		}
		call(path).with("Content-Encoding", "gzip").do().faults(415)
		if op.body.model == nil {
			continue
		}
		call(path).with("Content-Type", "").do().faults(415)
		for body, pointer := range map[string]string{
			" ": "", "{": "", `{"a":1}}`: "", `{"a":1,"a":2}`: "/a", `{"a":nul}`: "/a", "[1": "/0", `{"a":"` + "\xff" + `"}`: "/a",
			strings.Repeat("[", 101) + strings.Repeat("]", 101): strings.Repeat("/0", 100),
		} {
			if op.reach == ofPublisher && body[0] == '[' {
				continue // wrong from its first byte: no object
			}
			c := w.as("platform", op.method, path, body)
			if op.reach != ofPlatform {
				c.with(tenantHeader, "acme")
			}
			if got := c.do().want(400); len(pointer) < 9 && !strings.Contains(got.body, `"pointer":"`+pointer) && op.reach != ofPublisher {
				t.Errorf("%s %q: %s, want the pointer %q", op.id, body, got.body, pointer)
			}
		}
	}
}

func TestHeadAndOptions(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.do("acme", "HEAD", "/endpoints/"+id, "").want(200).hasHeader("ETag", `"1"`)
	w.do("", "OPTIONS", "/endpoints/"+id, "").want(204).hasHeader("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH")
	w.do("acme", "PUT", "/endpoints/"+id, `{}`).faults(405).hasHeader("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH")
	w.do("acme", "GET", "/nothing", "").faults(404)
	w.do("acme", "GET", "/v2.3/webhook", "").faults(404)
}

func TestTheLogHoldsNoSecret(t *testing.T) {
	w := newWorld(t)
	created := w.do("acme", "POST", "/endpoints", validEndpoint).want(201)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{"payload":"p4yl0ad"}}`).want(202)
	w.do("acme", "GET", "/endpoints/"+created.text("data.id")+"?x=qu3ry", "").want(400)
	log := w.log.String()
	for _, secret := range []string{created.text("data.secret"), created.text("data.id"), w.tokens["acme"], "p4yl0ad", "qu3ry", "partner.example.com"} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
	if !strings.Contains(log, `"route":"POST /v2.3/webhooks/endpoints"`) || !strings.Contains(log, `"token":"tok_`) {
		t.Errorf("the log does not tell what happened:\n%s", log)
	}
}

// A store that is away makes every route say so, and none fail in an unknown
// way.
func TestEveryRouteWithoutItsStore(t *testing.T) {
	w := newWorld(t)
	fill := w.furnish()
	for _, who := range []string{"platform", "acme"} {
		w.as(who, "GET", "/endpoints", "").with(tenantHeader, "acme").do().want(200) // known from now on
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, op := range operationsOf(newWorld(t)) {
		s := samples[op.id]
		who := "acme"
		if op.reach == ofPlatform {
			who = "platform"
		}
		if op.tag == "Event types" {
			w.do(who, op.method, fill(s.path), s.body).want(200) // the catalogue is in memory
			continue
		}
		got := w.do(who, op.method, fill(s.path), s.body).faults(503)
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", op.id)
		}
	}
}
