package api

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/tally"
)

// rule is a line of testdata/routes.txt, which is written by hand: what the
// contract says of a route. The code's own list is held against it.
type rule struct {
	method, path, scope string
	platform            bool
	either              bool // for a platform token with admin too, and then for all tenants
	success             int
}

func rules(t *testing.T) map[string]rule {
	t.Helper()
	f, err := os.Open("testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]rule{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		part := strings.Fields(lines.Text())
		r := rule{method: part[0], path: part[1], scope: part[2], platform: part[3] == "platform", either: part[3] == "either"}
		if r.success, err = strconv.Atoi(part[4]); err != nil {
			t.Fatal(err)
		}
		all[part[0]+" "+part[1]] = r
	}
	return all
}

// role is somebody who asks. tenant is whose things he reaches: by his token, or
// by the header that a platform token sends.
type role struct {
	name, token string
	valid       bool // the token is known and in force
	platform    bool
	tenant      string
	header      string
	scopes      []string
	suspended   bool
}

// roles are all kinds of callers; each has at most the rights of one token.
func (w *world) roles() []role {
	w.t.Helper()
	type made struct {
		name, tenant, header string
		scopes               []string
	}
	kinds := []made{{"tenant", "acme", "", access.Scopes()}, {"tenant that names itself", "acme", "acme", access.Scopes()},
		{"tenant that names another", "acme", "other", access.Scopes()}, {"tenant that names nobody", "acme", "nobody", access.Scopes()},
		{"other tenant", "other", "", access.Scopes()}, {"suspended tenant", "gone", "", access.Scopes()},
		{"platform without header", "", "", access.Scopes()}, {"platform for a tenant", "", "acme", access.Scopes()},
		{"platform for another", "", "other", access.Scopes()}, {"platform for nobody", "", "nobody", access.Scopes()}}
	for _, scope := range access.Scopes() {
		kinds = append(kinds, made{"tenant, " + scope, "acme", "", []string{scope}}, made{"platform, " + scope, "", "acme", []string{scope}})
	}
	var all []role
	for _, k := range kinds {
		r := role{name: k.name, token: w.mint(k.tenant, k.scopes, time.Time{}), valid: true, platform: k.tenant == "", tenant: k.tenant, header: k.header, scopes: k.scopes, suspended: k.tenant == "gone"}
		if r.platform && k.header != "nobody" {
			r.tenant = k.header
		}
		all = append(all, r)
	}
	expired := w.mint("acme", access.Scopes(), w.now().Add(time.Millisecond))
	w.pass(time.Second)
	revoked := w.mint("acme", access.Scopes(), time.Time{})
	w.tokens["revoked"] = revoked
	w.do("revoked", "GET", "/endpoints", "").want(200) // it is remembered
	hash, _ := access.HashToken(revoked)
	known, err := w.store.TokenByHash(w.t.Context(), hash)
	if err == nil {
		err = w.store.DeleteToken(w.t.Context(), store.Change{Actor: "test", At: w.now()}, -1, known.Ref)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	stranger, _ := access.NewToken()
	return append(all, role{name: "no token"}, role{name: "bad token", token: "pht_x"}, role{name: "a token of nobody", token: stranger},
		role{name: "expired", token: expired}, role{name: "revoked", token: revoked},
		role{name: "half a token", token: revoked[:20]}, role{name: "a token and more", token: all[0].token + "x"})
}

// mint makes a token on the store.
func (w *world) mint(tenant string, scopes []string, expires time.Time) string {
	w.t.Helper()
	text, hash := access.NewToken()
	token := store.Token{Ref: posthorn.NewRef(posthorn.TokenPrefix, w.now()), Hash: hash, Scopes: scopes, CreatedAt: w.now(), ExpiresAt: expires}
	if tenant != "" {
		token.Tenant = w.tenant(tenant).ID
	}
	if _, err := w.store.CreateToken(w.t.Context(), store.Change{Actor: "test", At: w.now()}, token); err != nil {
		w.t.Fatal(err)
	}
	return text
}

// mark is a text that stands in everything of a tenant, and may never be in an
// answer to another one.
func mark(tenant string) string { return "mark-of-" + tenant }

// matrix is a world with three tenants that have something of each kind.
type matrix struct {
	*world
	ids     map[string]string // "tenant kind" -> id; made when it is missing
	changed int               // what the store told of
}

func newMatrix(t testing.TB) *matrix {
	m := &matrix{ids: map[string]string{}}
	m.world = newWorld(t)
	m.store.Watch(func(store.Notice) { m.changed++ })
	m.tokens["root"] = m.mint("", access.Scopes(), time.Time{})
	m.do("root", "POST", "/tenants", `{"name":"gone"}`).want(201)
	for _, tenant := range []string{"acme", "other", "gone"} {
		for _, kind := range []string{"kept", "webhookId", "eventId", "deliveryId", "replayId"} {
			m.id(tenant, kind)
		}
	}
	m.do("root", "POST", "/tenants/gone/suspend", "").want(200)
	return m
}

// id returns the id of something that the tenant has.
func (m *matrix) id(tenant, kind string) string {
	m.t.Helper()
	at := tenant + " " + kind
	if id, ok := m.ids[at]; ok {
		return id
	}
	root := func(method, path, body string) *result {
		m.t.Helper()
		return m.as("root", method, path, body).with(tenantHeader, tenant).do()
	}
	switch kind {
	case "webhookId":
		m.ids[at] = root("POST", "/endpoints", fmt.Sprintf(`{"url":"https://%[1]s.example.com/%[1]s","description":"%[1]s","events":["cases.*"]}`, mark(tenant))).want(201).text("data.id")
	case "eventId":
		m.ids[at] = root("POST", "/events", fmt.Sprintf(`{"type":"cases.updated","data":{"case":"%s"}}`, mark(tenant))).want(202).text("data.id")
	case "deliveryId":
		m.ids[at] = root("GET", "/deliveries?event="+m.id(tenant, "eventId")+"&endpoint="+m.id(tenant, "kept"), "").want(200).text("data.0.id")
	case "kept": // an endpoint that no case deletes: something can be sent again
		m.ids[at] = root("POST", "/endpoints", validEndpoint).want(201).text("data.id")
	case "replayId":
		m.ids[at] = m.replay(tenant, root("POST", "/endpoints", validEndpoint).want(201).text("data.id"))
	case "exportId":
		m.ids[at] = root("POST", "/exports", `{}`).want(201).text("data.id")
	case "tokenId":
		m.ids[at] = m.do("root", "POST", "/tokens", `{"name":"`+mark(tenant)+`","tenant":"`+tenant+`"}`).want(201).text("data.id")
	case "outboxId":
		m.ids[at] = m.outbox.refusedRow(tenant)
	case "name":
		m.ids[at] = fmt.Sprint("victim-", len(m.tokens), "-", m.changed)
		m.do("root", "POST", "/tenants", `{"name":"`+m.ids[at]+`"}`).want(201)
	case "type":
		m.ids[at] = "cases.updated"
	}
	return m.ids[at]
}

var unknownIDs = map[string][]string{
	"webhookId":  {"wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "x", "%00", "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW%20", "%E2%98%83"},
	"eventId":    {"evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "no%20id", "%00", "%FF", strings.Repeat("a", 129)},
	"deliveryId": {"dlv_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "dlv_", "%00", "-1", "9223372036854775808"},
	"replayId":   {"rpl_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "rpl_", "%00"},
	"exportId":   {"exp_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "x", "%00", "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW"},
	"tokenId":    {"tok_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "x", "%00"},
	"outboxId":   {"99999999", "x", "-1", "%00", "9223372036854775808"},
	"name":       {"nobody", "%00", "a%2Fb"},
	"type":       {"cases.nonsense", "%00", "*"},
}

// bodies of the routes that take one, by "method path".
var matrixBodies = map[string]string{
	"POST /endpoints":                            validEndpoint,
	"PATCH /endpoints/{webhookId}":               `{"description":"changed"}`,
	"POST /endpoints/{webhookId}/test":           `{}`,
	"POST /events":                               `{"type":"cases.updated","data":{}}`,
	"POST /events/batch":                         `{"events":[{"type":"cases.updated","data":{}}]}`,
	"POST /tenants":                              `{"name":"made-%d"}`,
	"POST /tokens":                               `{"scopes":["admin"]}`,
	"PATCH /endpoints/{webhookId}/settings":      `{"headers":{"X-Key":"v"}}`,
	"POST /endpoints/{webhookId}/filter/test":    `{"filter":"true"}`,
	"POST /endpoints/{webhookId}/secret/rotate":  `{"overlap_seconds":0}`,
	"POST /events/{eventId}/resend":              `{}`,
	"POST /endpoints/{webhookId}/cancel-pending": `{}`,
	"POST /endpoints/{webhookId}/replays":        `{"since":"2026-04-29T00:00:00Z"}`,
	"POST /exports":                              `{"since":"2026-01-01T00:00:00Z"}`,
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

// TestEveryRouteForEveryRole goes through every route × every role × ids that are
// the caller's, another tenant's, unknown and malformed. What is right follows from
// testdata/routes.txt by a few sentences here, and not from the code.
func TestEveryRouteForEveryRole(t *testing.T) {
	m := newMatrix(t)
	roles := m.roles()
	rules := rules(t)
	ops := operationsOf(m.world)
	if len(ops) != len(rules) {
		t.Errorf("%d operations, %d lines in testdata/routes.txt", len(ops), len(rules))
	}
	cases := 0
	for _, op := range ops {
		line := op.method + " " + op.path
		rule, ok := rules[line]
		if !ok {
			t.Errorf("%s has no line in testdata/routes.txt", line)
			continue
		}
		if _, ok := matrixBodies[line]; !ok && op.body != nil && op.body.model != nil {
			t.Errorf("%s has no body in matrixBodies", line)
		}
		for _, r := range roles {
			cases += m.try(line, rule, r)
		}
	}
	for _, name := range []string{"acme", "other", "gone"} { // nobody reached what was not his
		m.as("root", "GET", "/endpoints/"+m.id(name, "webhookId"), "").with(tenantHeader, name).do().want(200)
	}
	t.Logf("%d cases", cases)
	tally.Count(t, "every route × role × own, foreign, unknown, malformed ids answers as the contract says", cases)
	if cases < 2000 {
		t.Errorf("only %d cases: the table is not whole", cases)
	}
}

// try calls one route in one role with all kinds of ids.
func (m *matrix) try(line string, rule rule, r role) (cases int) {
	m.t.Helper()
	slot := ""
	if found := placeholder.FindStringSubmatch(rule.path); found != nil {
		slot = found[1]
	}
	owner := r.tenant
	if owner == "" {
		owner = "acme"
	}
	kinds := []struct{ kind, id string }{{"own", ""}}
	if slot != "" {
		kinds[0].id = m.id(owner, slot)
		if !rule.platform && slot != "type" {
			for _, other := range []string{"acme", "other", "gone"} {
				if other != owner {
					kinds = append(kinds, struct{ kind, id string }{"foreign", m.id(other, slot)})
				}
			}
		}
		for _, id := range unknownIDs[slot] {
			kinds = append(kinds, struct{ kind, id string }{"unknown", id})
		}
	}
	var missing string // the answer to an id that is not there, but for its request's id
	for _, k := range kinds {
		want := expected(line, rule, r, k.kind)
		before := m.state()
		body := matrixBodies[line]
		if strings.Contains(body, "%d") {
			body = fmt.Sprintf(body, m.changed)
		}
		c := m.as("", rule.method, placeholder.ReplaceAllLiteralString(rule.path, k.id), body)
		if r.token != "" {
			c.with("Authorization", "Bearer "+r.token)
		}
		if r.header != "" {
			c.with(tenantHeader, r.header)
		}
		got := c.do()
		cases++
		what := fmt.Sprintf("%s as %q with an id that is %s (%s)", line, r.name, k.kind, k.id)
		if got.status != want {
			m.t.Errorf("%s: %d %s, want %d", what, got.status, got.body, want)
		}
		m.checkAnswer(what, got, rule, r, before)
		if want == 404 && k.kind != "own" {
			all := fmt.Sprint(got.header, got.body)
			if missing == "" {
				missing = all
			} else if all != missing {
				m.t.Errorf("%s: foreign, unknown and malformed ids can be told apart:\n%s\n%s", what, missing, all)
			}
		}
		if got.status < 300 && slot != "" && rule.method != "GET" {
			m.refresh(rule, owner, slot)
		}
		m.pass(10 * time.Second) // or the address is told to wait for its bad tokens
	}
	return cases
}

// expected is what the contract says. The order of the sentences is that of the
// checks: who asks, may he, whose things, is it there.
func expected(line string, rule rule, r role, kind string) int {
	publishing := rule.scope == access.ScopePublish
	scope := rule.scope
	if rule.either && r.platform {
		scope = access.ScopeAdmin
	}
	switch {
	case !r.valid:
		return 401
	case !slices.Contains(r.scopes, scope):
		return 403
	case rule.platform && !r.platform:
		return 403
	case rule.platform:
	case !r.platform && r.header != "" && r.header != r.tenant:
		return 403
	case r.platform && r.header == "nobody":
		return 404
	case r.platform && r.header == "" && publishing:
		return 422 // the bodies of this test name no tenant
	case r.platform && r.header == "" && !rule.either:
		return 400
	case r.suspended && (publishing || line == "POST /endpoints/{webhookId}/test" && kind == "own"):
		return 403
	}
	if kind != "own" {
		return 404
	}
	if line == "POST /tokens" && len(r.scopes) == 1 && r.scopes[0] != access.ScopeAdmin {
		return 403
	}
	if r.suspended && (strings.HasSuffix(line, "/retry") || strings.HasSuffix(line, "/resend")) {
		return 409 // nothing is sent now
	}
	return rule.success
}

// checkAnswer checks what holds of every answer: refusals are problems and change
// nothing, nothing of another tenant is in it, and no secret but a new one's.
func (m *matrix) checkAnswer(what string, got *result, rule rule, r role, before string) {
	m.t.Helper()
	if got.status >= 400 {
		if after := m.state(); after != before {
			m.t.Errorf("%s: refused, but something changed: %s -> %s", what, before, after)
		}
		if got.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(got.body, `"request_id":"r1"`) {
			m.t.Errorf("%s: no problem: %s", what, got.body)
		}
	}
	if (got.status == 401) != (got.header.Get("WWW-Authenticate") != "" && got.status != 403) {
		m.t.Errorf("%s: %d with WWW-Authenticate %q", what, got.status, got.header.Get("WWW-Authenticate"))
	}
	all := fmt.Sprint(got.header, got.body)
	for _, other := range []string{"acme", "other", "gone"} {
		mayKnow := r.platform && (rule.platform || rule.either && r.header == "") // the lists of all tokens and tenants
		if other != r.tenant && !mayKnow && strings.Contains(all, mark(other)) {
			m.t.Errorf("%s: the answer tells of %s: %s", what, other, all)
		}
	}
	if r.token != "" && strings.Contains(all, r.token) {
		m.t.Errorf("%s: the answer shows the token", what)
	}
}

// state tells whether anything changed: what the store told of, the newest event,
// the newest token.
func (m *matrix) state() string {
	m.t.Helper()
	events, _, err := m.store.Events(m.t.Context(), store.EventFilter{}, store.Page{Limit: 1})
	if err != nil {
		m.t.Fatal(err)
	}
	tokens, err := m.store.Tokens(m.t.Context(), -1, 0, 1)
	if err != nil {
		m.t.Fatal(err)
	}
	s := fmt.Sprint("changes ", m.changed)
	if len(events) > 0 {
		s += fmt.Sprint(", event ", events[0].ID)
	}
	if len(tokens) > 0 {
		s += fmt.Sprint(", token ", tokens[0].ID)
	}
	return s
}

// refresh forgets what a success used up.
func (m *matrix) refresh(rule rule, owner, slot string) {
	// The event of an erased payload stays.
	if rule.method == "DELETE" && !strings.HasSuffix(rule.path, "/payload") || slot == "outboxId" {
		delete(m.ids, owner+" "+slot)
		m.id(owner, slot)
	}
}
