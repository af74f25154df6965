package cli_test

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
	"time"

	"github.com/posthorn/posthorn/internal/app"
	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/webhook"
)

// server is a service with a receiver, for scripts.
type server struct {
	URL string
	// Token is that of the tenant acme, Admin the platform's.
	Token, Admin string
	// Receiver answers 200, and 503 below /fail.
	Receiver string
	// Store and Keys are the settings that it runs with.
	Store, Keys string
	// Good is a receiver that does as it should, with GoodSecret.
	Good, GoodSecret string
	close            func() error
	cfg              config.Config
}

// startServer starts the service that "posthorn serve" would, in dir.
func startServer(dir string, more ...string) (*server, error) {
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "served.db")
	keys := secretbox.Generate("k1")
	cfg, err := config.Load(config.Sources{Environ: append([]string{
		"POSTHORN_LISTEN=" + listen, "POSTHORN_OPS_LISTEN=off", "POSTHORN_STORE=sqlite:" + path,
		"POSTHORN_ENCRYPTION_KEYS=" + keys,
		"POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8", "POSTHORN_LOG_LEVEL=error",
		// A second attempt within a script would depend on how fast the machine is.
		"POSTHORN_RETRY_SCHEDULE=1h", "POSTHORN_RETRY_JITTER=0", "POSTHORN_SHUTDOWN_DELAY=0",
	}, more...)})
	if err != nil {
		return nil, err
	}
	s := &server{URL: "http://" + listen, Store: path, Keys: keys, cfg: cfg}
	stop, err := s.serve()
	if err != nil {
		return nil, err
	}
	receiver := httptest.NewServer(http.HandlerFunc(receive))
	s.Receiver = receiver.URL
	good, secret, err := goodReceiver()
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	s.Good, s.GoodSecret = good.URL, secret
	s.close = func() error {
		defer receiver.Close()
		defer good.Close()
		return stop()
	}
	s.Token, err = makeToken(path, "--tenant", "acme", "--scope", "webhooks:read,webhooks:write,events:publish")
	if err == nil {
		s.Admin, err = makeToken(path, "--platform", "--scope", "admin,webhooks:read,events:publish")
	}
	return s, err
}

// serve runs the service until stop is called.
func (s *server) serve() (stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Serve(ctx, s.cfg, io.Discard, os.Stderr) }()
	stop = func() error { cancel(); return <-ended }
	return stop, s.await(ended)
}

// receive is rude in what it says, to see what the terminal gets of it.
func receive(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	if strings.HasPrefix(r.URL.Path, "/fail/rude") {
		w.Header().Set("Server", "s\x1b[2J\u009d0;t\u202e\x7f\x08")
		w.Header().Set("X-Request-Id", "\u2066id\u200f\x9b5n")
	}
	testOnly := strings.HasPrefix(r.URL.Path, "/tests-only") && r.Header.Get("posthorn-test") != "true"
	if testOnly || strings.HasPrefix(r.URL.Path, "/fail") {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	if strings.HasPrefix(r.URL.Path, "/fail/rude") {
		io.WriteString(w, "\u009b31m \u202egnp.exe\u2069 \x7f\x1b]0;title\x07 \x9b2J\r\n")
	}
	io.WriteString(w, "busy\x1b[31m\nnot red")
}

func goodReceiver() (*httptest.Server, string, error) {
	secret := webhook.NewSecret()
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		return nil, "", err
	}
	rc := &webhook.Receiver{Verifier: verifier}
	return httptest.NewServer(rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))), secret, nil
}

// freeAddress finds a port that is free now. Another process could take it
// before the service does; then the service says so and the test fails.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// await waits until the service is ready.
func (s *server) await(ended chan error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if resp, err := http.Get(s.URL + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return fmt.Errorf("the service ended: %w", err)
		case <-deadline:
			return fmt.Errorf("the service was not ready in time")
		}
	}
}

func makeToken(path string, args ...string) (string, error) {
	var out, talk strings.Builder
	args = append([]string{"token", "create", "--store", "sqlite:" + path}, args...)
	if code := cli.Run(context.Background(), args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &talk}, programs()); code != 0 {
		return "", fmt.Errorf("token create exits with %d: %s", code, talk.String())
	}
	return strings.TrimSpace(out.String()), nil
}
