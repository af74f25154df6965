package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
)

// eventually waits for a condition; a minute, since the machine may be busy and a
// binary may have to be built.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	eventuallyWithin(t, 3*time.Minute, what, holds)
}

// runDev starts dev in dir and returns what it prints and what ends it.
func runDev(t *testing.T, dir string, more ...string) (out *proof.Output, stop func() error) {
	t.Helper()
	cfg, err := config.LoadDev(config.Sources{Environ: append([]string{"POSTHORN_SAMPLES=50ms", "POSTHORN_OPS_LISTEN=off"}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = dir
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := &proof.Output{}, make(chan error, 1)
	go func() {
		err := Dev(ctx, cfg, out, out)
		if err != nil {
			fmt.Fprintln(out, err) // a test that waits shows it
		}
		ended <- err
	}()
	return out, func() error { cancel(); return <-ended }
}

func TestDevShowsVerifiedDeliveriesAndKeepsItsData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	var tokens []string
	for run := range 2 {
		out, stop := runDev(t, dir)
		eventually(t, "three verified deliveries", func() bool { return strings.Count(out.String(), "signature valid") >= 3 })
		if err := stop(); err != nil {
			t.Fatalf("run %d: Ctrl-C ended it with %v\n%s", run, err, out)
		}
		if strings.Contains(out.String(), "NOT valid") {
			t.Errorf("run %d: a signature is not valid:\n%s", run, out)
		}
		_, rest, _ := strings.Cut(out.String(), "Token   ")
		token, _, _ := strings.Cut(rest, "\n")
		tokens = append(tokens, token)
	}
	if tokens[0] != tokens[1] || tokens[0] == "" {
		t.Errorf("the second run has another token: %q", tokens)
	}
	for _, name := range []string{"posthorn.db", "token", "encryption-keys"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; others may not read it", name, info.Mode(), err)
		}
	}
}

func TestDevsInboxFailsOnRequestAndAttemptsComeAgain(t *testing.T) {
	out, stop := runDev(t, filepath.Join(t.TempDir(), "dev"), "POSTHORN_RETRY_SCHEDULE=5s", "POSTHORN_SAMPLES=1h")
	defer stop()
	eventually(t, "a verified delivery", func() bool { return strings.Contains(out.String(), "signature valid") })
	_, rest, _ := strings.Cut(out.String(), "curl -X POST '")
	url, _, _ := strings.Cut(rest, "/fail")
	post(t, url+"/fail?for=2s&status=500", http.StatusOK)
	post(t, url+"/fail?for=never", http.StatusBadRequest)
	_, rest, _ = strings.Cut(out.String(), "Token   ")
	token, _, _ := strings.Cut(rest, "\n")
	_, rest, _ = strings.Cut(out.String(), "API     ")
	base, _, _ := strings.Cut(rest, "/v2.3")
	api, err := client.New(client.Config{Server: base, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"id":590}`)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second attempt", func() bool { return strings.Contains(out.String(), "attempt 2  cases.closed") })
	if s := out.String(); !strings.Contains(s, "<- 500 FAIL  attempt 1  cases.closed") || !strings.Contains(s, "<- 204 ok    attempt 2  cases.closed") {
		t.Errorf("what the inbox printed:\n%s", s)
	}
}

func post(t *testing.T, url string, want int) {
	t.Helper()
	resp, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("POST %s: %d, want %d", url, resp.StatusCode, want)
	}
}

func TestDevTakesAFreePortOnlyWhenNoneWasChosen(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, stop := runDev(t, t.TempDir(), "POSTHORN_LISTEN="+ln.Addr().String())
	if err := stop(); err == nil || !strings.Contains(err.Error(), "in use by another program") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("a chosen port that is taken: %v", err)
	}
	got, free, err := listenOrFree(ln.Addr().String())
	if err != nil || !free {
		t.Fatalf("no free port instead of a taken one: %v", err)
	}
	got.Close()
}

// A laptop may run two at once: the second takes free ports for all it opens.
func TestTwoDevsBesideEachOther(t *testing.T) {
	for range 2 {
		out, stop := runDev(t, filepath.Join(t.TempDir(), "dev"))
		eventually(t, "a verified delivery", func() bool { return strings.Contains(out.String(), "signature valid") })
		defer stop()
	}
}

func TestDevStaysOnThisMachine(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.168.1.1:80"} {
		_, stop := runDev(t, t.TempDir(), "POSTHORN_LISTEN="+listen)
		if err := stop(); posthorn.ErrorCode(err) != posthorn.Invalid {
			t.Errorf("dev on %s: %v, want a refusal", listen, err)
		}
	}
}

func TestResetLeavesForeignFoldersAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := resetDev(dir); err == nil {
		t.Error("a folder that dev did not make was emptied")
	}
}

// service is a node that a test started.
type service struct {
	base, ops string
	path      string
	stop      func() error
	log       *proof.Output
}

func serveForTest(t *testing.T, more ...string) *service {
	t.Helper()
	return serveStore(t, filepath.Join(t.TempDir(), "posthorn.db"), more...)
}

// serveStore starts a node on a file that may be there.
func serveStore(t *testing.T, path string, more ...string) *service {
	t.Helper()
	s := &service{path: path, log: &proof.Output{}}
	cfg := loadServe(t, path, more...)
	s.base, s.ops = "http://"+cfg.Listen, "http://"+cfg.OpsListen
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, cfg, io.Discard, s.log) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { s.stop() })
	eventually(t, "readiness", func() bool {
		resp, err := http.Get(s.base + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return s
}

// loadServe makes the settings of a node on a file.
func loadServe(t *testing.T, path string, more ...string) config.Config {
	t.Helper()
	cfg, err := config.Load(config.Sources{Environ: append([]string{
		"POSTHORN_LISTEN=" + freeAddress(t), "POSTHORN_OPS_LISTEN=" + freeAddress(t), "POSTHORN_STORE=sqlite:" + path,
		"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1"), "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8",
		"POSTHORN_SHUTDOWN_DELAY=0", // no balancer to wait for
	}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func freeAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// tenant makes a tenant with a token by the store, as the command does beside a
// running server.
func (s *service) tenant(t *testing.T, name string) *client.Client {
	t.Helper()
	return s.partner(t, s.token(t, name))
}

func (s *service) partner(t *testing.T, token string) *client.Client {
	t.Helper()
	api, err := client.New(client.Config{Server: s.base, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func (s *service) token(t *testing.T, name string) string {
	t.Helper()
	admin, err := OpenStore(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	return tokenIn(t, admin, name)
}

// tokenIn makes a token of a tenant, which it makes if there is none.
func tokenIn(t *testing.T, admin store.Store, name string) string {
	t.Helper()
	by := store.Change{Actor: "test", At: time.Now()}
	tenant, err := admin.TenantByName(t.Context(), name)
	if errors.Is(err, store.ErrNotFound) {
		tenant, err = admin.CreateTenant(t.Context(), by, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, hash := access.NewToken()
	_, err = admin.CreateToken(t.Context(), by, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, by.At), Tenant: tenant.ID, Hash: hash, CreatedAt: by.At,
		Scopes: []string{access.ScopeRead, access.ScopeWrite, access.ScopePublish},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestGoneEndpointIsPausedAndItsOwnersAreTold(t *testing.T) {
	s := serveForTest(t)
	api := s.tenant(t, "acme")
	told := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		body, _ := io.ReadAll(r.Body)
		told <- string(body)
	}))
	defer receiver.Close()
	gone, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL + "/gone", Events: []string{"cases.*", "webhooks.*"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL + "/told", Events: []string{"webhooks.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"id":590}`)}); err != nil {
		t.Fatal(err)
	}
	select {
	case body := <-told:
		for _, want := range []string{`"type":"webhooks.endpoint.paused"`, `"endpoint":"` + gone.ID + `"`, `"reason":"gone"`, "410 Gone"} {
			if !strings.Contains(body, want) {
				t.Errorf("the operational event lacks %s: %s", want, body)
			}
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("nobody was told that the endpoint was paused")
	}
	h, err := api.EndpointHealth(t.Context(), gone.ID)
	if err != nil || h.Condition != "paused" || h.Reason != "gone" {
		t.Errorf("health %+v, %v", h, err)
	}
	for _, want := range []string{
		`posthorn_events_published_total 1`, `posthorn_attempts_total{class="http_status"} 1`, `posthorn_attempts_total{class="ok"} 1`,
		`posthorn_endpoints_paused_total{reason="gone"} 1`, `posthorn_deliveries_finished_total{state="succeeded"} 1`, "posthorn_publish_to_delivery_seconds_count 1",
		"posthorn_deliveries_open 1", "posthorn_attempts_in_flight 0",
	} {
		eventually(t, "the metrics say "+want, func() bool {
			_, figures := get(t, s.ops+"/metrics")
			return strings.Contains(figures, want+"\n")
		})
	}
	eventually(t, "the log has a line for the attempt that failed", func() bool { return strings.Contains(s.log.String(), `"msg":"attempt"`) })
	if log := s.log.String(); strings.Contains(log, "/gone") {
		t.Errorf("the log has a url's path in it:\n%s", log)
	}
}

// Profiles tell an operator much, and anyone who reaches them too: they are off
// unless switched on, and never where the API is.
func TestProfilesAreOffByDefault(t *testing.T) {
	const path = "/debug/pprof/goroutine?debug=1"
	for name, want := range map[string]int{"POSTHORN_PPROF=false": http.StatusNotFound, "POSTHORN_PPROF=true": http.StatusOK} {
		s := serveForTest(t, name)
		if status, body := get(t, s.ops+path); status != want {
			t.Errorf("%s: %d %.200s, want %d", name, status, body, want)
		}
		if status, _ := get(t, s.base+path); status != http.StatusNotFound {
			t.Errorf("%s: the API's listener answers %d", name, status)
		}
	}
}

func TestServeDrainsAndNothingIsLostByIt(t *testing.T) {
	s := serveForTest(t, "POSTHORN_DRAIN_TIMEOUT=20s")
	api := s.tenant(t, "acme")
	var mu sync.Mutex
	got := map[string]int{}
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-release
		mu.Lock()
		defer mu.Unlock()
		got[r.Header.Get("webhook-id")]++
	}))
	defer receiver.Close()
	if _, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"*"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := api.Send(t.Context(), client.Event{ID: fmt.Sprint("e", i), Type: "cases.closed", Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	eventually(t, "the listener's end", func() bool {
		resp, err := http.Get(s.base + "/readyz")
		if err != nil {
			return true
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	close(release)
	if err := <-stopped; err != nil {
		t.Fatalf("the drain: %v\n%s", err, s.log)
	}
	admin, err := OpenStore(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	log, _, err := admin.Deliveries(t.Context(), store.DeliveryFilter{Tenant: 1}, store.Page{Limit: 100})
	if err != nil || len(log) != 5 {
		t.Fatalf("%d deliveries, %v", len(log), err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, d := range log {
		done, sent := d.Progress.State == posthorn.Succeeded, got[d.EventRef]
		if done && sent != 1 || !done && sent != 0 {
			t.Errorf("%s stands at %v and was received %d times", d.EventRef, d.Progress.State, sent)
		}
	}
}

func TestServeSaysWhatIsWrongBeforeItStarts(t *testing.T) {
	s := serveForTest(t)
	taken := strings.TrimPrefix(s.base, "http://")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("neither a catalogue nor a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := "POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")
	for _, c := range []struct {
		name string
		env  []string
		code posthorn.Code
		want string
	}{
		{"port taken", []string{"POSTHORN_LISTEN=" + taken, key}, posthorn.Internal, "in use by another program"},
		{"store locked", []string{"POSTHORN_LISTEN=127.0.0.1:0", key, "POSTHORN_STORE=sqlite:" + s.path}, posthorn.Conflict, s.path},
		{"no catalogue", []string{"POSTHORN_LISTEN=127.0.0.1:0", key, "POSTHORN_CATALOG=" + text}, posthorn.Internal, text},
		{"no authority", []string{"POSTHORN_LISTEN=127.0.0.1:0", key, "POSTHORN_EGRESS_CA=" + text}, posthorn.Internal, "holds no PEM certificate"},
		{"no certificate", []string{"POSTHORN_LISTEN=127.0.0.1:0", key, "POSTHORN_TLS_CERT=" + text, "POSTHORN_TLS_KEY=" + text}, posthorn.Internal, "--tls-cert: certificate and key do not make a pair"},
	} {
		env := append([]string{"POSTHORN_OPS_LISTEN=off", "POSTHORN_STORE=sqlite:" + filepath.Join(t.TempDir(), "other.db")}, c.env...)
		cfg, err := config.Load(config.Sources{Environ: env})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		err = Serve(t.Context(), cfg, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || posthorn.ErrorCode(err) != c.code {
			t.Errorf("%s: %v, want it to say %q", c.name, err, c.want)
		}
	}
}
