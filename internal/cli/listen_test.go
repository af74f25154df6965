package cli_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/webhook"
)

// running is a command that runs until it is interrupted.
type running struct {
	t         *testing.T
	out, talk proof.Output
	interrupt func()
	exit      chan int
}

func start(t *testing.T, environ []string, args ...string) *running {
	ctx, cancel := context.WithCancel(t.Context())
	c := &running{t: t, interrupt: cancel, exit: make(chan int, 1)}
	go func() {
		c.exit <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: &c.out, Err: &c.talk, Environ: environ}, programs())
	}()
	t.Cleanup(cancel)
	return c
}

// says waits until the command has said something.
func (c *running) says(what string) {
	c.t.Helper()
	eventually(c.t, what, func() bool { return strings.Contains(c.talk.String(), what) })
}

func (c *running) exits(code int) {
	c.t.Helper()
	select {
	case got := <-c.exit:
		if got != code {
			c.t.Errorf("it exits with %d, not %d: %s", got, code, c.talk.String())
		}
	case <-time.After(30 * time.Second):
		c.t.Fatalf("it does not exit: %s", c.talk.String())
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// hook is the developer's program.
type hook struct {
	mu   sync.Mutex
	got  map[string][]string // bodies by webhook-id
	head http.Header         // of the last one
	URL  string
}

func newHook(t *testing.T) *hook {
	h := &hook{got: map[string][]string{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		id := r.Header.Get("webhook-id")
		h.got[id] = append(h.got[id], string(body))
		h.head = r.Header
		if strings.Contains(string(body), "teapot") {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(s.Close)
	h.URL = s.URL + "/hooks"
	return h
}

func (h *hook) bodies(id string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got[id]
}

func (h *hook) header() http.Header {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.head.Clone()
}

// Events are published all the time while the server is restarted, twice. Each
// that was accepted arrives, once, and byte for byte.
func TestListenSurvivesARestartWithoutLosingAnEvent(t *testing.T) {
	s, acme, _ := service(t)
	h := newHook(t)
	environ := []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}
	listen := start(t, environ, "listen", "--forward-to", h.URL, "--types", "cases.*")
	listen.says("Ready")

	var mu sync.Mutex
	accepted := map[string]string{}
	publishing := make(chan struct{})
	var publishers sync.WaitGroup
	for p := range 3 {
		publishers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-publishing:
					return
				default:
				}
				id := fmt.Sprintf("p%d-%d", p, n)
				data := fmt.Sprintf("{ \"n\": %d,\r\n \"x\":\"\\/\" }", n)
				// What is not answered is asked again by the client, with the same id.
				if _, err := acme.Send(t.Context(), client.Event{ID: id, Type: "cases.updated", Data: []byte(data)}); err == nil {
					mu.Lock()
					accepted[id] = data
					mu.Unlock()
				}
			}
		})
	}
	stop := s.close
	s.close = func() error { return nil }
	for range 2 {
		mu.Lock()
		before := len(accepted)
		mu.Unlock()
		eventually(t, "events", func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) > before+50 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		listen.says("The connection is lost")
		var err error
		if stop, err = s.serve(); err != nil {
			t.Fatal(err)
		}
	}
	defer stop()
	mu.Lock()
	before := len(accepted)
	mu.Unlock()
	eventually(t, "events after the restarts", func() bool { mu.Lock(); defer mu.Unlock(); return len(accepted) > before+50 })
	close(publishing)
	publishers.Wait()
	if _, err := acme.Send(t.Context(), client.Event{ID: "last", Type: "cases.updated", Data: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last event", func() bool { return h.bodies("last") != nil })
	for id, data := range accepted {
		got := h.bodies(id)
		if len(got) != 1 || !strings.HasSuffix(got[0], `,"data":`+data+`}`) {
			t.Errorf("%s came as %q, want once with %q", id, got, data)
		}
	}
	t.Logf("%d events", len(accepted))
	listen.says("Connected again")
	listen.interrupt()
	listen.exits(0)
}

func TestListenSendsWhatARealDeliveryIs(t *testing.T) {
	s, acme, _ := service(t)
	h := newHook(t)
	environ := []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}
	listen := start(t, environ, "listen", "--forward-to", h.URL)
	listen.says("Ready")
	secret := regexp.MustCompile(`whsec_\S+`).FindString(listen.talk.String())
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		t.Fatalf("%q: %v", secret, err)
	}
	e, err := acme.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"id": 590}`), Test: true})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event", func() bool { return h.bodies(e.ID) != nil })
	head := h.header()
	if err := verifier.Verify(head, []byte(h.bodies(e.ID)[0])); err != nil {
		t.Error(err)
	}

	// The same event as the service delivers it has the same headers.
	direct := newHook(t)
	if _, err := acme.CreateEndpoint(t.Context(), client.NewEndpoint{URL: direct.URL, Events: []string{"cases.*"}}); err != nil {
		t.Fatal(err)
	}
	if e, err = acme.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"id": 590}`), Test: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event, twice", func() bool { return direct.bodies(e.ID) != nil && h.bodies(e.ID) != nil })
	if direct.bodies(e.ID)[0] != h.bodies(e.ID)[0] {
		t.Errorf("listen sends %q, the service %q", h.bodies(e.ID), direct.bodies(e.ID))
	}
	real, mine := direct.header(), h.header()
	for name := range real {
		same := real.Get(name) == mine.Get(name)
		if name == "Webhook-Signature" || name == "Posthorn-Delivery" || name == "Webhook-Timestamp" {
			same = len(real.Get(name)) == len(mine.Get(name))
		}
		if !same {
			t.Errorf("%s is %q, of a delivery %q", name, mine.Get(name), real.Get(name))
		}
	}
	if len(real) != len(mine) {
		t.Errorf("headers %v, of a delivery %v", mine, real)
	}

	// A failure is shown with its sentence, and the next event follows.
	if _, err := acme.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{"x":"teapot"}`)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a line of the failure", func() bool {
		return strings.Contains(listen.out.String(), "-> 418") && strings.Contains(listen.out.String(), "only 2xx acknowledges")
	})
	listen.interrupt()
	listen.exits(0)
	if got := strings.Count(listen.out.String(), "-> 200"); got != 2 {
		t.Errorf("%d lines of successes:\n%s", got, listen.out.String())
	}
	again := start(t, environ, "listen", "--forward-to", h.URL)
	again.says(secret)
}

func TestListenGivesUpInTheEnd(t *testing.T) {
	s, _, _ := service(t)
	environ := []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}
	listen := start(t, environ, "listen", "--forward-to", "http://127.0.0.1:9/", "--reconnect-for", "300ms")
	tail := start(t, environ, "event", "tail", "-o", "jsonl")
	listen.says("Ready")
	tail.says("Following")
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s.close = func() error { return nil }
	listen.exits(7)
	start(t, environ, "listen", "--forward-to", "http://127.0.0.1:9/").exits(7) // and does not wait for a first one
	tail.interrupt()
	tail.exits(0)
}

func TestTailPrintsEventsAsTheyComeIn(t *testing.T) {
	s, acme, _ := service(t)
	environ := []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}
	lines := start(t, environ, "event", "tail", "-o", "jsonl", "--types", "cases.closed")
	table := start(t, environ, "event", "tail")
	lines.says("Following")
	table.says("Following")
	for _, e := range []client.Event{{ID: "a", Type: "cases.updated", Data: []byte(`{}`)}, {ID: "b", Type: "cases.closed", Data: []byte("{ \"n\":\n1152921504606846977}")}} {
		if _, err := acme.Send(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both events", func() bool { return strings.Count(table.out.String(), "\n") == 2 })
	eventually(t, "one event", func() bool { return strings.Count(lines.out.String(), "\n") == 1 })
	if got := lines.out.String(); !strings.HasPrefix(got, `{"id":"b","type":"cases.closed","timestamp":"`) || !strings.HasSuffix(got, `,"data":{"n":1152921504606846977}}`+"\n") {
		t.Errorf("%s", got)
	}
}

// needs skips a test where programs are missing; on a build server it fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is needed", program)
			}
			t.Skipf("%s is needed", program)
		}
	}
}

// A context's token is as good as one of the environment, and signs alike.
func TestListenTakesServerAndTokenOfAContext(t *testing.T) {
	s, _, _ := service(t)
	h := newHook(t)
	home := []string{"HOME=" + t.TempDir()}
	if code, _, talk := run(t, append(home, "POSTHORN_TOKEN="+s.Token), "context", "add", "local", "--server", s.URL); code != 0 {
		t.Fatalf("it exits with %d: %s", code, talk)
	}
	var secrets []string
	for _, environ := range [][]string{home, {"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}} {
		listen := start(t, environ, "listen", "--forward-to", h.URL)
		listen.says("Ready")
		secrets = append(secrets, regexp.MustCompile(`whsec_\S+`).FindString(listen.talk.String()))
		listen.interrupt()
		listen.exits(0)
	}
	if secrets[0] == "" || secrets[0] != secrets[1] {
		t.Errorf("it signs with %q", secrets)
	}
}
