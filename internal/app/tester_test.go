package app

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
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

// A paused endpoint can be tested, and what a user asks for by hand is sent to it, so
// that a fixed receiver can be tried. What else waits there waits.
func TestAPausedEndpointIsTestedAndRetried(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path)
		api := s.tenant(t, "acme")
		for name, settings := range map[string]client.SettingsChange{
			"no settings": {}, "ordered": {Ordered: new(true)}, "max_in_flight": {MaxInFlight: new(1), RatePerSecond: new(50.0)},
		} {
			receiver := newMendable(t)
			e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)
			must(api.UpdateSettings(t.Context(), e.ID, settings))(t)
			status := func(status string) {
				must(api.UpdateEndpoint(t.Context(), e.ID, client.EndpointChange{Status: &status}))(t)
			}
			status("paused")
			var events []string
			for i := range 3 {
				events = append(events, must(api.Send(t.Context(), client.Event{Type: "cases.closed", Data: fmt.Appendf(nil, `{"n":%d}`, i)}))(t).ID)
			}
			test := must(api.TestEndpoint(t.Context(), e.ID, ""))(t)
			head := deliveries(t, api, client.DeliveryFilter{Event: events[0], Endpoint: e.ID})[0]
			must(api.RetryDelivery(t.Context(), head.ID))(t)
			for _, id := range []string{test.Delivery, head.ID} {
				var d *client.Delivery
				eventually(t, "the result at an endpoint with "+name, func() bool {
					d = must(api.Delivery(t.Context(), id))(t)
					return d.Final()
				})
				if d.State != "succeeded" || d.AttemptsMade != 1 {
					t.Errorf("%s: %+v", name, d)
				}
			}
			if got := receiver.received(); len(got) != 2 || got[events[0]] != 1 {
				t.Errorf("%s: while it is paused it received %v", name, got)
			}
			status("active")
			eventually(t, "what was held", func() bool { return len(receiver.received()) == 4 })
		}
	})
}

// A test's result that cannot be written at first is written later: the receiver is
// not asked again.
func TestATestsResultIsRecordedWhenTheStoreCanBeWrittenAgain(t *testing.T) {
	s := serveForTest(t)
	api := s.tenant(t, "acme")
	db := must(sql.Open("sqlite", "file:"+s.path+"?_txlock=immediate"))(t)
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var requests atomic.Int64
	var lock sync.Once
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		lock.Do(func() {
			if _, err := db.BeginTx(ctx, nil); err != nil { // until cancel
				t.Error(err)
			}
		})
	}))
	defer receiver.Close()
	e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)
	test := must(api.TestEndpoint(t.Context(), e.ID, ""))(t)
	eventually(t, "a result that is not recorded", func() bool { return strings.Contains(s.log.String(), "a result could not be recorded") })
	cancel()
	var d *client.Delivery
	eventually(t, "the result", func() bool {
		d = must(api.Delivery(t.Context(), test.Delivery))(t)
		return d.Final()
	})
	if d.State != "succeeded" || d.AttemptsMade != 1 || requests.Load() != 1 {
		t.Errorf("%+v after %d requests", d, requests.Load())
	}
}
