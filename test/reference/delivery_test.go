package reference

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthorn/posthorn/internal/proof"
)

var long = flag.Bool("long", false, "also run what takes minutes: the default retry schedule in real time")

// delivery is one request that a receiver got.
type delivery struct {
	at     time.Time
	header http.Header
	body   string
}

// recorder is a receiver that answers 503 to the first requests and 204 to the
// others.
type recorder struct {
	failures int
	mu       sync.Mutex
	got      []delivery
	count    atomic.Int64
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, delivery{at, req.Header.Clone(), string(body)})
	if r.count.Add(1) <= int64(r.failures) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// wait returns the requests once there are n.
func (r *recorder) wait(t *testing.T, n int, limit time.Duration) []delivery {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("%d requests within %s, want %d", r.count.Load(), limit, n))
	defer cancel()
	if err := proof.Until(ctx, 5*time.Millisecond, func() (bool, error) { return r.count.Load() >= int64(n), nil }); err != nil {
		t.Fatalf("%v (now %d)", err, r.count.Load())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

// publish sends an event and returns its id.
func publish(t *testing.T, api proof.API, eventType, data string) string {
	t.Helper()
	var e struct {
		ID         string `json:"id"`
		Deliveries int    `json:"deliveries"`
	}
	if err := api.Call(t.Context(), http.MethodPost, "/events", []byte(`{"type":"`+eventType+`","data":`+data+`}`), &e); err != nil {
		t.Fatal(err)
	}
	if e.Deliveries != 1 {
		t.Fatalf("%s has %d deliveries, want 1", eventType, e.Deliveries)
	}
	return e.ID
}

// TestOfficialLibraryVerifies: a receiver that knows nothing of Posthorn but the
// endpoint's secret verifies each attempt with the Standard Webhooks library,
// and refuses it when a byte is changed.
func TestOfficialLibraryVerifies(t *testing.T) {
	api := serve(t, "--retry-schedule", "1s,1s", "--retry-jitter", "0")
	r := &recorder{failures: 2}
	e, err := api.CreateEndpoint(t.Context(), receiver(t, r.ServeHTTP), "active", "cases.*")
	if err != nil {
		t.Fatal(err)
	}
	library, err := standardwebhooks.NewWebhook(e.Secret)
	if err != nil {
		t.Fatalf("the library does not take the secret: %v", err)
	}
	// Bytes that a careless service would change: spaces, an escaped slash, a
	// number beyond 2^53, an emoji, a key order.
	const data = `{"z": 1e2, "case_id":590 ,"url":"https:\/\/x.example","big":9007199254740993,"name":"Zoë \ud83d\ude9a 🚚"}`
	id := publish(t, api, "cases.tasks.created", data)
	got := r.wait(t, 3, 15*time.Second)
	for i, d := range got {
		if err := library.Verify([]byte(d.body), d.header); err != nil {
			t.Errorf("attempt %d does not verify: %v", i+1, err)
		}
		if err := library.Verify([]byte(strings.Replace(d.body, "590", "591", 1)), d.header); err == nil {
			t.Errorf("attempt %d verifies with a changed body", i+1)
		}
		if d.body != got[0].body || !strings.HasSuffix(d.body, `,"data":`+data+`}`) {
			t.Errorf("attempt %d has the body %s", i+1, d.body)
		}
		for name, want := range map[string]string{"Webhook-Id": id, "Content-Type": "application/json", "Posthorn-Attempt": fmt.Sprint(i + 1), "Posthorn-Event-Type": "cases.tasks.created"} {
			if d.header.Get(name) != want {
				t.Errorf("attempt %d: %s is %q, want %q", i+1, name, d.header.Get(name), want)
			}
		}
	}
	for i := 1; i < len(got); i++ {
		if wait := got[i].at.Sub(got[i-1].at); wait < 990*time.Millisecond || wait > 3*time.Second {
			t.Errorf("attempt %d came %s after the one before, want 1s", i+1, wait)
		}
	}
}

// TestDefaultScheduleInRealTime: 5 s, then 5 min, each ±20 %, with no setting
// changed.
func TestDefaultScheduleInRealTime(t *testing.T) {
	if !*long {
		t.Skip("takes 6 minutes; run it with -long (make schedule)")
	}
	api := serve(t)
	r := &recorder{failures: 2}
	if _, err := api.CreateEndpoint(t.Context(), receiver(t, r.ServeHTTP), "active", "cases.*"); err != nil {
		t.Fatal(err)
	}
	publish(t, api, "cases.updated", `{"case_id":590}`)
	got := r.wait(t, 3, 7*time.Minute)
	for i, want := range []time.Duration{5 * time.Second, 5 * time.Minute} {
		wait := got[i+1].at.Sub(got[i].at)
		t.Logf("attempt %d came %s after attempt %d", i+2, wait.Round(time.Millisecond), i+1)
		// A second for the attempt itself and a busy machine.
		if wait < want*8/10 || wait > want*12/10+time.Second {
			t.Errorf("attempt %d came %s after the one before, want %s ±20 %%", i+2, wait, want)
		}
	}
}
