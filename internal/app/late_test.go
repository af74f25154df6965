package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// wire is the network that attempts go out to, over real sockets. It notes when the
// first byte of each request is handed to the system, so that what lies in a
// receiver's queue counts for nothing.
type wire struct {
	mu     sync.Mutex
	begun  []begun
	dialed int
	hold   chan struct{} // dials wait for it; nil for not
}

// begun is a request that went out.
type begun struct {
	at   time.Time
	path string
}

func (w *wire) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed++
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return stamping{nc, w}, nil
}

type stamping struct {
	net.Conn
	w *wire
}

func (s stamping) Write(b []byte) (int, error) {
	if line, ok := bytes.CutPrefix(b, []byte("POST ")); ok {
		at := time.Now()
		path, _, _ := bytes.Cut(line, []byte(" "))
		s.w.mu.Lock()
		s.w.begun = append(s.w.begun, begun{at, string(path)})
		s.w.mu.Unlock()
	}
	return s.Conn.Write(b)
}

// count returns how many requests to a path went out, and how many dials there were.
func (w *wire) count(path string) (requests, dials int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.begun {
		if b.path == path {
			requests++
		}
	}
	return requests, w.dialed
}

func (w *wire) some(path string) bool { n, _ := w.count(path); return n > 0 }

// late returns how many requests to a path went out after a time, and by how much
// the last one.
func (w *wire) late(path string, after time.Time) (n int, most time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.begun {
		if b.path == path && b.at.After(after) {
			n++
			most = max(most, b.at.Sub(after))
		}
	}
	return n, most
}

func (w *wire) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = w.begun[:0]
}

// beforeBothStores runs a test that starts services of its own, on SQLite and PostgreSQL.
func beforeBothStores(t *testing.T, test func(t *testing.T, path func() string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, func() string { return filepath.Join(t.TempDir(), rand.Text()+".db") })
	})
	t.Run("postgres", func(t *testing.T) {
		pgtest.Database(t, "") // skips
		test(t, func() string { return pgtest.Database(t, "") })
	})
}

// brake is a change after which nothing more begins, or nothing to the old url.
type brake struct {
	name        string
	pull, loose func(w *network, endpoint, tenant string) error
}

func setURL(to string) func(w *network, endpoint, tenant string) error {
	return func(w *network, endpoint, _ string) error {
		_, err := w.partner.UpdateEndpoint(context.Background(), endpoint, client.EndpointChange{URL: &to})
		return err
	}
}

func setStatus(to string) func(w *network, endpoint, tenant string) error {
	return func(w *network, endpoint, _ string) error {
		_, err := w.partner.UpdateEndpoint(context.Background(), endpoint, client.EndpointChange{Status: &to})
		return err
	}
}

func setSuspended(to bool) func(w *network, endpoint, tenant string) error {
	return func(w *network, _, tenant string) error {
		ten, err := w.store.TenantByName(context.Background(), tenant)
		if err == nil {
			_, err = w.store.SuspendTenant(context.Background(), store.Change{Actor: "test", At: time.Now()}, ten.ID, to)
		}
		return err
	}
}

func setSending(to bool) func(w *network, endpoint, tenant string) error {
	return func(w *network, _, _ string) error {
		return w.store.SetSending(context.Background(), store.Change{Actor: "test", At: time.Now()}, to)
	}
}

func brakes(oldURL, newURL string) []brake {
	return []brake{
		{"pause", setStatus("paused"), setStatus("active")},
		{"url", setURL(newURL), setURL(oldURL)},
		{"suspension", setSuspended(true), setSuspended(false)},
		{"sending off", setSending(false), setSending(true)},
	}
}

// TestNothingBeginsOnceAChangeIsAnswered: attempts that were decided on, and wait
// while they dial, do not go out once a pause, a new url, a suspension or the
// installation's brake is answered. They use no step, and are made when that ends.
func TestNothingBeginsOnceAChangeIsAnswered(t *testing.T) {
	beforeBothStores(t, func(t *testing.T, path func() string) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer receiver.Close()
		for _, b := range brakes(receiver.URL+"/old", receiver.URL+"/new") {
			t.Run(b.name, func(t *testing.T) {
				out := &wire{}
				w := networkOn(t, path(), []func(*send.Config){func(c *send.Config) { c.Dial = out.Dial }},
					"POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8")
				id := w.endpoint(t, receiver.URL+"/old")
				out.hold = make(chan struct{})
				sent, err := w.partner.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{}`)})
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "the attempt dials", func() bool { _, n := out.count(""); return n == 1 })
				if err := b.pull(w, id, "acme"); err != nil {
					t.Fatal(err)
				}
				answered := time.Now()
				close(out.hold)
				eventually(t, "the attempt ends, or goes to the new url", func() bool {
					n, _ := out.count("/new")
					return w.engine.Stats().InFlight == 0 && (n == 1 || b.name != "url") || out.some("/old")
				})
				if n, most := out.late("/old", answered); n > 0 {
					t.Errorf("%d attempts began up to %s after the answer", n, most)
				}
				if err := b.loose(w, id, "acme"); err != nil {
					t.Fatal(err)
				}
				var d *client.Delivery
				eventually(t, "it is delivered", func() bool {
					for d, err = range w.partner.Deliveries(t.Context(), client.DeliveryFilter{Event: sent.ID}) {
						if err != nil {
							t.Fatal(err)
						}
					}
					return d.Final()
				})
				if d.State != "succeeded" || d.AttemptsMade != 1 {
					t.Errorf("%s after %d attempts, want succeeded after one", d.State, d.AttemptsMade)
				}
			})
		}
	})
}

// TestNothingBeginsLateAtSaturation is the same with both processors busy: what
// was decided on and waits for its turn to run does not go out either.
func TestNothingBeginsLateAtSaturation(t *testing.T) {
	beforeBothStores(t, func(t *testing.T, path func() string) {
		rounds := 6
		if testing.Short() || proof.RaceDetector { // which sees all in the first
			rounds = 2
		}
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer receiver.Close()
		out := &wire{}
		w := networkOn(t, path(), []func(*send.Config){func(c *send.Config) { c.Dial = out.Dial }},
			"POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8", "POSTHORN_MAX_IN_FLIGHT=256")
		id := w.endpoint(t, receiver.URL+"/old")
		other := w.at.tenant(t, "other")
		for range 3 {
			if _, err := other.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL + "/beside", Events: []string{"*"}}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var publishers sync.WaitGroup
		defer publishers.Wait()
		defer cancel()
		batch := make([]client.Event, 50)
		for i := range batch {
			batch[i] = client.Event{Type: "cases.closed", Data: []byte(`{"filler":"` + strings.Repeat("x", 500) + `"}`)}
		}
		for i := range 8 {
			from := w.partner
			if i%2 == 1 {
				from = other
			}
			publishers.Go(func() {
				for ctx.Err() == nil {
					if _, err := from.SendBatch(ctx, batch); err != nil && !pauseForTest(ctx, 10*time.Millisecond) {
						return
					}
				}
			})
		}
		for _, b := range brakes(receiver.URL+"/old", receiver.URL+"/new") {
			total, most := 0, time.Duration(0)
			for range rounds {
				out.clear()
				eventually(t, "attempts are made", func() bool { n, _ := out.count("/old"); return n >= 20 })
				if err := b.pull(w, id, "acme"); err != nil {
					t.Fatal(err)
				}
				answered := time.Now()
				eventually(t, "the others are sent to, or nothing is in flight", func() bool {
					n, _ := out.count("/beside")
					return b.name == "sending off" && w.engine.Stats().InFlight == 0 || n >= 150
				})
				n, late := out.late("/old", answered)
				total, most = total+n, max(most, late)
				if err := b.loose(w, id, "acme"); err != nil {
					t.Fatal(err)
				}
			}
			if total > 0 {
				t.Errorf("%s: %d attempts began after the answer in %d rounds, up to %s late", b.name, total, rounds, most)
			}
		}
	})
}

// pauseForTest waits and reports whether ctx lives.
func pauseForTest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
