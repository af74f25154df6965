package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
)

// A test does not wait behind an endpoint's backlog and its breaker, is made once,
// and changes nothing of the endpoint's health.
func TestATestIsSentAtOnceAndOnce(t *testing.T) {
	s := serveForTest(t, "POSTHORN_RETRY_SCHEDULE=5s,5s")
	api := s.tenant(t, "acme")
	var tests atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("posthorn-test") == "true" {
			tests.Add(1)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "no")
	}))
	defer receiver.Close()
	e, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]client.Event, 200)
	for i := range batch {
		batch[i] = client.Event{Type: "cases.closed", Data: []byte(`{}`)}
	}
	if _, err := api.SendBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the breaker opens", func() bool {
		_, figures := get(t, s.ops+"/metrics")
		return strings.Contains(figures, `posthorn_attempts_total{class="http_status"} 5`+"\n")
	})
	before, err := api.EndpointHealth(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	test, err := api.TestEndpoint(t.Context(), e.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	var d *client.Delivery
	began := time.Now()
	eventually(t, "the result", func() bool {
		d, err = api.Delivery(t.Context(), test.Delivery)
		return err == nil && d.Final()
	})
	if d.State != "failed" || d.AttemptsMade != 1 || d.Attempts[0].Status != 503 || d.Attempts[0].ResponseBody != "no" || time.Since(began) > 4*time.Second {
		t.Errorf("%+v after %s", d, time.Since(began))
	}
	after, err := api.EndpointHealth(t.Context(), e.ID)
	if err != nil || !after.Since.Equal(before.Since) || after.Condition != before.Condition {
		t.Errorf("health %+v, before %+v, %v", after, before, err)
	}
	if n := tests.Load(); n != 1 {
		t.Errorf("%d tests were sent", n)
	}
}

// A node that stops cuts a test short, and the next start makes it, once.
func TestATestThatAStopCutsShortIsMadeByTheNextStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	settings := []string{"POSTHORN_ENCRYPTION_KEYS=k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "POSTHORN_DRAIN_TIMEOUT=1s"}
	s := serveStore(t, path, settings...)
	api := s.tenant(t, "acme")
	var requests atomic.Int64
	release := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer receiver.Close()
	defer close(release)
	e, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}})
	if err != nil {
		t.Fatal(err)
	}
	test, err := api.TestEndpoint(t.Context(), e.ID, "cases.updated")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request", func() bool { return requests.Load() == 1 })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = serveStore(t, path, settings...)
	api = s.tenant(t, "acme")
	var d *client.Delivery
	eventually(t, "the result", func() bool {
		d, err = api.Delivery(t.Context(), test.Delivery)
		return err == nil && d.Final()
	})
	if d.State != "failed" || d.AttemptsMade != 1 || requests.Load() != 2 {
		t.Errorf("%+v, %d requests", d, requests.Load())
	}
}
