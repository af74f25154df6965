package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
)

// network is a whole service with one partner whose endpoints are about to be
// sent to, over real sockets and by a name server of the test's own.
type network struct {
	*node
	at      *service
	partner *client.Client
}

// networkForTest starts one. zone may be nil; more are settings, which are the
// defaults otherwise: no http, nothing private.
func networkForTest(t *testing.T, zone hell.Zone, more ...string) *network {
	t.Helper()
	var change []func(*send.Config)
	if zone != nil {
		dns := hell.NewNameServer(t, zone)
		change = append(change, func(c *send.Config) { c.Resolver = dns.Resolver() })
	}
	return networkOn(t, filepath.Join(t.TempDir(), "posthorn.db"), change, more...)
}

// networkOn starts one on a file or a database, whose client for deliveries is
// changed.
func networkOn(t *testing.T, path string, change []func(*send.Config), more ...string) *network {
	t.Helper()
	w := &network{at: &service{path: path, log: &proof.Output{}}}
	if !strings.Contains(path, "://") {
		path = "sqlite:" + path
	}
	cfg, err := config.Load(config.Sources{Environ: append([]string{
		"POSTHORN_LISTEN=127.0.0.1:0", "POSTHORN_OPS_LISTEN=127.0.0.1:0", "POSTHORN_STORE=" + path,
		"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1"), "POSTHORN_RETRY_SCHEDULE=none", "POSTHORN_SHUTDOWN_DELAY=0", "POSTHORN_DRAIN_TIMEOUT=1s",
		"POSTHORN_MAX_IN_FLIGHT=32", // the name server is one socket, whose buffer a burst of hundreds overflows
	}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	log, flush := newLogger(w.at.log, &cfg)
	t.Cleanup(flush)
	if w.node, err = newNode(t.Context(), cfg, log, nil, change...); err != nil {
		t.Fatal(err)
	}
	if err := w.node.start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(w.node.abandon(err))
	}
	t.Cleanup(func() { w.node.stop() })
	_, port, _ := net.SplitHostPort(w.listener.Addr().String())
	w.at.base = "http://127.0.0.1:" + port
	// By its own store: what another process writes is noticed half a second later, and
	// turns attempts back that have dialed and sent nothing.
	w.partner = w.at.partner(t, tokenIn(t, w.node.store, "acme"))
	return w
}

// limitSeconds is what an attempt may take.
const limitSeconds = 3

// endpoint registers a url.
func (w *network) endpoint(t *testing.T, url string, events ...string) string {
	t.Helper()
	if events == nil {
		events = []string{"*"}
	}
	e, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: url, Events: events})
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	_, err = w.store.UpdateSettings(t.Context(), store.Change{Actor: "test", At: time.Now()}, 1, e.ID, 0, func(s *posthorn.Settings) error {
		s.TimeoutSeconds = limitSeconds
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// deliver publishes an event and returns what the API says of its deliveries, by
// endpoint, once all have ended.
func (w *network) deliver(t *testing.T, data string) map[string]*client.Delivery {
	t.Helper()
	event, err := w.partner.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	byEndpoint := map[string]*client.Delivery{}
	eventually(t, "all deliveries ended", func() bool {
		clear(byEndpoint)
		for d, err := range w.partner.Deliveries(t.Context(), client.DeliveryFilter{Event: event.ID}) {
			if err != nil {
				t.Fatal(err)
			}
			if !d.Final() {
				return false
			}
			byEndpoint[d.Endpoint] = d
		}
		return len(byEndpoint) == event.Deliveries
	})
	return byEndpoint
}

// refusal returns the sentence with which an endpoint's url was refused, or fails.
func refusal(t *testing.T, what string, err error) string {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != http.StatusUnprocessableEntity && e.Status != http.StatusBadRequest {
		t.Errorf("%s: %v, want a refusal", what, err)
		return ""
	}
	for _, f := range e.Faults {
		if f.Pointer == "/url" {
			return f.Detail
		}
	}
	t.Errorf("%s: no fault at /url: %v", what, err)
	return ""
}

// addressFree fails if a text that a partner reads holds an address.
func addressFree(t *testing.T, what, text string) {
	t.Helper()
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" ()[];,\"", r) }) {
		word = strings.TrimRight(word, ".:")
		host, _, err := net.SplitHostPort(word)
		if err != nil {
			host = word
		}
		if net.ParseIP(host) != nil {
			t.Errorf("%s: the partner reads an address: %s", what, text)
		}
	}
}

func TestScheduleNoneMeansOneAttempt(t *testing.T) {
	r := hell.Listen(t, nil, hell.Answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"))
	w := networkForTest(t, nil, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.1/32")
	id := w.endpoint(t, r.URL())
	if d := w.deliver(t, `{}`)[id]; d.State != "failed" || d.AttemptsMade != 1 {
		t.Errorf("%s after %d attempts, want failed after one", d.State, d.AttemptsMade)
	}
}
