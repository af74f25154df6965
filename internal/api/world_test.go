package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// world is the API on the real store, publisher, catalogue and guard; only the
// lanes take deliveries and do nothing.
type world struct {
	outbox  *outboxRows
	t       testing.TB
	store   *sqlite.Store
	path    string // the store's file
	config  Config
	keyring *secretbox.Keyring
	handler http.Handler
	log     *proof.Output
	tokens  map[string]string

	mu    sync.Mutex
	clock time.Time
}

// began is when every world begins: the reference's time.
var began = time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

// idleLanes accept everything and send nothing.
type idleLanes struct{}

func (idleLanes) Reserve(int64, int64, int) publish.Slot { return idleSlot{} }
func (idleLanes) ReserveParked(int64) publish.Slot       { return idleSlot{parked: true} }
func (idleLanes) Canceled() uint64                       { return 0 }
func (idleLanes) Take([]store.Work, uint64)              {}

type idleSlot struct{ parked bool }

func (s idleSlot) Parked() bool    { return s.parked }
func (idleSlot) Accept(store.Work) {}
func (idleSlot) Stored()           {}
func (idleSlot) Release()          {}

// Recall lets go of everything: nothing is kept.
func (idleLanes) Recall(_ int64, id posthorn.ID) (store.Hold, bool) {
	return store.Hold{ID: id}, true
}
func (idleLanes) GiveBack(int64, store.Hold) {}
func (idleLanes) Wake()                      {}

// The principals of every world: name, tenant ("" for the platform), scopes.
var principals = []struct {
	name, tenant string
	scopes       []string
}{
	{"acme", "acme", access.Scopes()[:3]},
	{"acme-read", "acme", []string{access.ScopeRead}},
	{"acme-write", "acme", []string{access.ScopeWrite}},
	{"acme-publish", "acme", []string{access.ScopePublish}},
	{"acme-admin", "acme", []string{access.ScopeAdmin}},
	{"other", "other", access.Scopes()[:3]},
	{"platform", "", access.Scopes()},
	{"platform-read", "", []string{access.ScopeRead}},
	{"platform-admin", "", []string{access.ScopeAdmin}},
}

// newWorld makes a world with the tenants acme and other. options change the
// configuration before the handler is made.
func newWorld(t testing.TB, options ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, clock: began, log: &proof.Output{}, tokens: map[string]string{}, outbox: new(outboxRows)}
	var err error
	w.path = filepath.Join(t.TempDir(), "posthorn.db")
	w.store, err = sqlite.Open(t.Context(), sqlite.Options{
		Path: w.path, Now: w.now, Synchronous: "OFF", Poll: -1,
		FreeSpace: func(string) (uint64, uint64, error) { return 1 << 40, 1 << 40, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.outbox.store = w.store
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	if w.keyring, err = secretbox.ParseKeys(secretbox.Generate("k1")); err != nil {
		t.Fatal(err)
	}
	types := catalog.Builtin()
	auth := access.New(access.Config{Store: w.store, Now: w.now})
	publisher := publish.New(publish.Config{Store: w.store, Lanes: idleLanes{}, Catalog: types, Now: w.now})
	w.store.Watch(func(n store.Notice) { auth.Notice(n); publisher.Notice(n) })
	guard := send.NewGuard(send.Config{})
	w.config = Config{
		Store: w.store, Outbox: w.outbox, Publish: publisher, Catalog: types, Access: auth, Keyring: w.keyring, CheckURL: guard.CheckURL,
		Lanes: idleLanes{}, Now: w.now, Log: slog.New(slog.NewJSONHandler(w.log, nil)), Version: "1.2.3", Stopping: stopped,
	}
	for _, o := range options {
		o(&w.config)
	}
	if w.handler, err = New(w.config); err != nil {
		t.Fatal(err)
	}
	w.populate()
	return w
}

func (w *world) populate() {
	w.t.Helper()
	change := store.Change{Actor: "test", At: began.Add(-time.Hour)}
	ids := map[string]int64{"": 0}
	for _, name := range []string{"acme", "other"} {
		t, err := w.store.CreateTenant(w.t.Context(), change, name)
		if err != nil {
			w.t.Fatal(err)
		}
		ids[name] = t.ID
	}
	for _, p := range principals {
		text, hash := access.NewToken()
		_, err := w.store.CreateToken(w.t.Context(), change, store.Token{
			Ref: posthorn.NewRef(posthorn.TokenPrefix, began), Tenant: ids[p.tenant], Name: p.name, Hash: hash,
			Scopes: p.scopes, CreatedAt: change.At,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.tokens[p.name] = text
	}
}

func (w *world) tenant(name string) posthorn.Tenant {
	w.t.Helper()
	t, err := w.store.TenantByName(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// result is an answer.
type result struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// call is a request in the making.
type call struct {
	w       *world
	request *http.Request
}

// as begins a request of a principal; "" sends no token. A body that is not
// empty is JSON. The path may be one below Base.
func (w *world) as(who, method, path, body string) *call {
	if !strings.HasPrefix(path, "/v2.3/") && path != "/" && path != "/docs" && path != "/openapi.yaml" {
		path = Base + path
	}
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, from)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		token, ok := w.tokens[who]
		if !ok {
			w.t.Fatalf("no principal %q", who)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("X-Request-Id", "r1")
	return &call{w, r}
}

// with sets a header; an empty value takes it away.
func (c *call) with(name, value string) *call {
	if value == "" {
		c.request.Header.Del(name)
	} else {
		c.request.Header.Set(name, value)
	}
	return c
}

func (c *call) do() *result {
	c.w.t.Helper()
	rec := httptest.NewRecorder()
	what := c.request.Method + " " + c.request.URL.Path
	c.w.handler.ServeHTTP(rec, c.request)
	return &result{c.w.t, what, rec.Code, rec.Header(), rec.Body.String()}
}

// do is for requests without further headers.
func (w *world) do(who, method, path, body string) *result {
	w.t.Helper()
	return w.as(who, method, path, body).do()
}

// want checks the status.
func (r *result) want(status int) *result {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s: %d %s, want %d", r.what, r.status, r.body, status)
	}
	return r
}

// text finds a string in the body, as data.id or data.0.id.
func (r *result) text(path string) string {
	r.t.Helper()
	s, ok := r.value(path).(string)
	if !ok {
		r.t.Fatalf("%s: %s is no string in %s", r.what, path, r.body)
	}
	return s
}

func (r *result) value(path string) any {
	r.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		r.t.Fatalf("%s: %s: %v", r.what, r.body, err)
	}
	for part := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			i := int(part[0] - '0')
			if i >= len(in) {
				r.t.Fatalf("%s: no %s in %s", r.what, path, r.body)
			}
			v = in[i]
		default:
			r.t.Fatalf("%s: no %s in %s", r.what, path, r.body)
		}
	}
	return v
}

// ids are the ids of a list's rows.
func (r *result) ids() []string {
	r.t.Helper()
	rows, ok := r.value("data").([]any)
	if !ok {
		r.t.Fatalf("%s: no list in %s", r.what, r.body)
	}
	ids := []string{}
	for _, row := range rows {
		for _, name := range []string{"id", "name"} {
			if id, ok := row.(map[string]any)[name].(string); ok {
				ids = append(ids, id)
				break
			}
		}
	}
	return ids
}

// faults checks that the answer is a problem with the status and, in order, the
// pointers, each with a detail.
func (r *result) faults(status int, pointers ...string) *result {
	r.t.Helper()
	r.want(status)
	var p struct {
		Type, Title, Detail string
		Status              int
		Errors              []struct{ Pointer, Detail string }
		RequestID           string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		r.t.Fatalf("%s: %s: %v", r.what, r.body, err)
	}
	if r.header.Get("Content-Type") != "application/problem+json" || p.Status != status || p.Title == "" || p.Detail == "" ||
		p.RequestID == "" || !strings.HasPrefix(p.Type, "urn:posthorn:problem:") || p.Errors == nil {
		r.t.Errorf("%s: not a whole problem: %s", r.what, r.body)
	}
	got := []string{}
	for _, e := range p.Errors {
		got = append(got, e.Pointer)
		if e.Detail == "" {
			r.t.Errorf("%s: %s has no detail", r.what, e.Pointer)
		}
	}
	if pointers == nil {
		pointers = []string{}
	}
	if diff := cmp.Diff(pointers, got); diff != "" {
		r.t.Errorf("%s: faults (-want +got):\n%s%s", r.what, diff, r.body)
	}
	return r
}

// says checks that the body has the text in it.
func (r *result) says(text string) *result {
	r.t.Helper()
	if !strings.Contains(r.body, text) {
		r.t.Errorf("%s: no %q in %s", r.what, text, r.body)
	}
	return r
}

func (r *result) hasHeader(name, value string) *result {
	r.t.Helper()
	if got := r.header.Get(name); got != value {
		r.t.Errorf("%s: header %s %q, want %q", r.what, name, got, value)
	}
	return r
}

// stopped ends every stream after its first page.
var stopped = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// anEndpoint is validEndpoint at a url of its own.
func anEndpoint() string {
	return strings.Replace(validEndpoint, "xpath", posthorn.NewRef(posthorn.EndpointPrefix, time.Now()), 1)
}

const validEndpoint = `{"url":"https://partner.example.com/webhooks/xpath","events":["cases.*","assignments.*"]}`

// endpoint creates an endpoint and returns its id.
func (w *world) endpoint(who, body string) string {
	w.t.Helper()
	return w.do(who, "POST", "/endpoints", body).want(201).text("data.id")
}

// event publishes an event and returns its id.
func (w *world) event(who, eventType string) string {
	w.t.Helper()
	return w.do(who, "POST", "/events", `{"type":"`+eventType+`","data":{"case_id":590}}`).want(202).text("data.id")
}

// replay makes a running replay of the tenant's endpoint.
func (w *world) replay(tenant, endpoint string) string {
	w.t.Helper()
	e, err := w.store.EndpointByRef(w.t.Context(), w.tenant(tenant).ID, endpoint)
	if err != nil {
		w.t.Fatal(err)
	}
	r := posthorn.Replay{Ref: posthorn.NewRef(posthorn.ReplayPrefix, w.now()), Tenant: e.Tenant, Endpoint: e.ID}
	if _, err := w.store.CreateReplay(w.t.Context(), store.Change{Actor: "test", At: w.now()}, r, store.ReplayPlan{Total: 1, At: w.now()}, nil); err != nil {
		w.t.Fatal(err)
	}
	return r.Ref
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}
