package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
)

// serve answers one request by the handler and returns the answer and the log.
func serve(t *testing.T, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	w := httptest.NewRecorder()
	Wrap(slog.New(slog.NewJSONHandler(&log, nil)), time.Now, h).ServeHTTP(w, r)
	return w, log.String()
}

func problem(t *testing.T, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != ProblemType {
		t.Fatalf("Content-Type %q of %s, want %s", got, w.Body, ProblemType)
	}
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	return p
}

func TestEveryCodeHasAStatusAndATitle(t *testing.T) {
	want := map[posthorn.Code]int{
		posthorn.Internal: 500, posthorn.Malformed: 400, posthorn.Unauthorized: 401, posthorn.Forbidden: 403,
		posthorn.NotFound: 404, posthorn.NotAcceptable: 406, posthorn.Conflict: 409, posthorn.PreconditionFailed: 412,
		posthorn.TooLarge: 413, posthorn.UnsupportedMedia: 415, posthorn.Invalid: 422, posthorn.RateLimited: 429,
		posthorn.Unavailable: 503, posthorn.Gone: 410,
	}
	for _, c := range posthorn.Codes() {
		if Status(c) != want[c] {
			t.Errorf("Status(%v) = %d, want %d", c, Status(c), want[c])
		}
		if c != posthorn.Internal && Title(c) == Title(posthorn.Internal) {
			t.Errorf("Title(%v) is that of an internal error", c)
		}
	}
}

func TestAnErrorIsShownAsAProblem(t *testing.T) {
	h := Handler(func(http.ResponseWriter, *http.Request) error {
		return &posthorn.Error{Code: posthorn.Invalid, Message: "The body has faults.",
			Faults: []posthorn.Fault{{Pointer: "/url", Detail: "must be \"https\""}}}
	})
	r := httptest.NewRequest("POST", "/x", nil)
	r.Header.Set("X-Request-Id", "abc-1")
	w, _ := serve(t, h, r)
	want := `{"type":"urn:posthorn:problem:invalid","title":"Invalid request","status":422,"detail":"The body has faults.",` +
		`"errors":[{"pointer":"/url","detail":"must be \"https\""}],"request_id":"abc-1"}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != 422 {
		t.Errorf("status %d, body (-want +got):\n%s", w.Code, diff)
	}
}

func TestWhatIsInternalIsLoggedAndNotShown(t *testing.T) {
	for name, h := range map[string]Handler{
		"error": func(http.ResponseWriter, *http.Request) error { return errors.New("disk /dev/sda1 at 10.0.0.7 broke") },
		"panic": func(http.ResponseWriter, *http.Request) error { panic("disk /dev/sda1 at 10.0.0.7 broke") },
	} {
		w, log := serve(t, h, httptest.NewRequest("GET", "/x", nil))
		p := problem(t, w)
		if p.Status != 500 || w.Code != 500 || strings.Contains(w.Body.String(), "sda1") {
			t.Errorf("%s: answered %d %s", name, w.Code, w.Body)
		}
		if !strings.Contains(log, "sda1") || !strings.Contains(log, p.RequestID) {
			t.Errorf("%s: the log does not say what happened: %s", name, log)
		}
		if w.Header().Get("X-Request-Id") != p.RequestID {
			t.Errorf("%s: header and body name different requests", name)
		}
	}
}

func TestAPanicAfterTheAnswerBeganCutsTheConnection(t *testing.T) {
	var log bytes.Buffer
	h := Wrap(slog.New(slog.NewTextHandler(&log, nil)), time.Now, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("later")
	}))
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("recovered %v, want the connection to be cut", v)
		}
		if !strings.Contains(log.String(), "later") {
			t.Errorf("the panic is not logged: %s", log.String())
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/x", nil))
	t.Error("the answer was finished")
}

func TestTheAccessLogHoldsNothingOfTheRequest(t *testing.T) {
	mux := new(Mux)
	mux.Handle("POST /things/{id}", func(w http.ResponseWriter, r *http.Request) error {
		Annotate(r.Context(), slog.String("token", "tok_1"))
		WriteJSON(w, 201, []byte(`{"secret":"s3"}`))
		return nil
	})
	r := httptest.NewRequest("POST", "/things/s1?key=s2", strings.NewReader("s4"))
	r.Header.Set("Authorization", "Bearer s5")
	_, log := serve(t, mux, r)
	for _, secret := range []string{"s1", "s2", "s3", "s4", "s5"} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log: %s", secret, log)
		}
	}
	for _, want := range []string{`"route":"POST /things/{id}"`, `"status":201`, `"bytes":15`, `"token":"tok_1"`, `"method":"POST"`, `"request_id":"req_`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
}

func TestQuietRequestsAreLoggedWhenTheyFail(t *testing.T) {
	for status, logged := range map[int]bool{202: false, 400: true, 503: true} {
		_, log := serve(t, Handler(func(w http.ResponseWriter, r *http.Request) error {
			Quiet(r.Context())
			w.WriteHeader(status)
			return nil
		}), httptest.NewRequest("POST", "/", nil))
		if strings.Contains(log, `"msg":"request"`) != logged {
			t.Errorf("%d: log %q", status, log)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	h := Handler(func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, RequestID(r.Context()))
		return err
	})
	for given, taken := range map[string]bool{
		"a": true, "0af7651916cd43dd8448eb211c80319c": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a\"b": false, "é": false, "a/b": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Request-Id"] = []string{given}
		w, _ := serve(t, h, r)
		got := w.Body.String()
		if (got == given) != taken || got != w.Header().Get("X-Request-Id") || !cleanID(got) {
			t.Errorf("request id %q became %q", given, got)
		}
	}
}

func TestWrappingTwiceIsWrappingOnce(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	h := Wrap(logger, time.Now, Wrap(logger, time.Now, http.NotFoundHandler()))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d log lines, want 1:\n%s", n, log.String())
	}
}

func TestWrongRoutesAndMethods(t *testing.T) {
	mux := new(Mux)
	done := func(w http.ResponseWriter, r *http.Request) error {
		WriteJSON(w, 200, []byte(r.PathValue("id")))
		return nil
	}
	mux.Handle("GET /events/{id}", done)
	mux.Handle("POST /events/batch", done)
	mux.Handle("DELETE /events/{id}", done)
	for _, c := range []struct {
		method, target string
		status         int
		allow, problem string
	}{
		{"GET", "/events/1", 200, "", ""},
		{"HEAD", "/events/1", 200, "", ""},
		{"GET", "/events/batch", 200, "", ""}, // an event may have the id "batch"
		{"POST", "/events/batch", 200, "", ""},
		{"PUT", "/events/1", 405, "DELETE, GET, HEAD, OPTIONS", "method_not_allowed"},
		{"POST", "/events/1", 405, "DELETE, GET, HEAD, OPTIONS", "method_not_allowed"},
		{"OPTIONS", "/events/1", 204, "DELETE, GET, HEAD, OPTIONS", ""},
		{"OPTIONS", "/events/batch", 204, "DELETE, GET, HEAD, OPTIONS, POST", ""},
		{"GET", "/", 404, "", "not_found"},
		{"OPTIONS", "/nothing", 404, "", "not_found"},
		{"GET", "/events/1/", 404, "", "not_found"},
		{"GET", "//events/1", 404, "", "not_found"},
		{"GET", "/x/../events/1", 404, "", "not_found"},
		{"BREW", "/events/1", 405, "DELETE, GET, HEAD, OPTIONS", "method_not_allowed"},
		{"GET", "/events/1?q=" + strings.Repeat("x", MaxURI), 414, "", "uri_too_long"},
	} {
		w, _ := serve(t, mux, httptest.NewRequest(c.method, c.target, nil))
		name := c.method + " " + c.target[:min(len(c.target), 20)]
		if w.Code != c.status || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s: %d, Allow %q; want %d, %q", name, w.Code, w.Header().Get("Allow"), c.status, c.allow)
		}
		if c.problem != "" {
			if p := problem(t, w); p.Type != TypeURI(c.problem) || p.Status != c.status || p.RequestID == "" {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: no nosniff", name)
		}
	}
}

// Routes without wildcards are found without a search, and just as with one.
func TestFixedRoutes(t *testing.T) {
	mux := new(Mux)
	for _, pattern := range []string{"GET /events", "POST /events", "POST /events/batch", "GET /events/{id}", "GET /tree/"} {
		mux.Handle(pattern, func(w http.ResponseWriter, r *http.Request) error {
			WriteJSON(w, 200, []byte(r.Pattern+" "+r.PathValue("id")))
			return nil
		})
	}
	for _, c := range []struct{ method, target, route, id string }{
		{"GET", "/events", "GET /events", ""},
		{"HEAD", "/events", "GET /events", ""},
		{"POST", "/events?q=1", "POST /events", ""},
		{"POST", "http://other.example.com/events", "POST /events", ""},
		{"POST", "/events/b%61tch", "POST /events/batch", ""},
		{"POST", "/events%2Fbatch", "", ""},
		{"GET", "/events/batch", "GET /events/{id}", "batch"},
		{"GET", "/tree/a", "GET /tree/", ""},
		{"DELETE", "/events", "", ""},
	} {
		w, line := serve(t, mux, httptest.NewRequest(c.method, c.target, nil))
		if found := w.Code == 200; found != (c.route != "") || found && w.Body.String() != c.route+" "+c.id {
			t.Errorf("%s %s: %d %s, want %q and the id %q", c.method, c.target, w.Code, w.Body, c.route, c.id)
		}
		logged := c.route
		if logged == "" {
			logged = "none"
		}
		if !strings.Contains(line, `"route":"`+logged+`"`) {
			t.Errorf("%s %s: the log does not name %s: %s", c.method, c.target, logged, line)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	for _, c := range []struct {
		size   int
		known  bool // by Content-Length
		status int
	}{{0, true, 0}, {1, true, 0}, {1000, true, 0}, {1000, false, 0}, {1001, true, 413}, {1001, false, 413}, {1 << 20, false, 413}} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", c.size)))
		if !c.known {
			r.ContentLength = -1
		}
		body, release, err := ReadBody(r, 1000, nil, share.Party{})
		if c.status == 0 {
			if err != nil || len(body) != c.size {
				t.Errorf("%+v: %d bytes, %v", c, len(body), err)
				continue
			}
			release()
		} else if ProblemOf(err).Status != c.status {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("{"), failing{}))
	if _, _, err := ReadBody(r, 1000, nil, share.Party{}); ProblemOf(err).Status != 400 {
		t.Errorf("a body that broke off: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("reset by 10.0.0.1") }

func TestContentTypes(t *testing.T) {
	for _, c := range []struct {
		contentType, encoding, want string
	}{
		{"application/json", "", "application/json"},
		{"APPLICATION/JSON", "", "application/json"},
		{"application/json; charset=utf-8", "", "application/json"},
		{"application/json;charset=\"UTF-8\"", "identity", "application/json"},
		{"application/x-ndjson", "", "application/x-ndjson"},
		{"application/json; charset=latin1", "", ""},
		{"application/json", "gzip", ""},
		{"text/plain", "", ""},
		{"application/cloudevents+json", "", ""},
		{"", "", ""},
		{";;", "", ""},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		if c.encoding != "" {
			r.Header.Set("Content-Encoding", c.encoding)
		}
		got, err := ContentType(r, "application/json", "application/x-ndjson")
		if got != c.want || (err == nil) == (c.want == "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
		if err != nil && ProblemOf(err).Status != 415 {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAccept(t *testing.T) {
	for accept, want := range map[string]bool{
		"application/json": true, "*/*": true, "application/*": true, "text/html, */*;q=0.1": true,
		"Application/JSON;q=0.5": true, "text/html,application/xhtml+xml,*/*;q=0.8": true, "": true,
		"text/html": false, "application/xml": false, "application/json;q=0": false,
		"*/*, application/json;q=0": false, "application/json;q=0.0, text/*": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		if err := Accepts(r, "application/json"); (err == nil) != want {
			t.Errorf("Accept %q: %v, want taken = %v", accept, err, want)
		}
	}
	if err := Accepts(httptest.NewRequest("GET", "/", nil), "application/json"); err != nil {
		t.Errorf("no Accept: %v", err)
	}
}

func TestRetryAfterAccompaniesWhatPasses(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&posthorn.Error{Code: posthorn.Unavailable, RetryAfter: 1500 * time.Millisecond}, "2"},
		{&posthorn.Error{Code: posthorn.Unavailable}, "1"},
		{&posthorn.Error{Code: posthorn.RateLimited, RetryAfter: time.Minute}, "60"},
		{&posthorn.Error{Code: posthorn.Conflict, RetryAfter: time.Minute}, ""},
	} {
		w, _ := serve(t, Handler(func(http.ResponseWriter, *http.Request) error { return c.err }), httptest.NewRequest("GET", "/", nil))
		if got := w.Header().Get("Retry-After"); got != c.want {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, c.want)
		}
	}
}

func TestClientAddr(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		peer, want string
		forwarded  []string
	}{
		{"192.0.2.1:99", "192.0.2.1", nil},
		{"192.0.2.1:99", "192.0.2.1", []string{"198.51.100.9"}}, // not from a proxy: not believed
		{"10.0.0.1:99", "198.51.100.9", []string{"198.51.100.9"}},
		{"10.0.0.1:99", "198.51.100.9", []string{"1.1.1.1, 198.51.100.9"}}, // the client wrote the first
		{"10.0.0.1:99", "198.51.100.9", []string{"1.1.1.1", "198.51.100.9, 10.2.3.4"}},
		{"[::1]:99", "2001:db8::1", []string{"2001:db8::1"}},
		{"[::ffff:10.0.0.1]:99", "198.51.100.9", []string{"::ffff:198.51.100.9"}},
		{"10.0.0.1:99", "10.0.0.1", []string{"nonsense"}},
		{"10.0.0.1:99", "10.9.9.9", []string{"10.9.9.9"}},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		r.Header["X-Forwarded-For"] = c.forwarded
		if got := ClientAddr(r, proxies); got != netip.MustParseAddr(c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "@"
	if ClientAddr(r, proxies).IsValid() {
		t.Error("a peer without an address has one")
	}
}
