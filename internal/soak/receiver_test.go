package soak

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// kind is how a receiver behaves, and what it subscribes to.
type kind string

const (
	steady  kind = "steady"  // acknowledges at once
	flaky   kind = "flaky"   // refuses some first attempts
	slow    kind = "slow"    // takes 300 ms
	moody   kind = "moody"   // is down for a while, now and then
	ordered kind = "ordered" // keeps publish order, and is flaky
	toggled kind = "toggled" // is paused and resumed
	fluid   kind = "fluid"   // comes and goes

	late     kind = "late"     // hostile: answers when nobody waits for it any more
	dripping kind = "dripping" // hostile: its answer's body never ends
	dear     kind = "dear"     // hostile: its filter costs what it may
)

// orderly are the endpoints that each orderly tenant has to the end.
var orderly = []kind{steady, flaky, slow, moody, ordered, toggled}

// nasty are those of the hostile tenant, which makes them anew now and then.
var nasty = []kind{late, dripping, dear}

func (k kind) types() []string {
	switch k {
	case steady, flaky, fluid:
		return []string{"cases.*"}
	case slow, moody, toggled:
		return []string{"cases.tasks.*"}
	case ordered:
		return []string{"assignments.*"}
	case dear:
		return []string{"cases.expenses.*"}
	default:
		return []string{"cases.updated"}
	}
}

// settings is a merge patch; "" for none.
func (k kind) settings(short bool) string {
	switch {
	case k == ordered:
		return `{"ordered":true}`
	case k == dear:
		return `{"filter":"data.list.exists(x, [data,data,data] == [data,data,data,x])"}`
	case k == late && short:
		return `{"timeout_seconds":2}`
	case k == dripping && short:
		return `{"timeout_seconds":4}`
	}
	return ""
}

// door is a URL that receives.
type door struct {
	tenant *tenant
	kind   kind
	mu     sync.Mutex
	keys   []*standardwebhooks.Webhook // newest first
}

// kept is how many secrets may be valid at once.
const kept = 5

func (d *door) trusts(secret string) {
	v, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		panic(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = append([]*standardwebhooks.Webhook{v}, d.keys[:min(len(d.keys), kept-1)]...)
}

func (d *door) verify(body []byte, h http.Header) (err error) {
	d.mu.Lock()
	keys := d.keys
	d.mu.Unlock()
	for _, k := range keys {
		if err = k.Verify(body, h); err == nil {
			return nil
		}
	}
	return err
}

// door is the receiver at a path, made if it is not there.
func (w *world) door(path string, tn *tenant, k kind) *door {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.doors[path]
	if !ok {
		d = &door{tenant: tn, kind: k}
		w.doors[path] = d
	}
	return d
}

// shut forgets a path, when nothing comes there any more.
func (w *world) shut(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.doors, path)
}

// receive starts the receivers and returns their URL.
func (w *world) receive() string {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		d := w.doors[r.URL.Path]
		w.mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil && d != nil && d.kind == late {
			w.ledger.gaveUp()
			return
		}
		if err != nil || d == nil {
			w.ledger.fault("%s: a request to nobody, or cut off: %v", r.URL.Path, err)
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		if err := d.verify(body, r.Header); err != nil {
			w.ledger.fault("%s received %s with a signature that does not verify: %v", r.URL.Path, r.Header.Get("webhook-id"), err)
		}
		w.answer(rw, r, d, string(body))
	}))
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

// answer is what a receiver of its kind answers; what comes of it is counted before the
// answer is out, so that the service never knows more.
func (w *world) answer(rw http.ResponseWriter, r *http.Request, d *door, body string) {
	in := arrival{door: d, path: r.URL.Path, event: r.Header.Get("webhook-id"), delivery: r.Header.Get("posthorn-delivery"),
		test: r.Header.Get("posthorn-test") == "true"}
	_, in.data, _ = strings.Cut(body, `,"data":`)
	in.data = strings.TrimSuffix(in.data, "}")
	refuse := false
	switch d.kind {
	case flaky, ordered:
		refuse = w.mood.refuses(in.delivery)
	case slow:
		_ = wait(r.Context(), 300*time.Millisecond)
	case moody:
		refuse = w.mood.isDown()
	case late:
		if wait(r.Context(), w.patience()+5*time.Second) != nil {
			w.ledger.arrived(in, timedOut)
			return
		}
	}
	if refuse {
		w.ledger.arrived(in, refused)
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.ledger.arrived(in, acknowledged)
	if d.kind == dripping {
		drip(rw, r)
	}
}

// drip sends a body that has no end.
func drip(rw http.ResponseWriter, r *http.Request) {
	rw.(http.Flusher).Flush() // its head acknowledges
	for wait(r.Context(), 200*time.Millisecond) == nil {
		if _, err := io.WriteString(rw, "x"); err != nil {
			return
		}
		rw.(http.Flusher).Flush()
	}
}

// patience is how long the service waits for a hostile receiver.
func (w *world) patience() time.Duration {
	if w.short() {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// mood is whether receivers refuse.
type mood struct {
	down, calm   atomic.Bool
	sinceRefusal atomic.Int64
	seen         sync.Map // deliveries that a flaky receiver refused; each is tried again
}

func (m *mood) isDown() bool { return m.down.Load() && !m.calm.Load() }

// refuses reports whether a flaky receiver fails this attempt: the first of a delivery,
// unless one of the last nine requests failed. (Five in a row would make the service probe
// the endpoint, which is the moody one's part.)
func (m *mood) refuses(delivery string) bool {
	if m.calm.Load() || m.sinceRefusal.Add(1) < 10 {
		return false
	}
	if _, again := m.seen.LoadOrStore(delivery, true); again {
		m.seen.Delete(delivery)
		return false
	}
	m.sinceRefusal.Store(0)
	return true
}

// calm has every receiver acknowledge from now on.
func (w *world) calm() { w.mood.calm.Store(true) }
