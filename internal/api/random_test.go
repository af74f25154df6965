package api

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/tally"
)

// intruder is a tenant, and his token, who knows all ids of others and sends
// whatever he likes.
type intruder struct {
	*matrix
	token  string
	random *rand.Rand
	words  []string // what he makes requests of
	sent   int
}

func newIntruder(m *matrix, random *rand.Rand) *intruder {
	in := &intruder{matrix: m, token: m.mint("other", access.Scopes(), time.Time{}), random: random}
	for _, kind := range []string{"webhookId", "eventId", "deliveryId", "tokenId"} {
		in.words = append(in.words, m.id("acme", kind), m.id("other", kind))
	}
	cursor, _ := m.as("root", "GET", "/events?limit=1", "").with(tenantHeader, "acme").do().want(200).value("next_cursor").(string)
	in.words = append(in.words, cursor, "acme", "other", "nobody", "tenant", "Posthorn-Tenant", "cases.updated", "cases.*", "*", "webhooks.ping",
		"limit", "cursor", "since", "until", "type", "state", "event", "endpoint", "0", "-1", "1", "250", "251", "99999999999999999999", "1e400",
		"2026-04-29T09:10:00Z", "9999-12-31T23:59:59Z", "pending", "..", "%2e%2e", "%00", "\x00", "\xff", "\u2028", "☃", "'", "\"", "\\", "';--", "${x}", "{{.}}",
		"id", "url", "events", "description", "status", "data", "timestamp", "deliver_at", "name", "scopes", "expires_at", "admin", "secret",
		"https://e.example.com/", "http://127.0.0.1/", "https://[::1]:8420/", "file:///etc/passwd", "paused", "active", "null", "true", "[]", "{}", strings.Repeat("a", 5000))
	return in
}

// publishMany makes lists have more than one page.
func (m *matrix) publishMany(tenant string) {
	for range 3 {
		m.as("root", "POST", "/events", fmt.Sprintf(`{"type":"cases.updated","data":{"case":"%s"}}`, mark(tenant))).with(tenantHeader, tenant).do().want(202)
	}
}

func (in *intruder) word() string { return pickFrom(in.random, in.words) }

func pickFrom[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// json is a random document, mostly well formed.
func (in *intruder) json(depth int) string {
	quoted := func() string {
		b, _ := jsonString(in.word())
		return b
	}
	switch n := in.random.IntN(10); {
	case depth == 0 || n < 3:
		return quoted()
	case n < 4:
		return in.word()
	case n < 5:
		return pickFrom(in.random, []string{"1", "-0", "1e999", "true", "null", "{", "]", ""})
	case n < 7:
		return "[" + in.json(depth-1) + "," + in.json(depth-1) + "]"
	}
	var members []string
	for range in.random.IntN(5) {
		members = append(members, quoted()+":"+in.json(depth-1))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func jsonString(s string) (string, error) {
	b, err := encode(strings.ToValidUTF8(s, "?"))
	return string(b), err
}

// body is a good body with damage, or a random document.
func (in *intruder) body(line string) string {
	good, ok := matrixBodies[line]
	if !ok || in.random.IntN(3) == 0 {
		return in.json(4)
	}
	switch in.random.IntN(3) {
	case 0:
		return good
	case 1: // another value or member
		b := strings.Replace(good, "cases.updated", in.word(), in.random.IntN(2))
		return strings.Replace(b, "{", "{"+in.json(0)+":"+in.json(2)+",", 1)
	}
	at, w := in.random.IntN(len(good)), in.word()
	return good[:at] + w + good[min(len(good), at+in.random.IntN(len(w)+1)):]
}

// request is a random request as the intruder sends it.
func (in *intruder) request(op *operation) *http.Request {
	path := op.path
	for _, slot := range placeholder.FindAllString(op.path, -1) {
		path = strings.Replace(path, slot, in.word(), 1)
	}
	if in.random.IntN(20) == 0 {
		path += "/" + in.word()
	}
	r := httptest.NewRequest(op.method, Base, strings.NewReader(in.body(op.method+" "+op.path)))
	r.URL.Path, r.URL.RawPath = Base+path, ""
	var query []string
	for range max(0, in.random.IntN(6)-3) {
		query = append(query, in.word()+pickFrom(in.random, []string{"=", "", "==", ";"})+in.word())
	}
	r.URL.RawQuery = strings.Join(query, "&")
	r.Header.Set("Authorization", "Bearer "+in.token)
	r.Header.Set("Content-Type", pickFrom(in.random, []string{"application/json", "application/json", "application/json", "application/merge-patch+json", "application/x-ndjson", "text/plain", "application/json; charset=utf-8", "/", ""}))
	for range max(0, in.random.IntN(6)-3) {
		name := pickFrom(in.random, []string{"Idempotency-Key", "If-Match", "Prefer", "Accept", "X-Request-Id", "Posthorn-Tenant", "Posthorn-Test", "X-Forwarded-For", "Content-Encoding", "Authorization", "Expect", "Range", "Cookie"})
		r.Header[name] = append(r.Header[name], in.word())
	}
	return r
}

// send sends it and checks what holds of every answer.
func (in *intruder) send(t testing.TB, r *http.Request, body string) int {
	t.Helper()
	rec := httptest.NewRecorder()
	in.handler.ServeHTTP(rec, r)
	in.sent++
	all := fmt.Sprint(rec.Header(), rec.Body)
	what := fmt.Sprintf("%s %q ? %q %v %q", r.Method, r.URL.Path, r.URL.RawQuery, r.Header, body)
	if rec.Code >= 500 {
		t.Fatalf("%s: %d %s\n%s", what, rec.Code, all, in.log)
	}
	if strings.Contains(all, mark("acme")) || strings.Contains(all, mark("gone")) {
		t.Fatalf("%s: the answer tells of another tenant: %s", what, all)
	}
	if rec.Code >= 400 && rec.Header().Get("Content-Type") != "application/problem+json" && r.Method != http.MethodHead {
		t.Fatalf("%s: %d is no problem: %s", what, rec.Code, all)
	}
	if strings.Contains(all, in.token) {
		t.Fatalf("%s: the answer shows the token: %s", what, all)
	}
	return rec.Code
}

// holdings is all that a tenant can see of his own.
func (m *matrix) holdings(tenant string) string {
	var b strings.Builder
	for _, path := range []string{"/endpoints", "/events?limit=250", "/deliveries?limit=250"} {
		b.WriteString(m.as("root", "GET", path, "").with(tenantHeader, tenant).do().want(200).body)
	}
	return b.String()
}

// TestRandomRequestsNeitherBreakNorLeak sends random requests of all routes as one
// tenant who knows the ids of the others. POSTHORN_TEST_SEED repeats a run.
func TestRandomRequestsNeitherBreakNorLeak(t *testing.T) {
	seed, requests := rand.Uint64(), 6000
	if s, err := strconv.ParseUint(os.Getenv("POSTHORN_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		requests = 300_000
	}
	t.Logf("POSTHORN_TEST_SEED=%d", seed)
	m := newMatrix(t)
	m.publishMany("acme")
	m.publishMany("other")
	in := newIntruder(m, rand.New(rand.NewPCG(seed, 0)))
	before := m.holdings("acme") + m.holdings("gone")
	ops := operationsOf(m.world)
	answered := map[int]int{}
	for range requests {
		op := pickFrom(in.random, ops)
		if op.reach == ofPlatform && in.random.IntN(4) > 0 {
			op = pickFrom(in.random, ops) // all of these are refused
		}
		r := in.request(op)
		answered[in.send(t, r, "")]++
		m.pass(5 * time.Second)
	}
	if after := m.holdings("acme") + m.holdings("gone"); after != before {
		t.Errorf("what other tenants have was changed:\n%s\n%s", before, after)
	}
	for _, secret := range []string{in.token, mark("acme"), "whsec_", `"level":"ERROR"`, "panic"} {
		if strings.Contains(m.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	t.Logf("%d requests: %v", requests, answered)
	for _, status := range []int{200, 202, 400, 401, 403, 404, 406, 415, 422} {
		if answered[status] == 0 {
			t.Errorf("no request was answered %d: the generator has a hole", status)
		}
	}
	tally.Count(t, "random requests never get a 5xx, a panic or another tenant's data", requests)
}

// Whatever stands in a request, the answer is no 5xx and tells nothing of others.
func FuzzRequests(f *testing.F) {
	m := newMatrix(f)
	in := newIntruder(m, rand.New(rand.NewPCG(1, 0)))
	ops := operationsOf(m.world)
	for i := range ops {
		f.Add(uint8(i), in.word(), in.word()+"="+in.word(), "Prefer", in.word(), in.json(3))
	}
	f.Add(uint8(0), "x", "limit=1&cursor=", "Posthorn-Tenant", "acme", "")
	f.Fuzz(func(t *testing.T, route uint8, id, query, header, value, body string) {
		op := ops[int(route)%len(ops)]
		r := httptest.NewRequest(op.method, Base, strings.NewReader(body))
		r.URL.Path = Base + placeholder.ReplaceAllLiteralString(op.path, id)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer "+in.token)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Add(header, value)
		m.world.t = t
		in.send(t, r, body)
		m.pass(5 * time.Second)
	})
}
