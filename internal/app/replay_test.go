package app

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// mendable is a receiver that can be broken and mended; it notes what it got by
// webhook-id.
type mendable struct {
	*httptest.Server
	mu     sync.Mutex
	broken bool
	got    map[string]int // acknowledged
	asked  int
}

func newMendable(t *testing.T) *mendable {
	m := &mendable{got: map[string]int{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked++
		// Some of what it gets it takes all the same: the lane's breaker stays closed.
		if m.broken && strings.Contains(string(body), `"hard":true`) {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "the database of the receiver is away")
			return
		}
		m.got[r.Header.Get("webhook-id")]++
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mendable) set(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
	m.got, m.asked = map[string]int{}, 0
}

func (m *mendable) received() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.got)
}

// onEachStore runs a test on SQLite, and on PostgreSQL where there is one.
func onEachStore(t *testing.T, test func(t *testing.T, path string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "posthorn.db")) })
	t.Run("postgres", func(t *testing.T) {
		server, err := pgtest.Start()
		if errors.Is(err, pgtest.ErrNotInstalled) && os.Getenv("POSTHORN_CI") == "" {
			t.Skip("PostgreSQL is not installed: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		})
		test(t, server.URL())
	})
}

func serveOn(t *testing.T, path string, more ...string) *service {
	t.Helper()
	return serveStore(t, path, append(more, "POSTHORN_STORE="+storeURL(path), "POSTHORN_OPS_LISTEN=off")...)
}

func storeURL(path string) string {
	if strings.Contains(path, "://") {
		return path
	}
	return "sqlite:" + path
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func deliveries(t *testing.T, api *client.Client, f client.DeliveryFilter) (all []*client.Delivery) {
	t.Helper()
	for d, err := range api.Deliveries(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// over waits until all of a replay has ended.
func over(t *testing.T, api *client.Client, p *client.Replay) *client.Replay {
	t.Helper()
	eventually(t, "the end of the replay", func() bool {
		p = must(api.Replay(t.Context(), p.ID))(t)
		return p.Over()
	})
	return p
}

// The story: an endpoint breaks, the log says why, it is mended, a dry run counts
// what was missed, a replay delivers exactly that, and the endpoint is healthy.
func TestTheStoryOfABrokenEndpoint(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path, "POSTHORN_RETRY_SCHEDULE=none")
		api := s.tenant(t, "acme")
		receiver := newMendable(t)
		began := time.Now().Add(-time.Minute)
		e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)

		receiver.set(true)
		const events, missed = 60, 40
		want := map[string]int{}
		for i := range events {
			a := must(api.Send(t.Context(), client.Event{ID: fmt.Sprint("e-", i), Type: "cases.updated", Data: fmt.Appendf(nil, `{"n":%d,"hard":%v}`, i, i%3 != 0)}))(t)
			if i%3 != 0 {
				want[a.ID] = 1
			}
		}
		eventually(t, "all to have failed or succeeded", func() bool {
			return len(deliveries(t, api, client.DeliveryFilter{State: "failed"})) == missed && len(deliveries(t, api, client.DeliveryFilter{State: "succeeded"})) == events-missed
		})

		// The log says why.
		for _, d := range deliveries(t, api, client.DeliveryFilter{State: "failed", Endpoint: e.ID}) {
			a := d.Attempts[0]
			if len(d.Attempts) != 1 || a.Status != 500 || !strings.HasPrefix(a.Explanation, "The receiver answered 500: it failed on its side") ||
				a.ResponseBody != "the database of the receiver is away" || a.DurationMS <= 0 || a.Timings.FirstByteMS <= 0 || !d.NextAttemptAt.IsZero() {
				t.Fatalf("the log does not say why: %+v", d)
			}
		}

		counted := func(succeeded, failed int) { // each delivery by the state that it has
			t.Helper()
			got := must(api.EndpointStats(t.Context(), e.ID, time.Time{}))(t)
			attempts, ends := client.AttemptCounts{Succeeded: succeeded, Failed: missed}, client.DeliveryCounts{Succeeded: succeeded, Failed: failed}
			if got.Attempts != attempts || got.Deliveries != ends {
				t.Errorf("the statistics count %+v and %+v, want %+v and %+v", got.Attempts, got.Deliveries, attempts, ends)
			}
		}
		counted(events-missed, missed)

		receiver.set(false)
		n := client.NewReplay{Since: began}
		plan := must(api.PlanReplay(t.Context(), e.ID, n))(t)
		if plan.Total != missed || plan.Samples[0].Event != "e-1" || plan.Samples[0].State != "failed" {
			t.Fatalf("the dry run counts %+v", plan)
		}
		if got := receiver.received(); len(got) != 0 {
			t.Fatalf("a dry run sent %v", got)
		}
		p := over(t, api, must(api.CreateReplay(t.Context(), e.ID, n))(t))
		if c := p.Counts; p.State != "completed" || c.Total != missed || c.Sent != missed || c.Succeeded != missed || c.Failed+c.Skipped+c.Waiting != 0 {
			t.Errorf("%+v", p)
		}
		if got := receiver.received(); !maps.Equal(got, want) {
			t.Errorf("the replay delivered %v", got)
		}
		if left := deliveries(t, api, client.DeliveryFilter{State: "failed"}); len(left) != 0 {
			t.Errorf("%d are failed still", len(left))
		}
		if h := must(api.EndpointHealth(t.Context(), e.ID))(t); h.Condition != "healthy" || h.Waiting != 0 {
			t.Errorf("the endpoint is not well: %+v", h)
		}
		counted(events, 0)
		if again := must(api.CreateReplay(t.Context(), e.ID, n))(t); again.Counts.Total != 0 || again.State != "completed" {
			t.Errorf("a second replay has something to send: %+v", again)
		}

		// What was sent before it existed goes to a new endpoint, with the same ids.
		receiver.set(false)
		late := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL + "/late", Events: []string{"cases.updated"}}))(t)
		p = over(t, api, must(api.CreateReplay(t.Context(), late.ID, client.NewReplay{Since: began, Missing: true}))(t))
		if p.Counts.Succeeded != events || len(receiver.received()) != events {
			t.Errorf("missing: %+v, %d received", p.Counts, len(receiver.received()))
		}
		if got := deliveries(t, api, client.DeliveryFilter{Endpoint: late.ID}); len(got) != events || got[0].State != "succeeded" {
			t.Errorf("%d late deliveries in the log", len(got))
		}
		if err := api.DeleteEndpoint(t.Context(), late.ID, ""); err != nil {
			t.Fatal(err)
		}
		if got := deliveries(t, api, client.DeliveryFilter{Endpoint: late.ID}); len(got) != events {
			t.Errorf("%d deliveries of a deleted endpoint in the log", len(got))
		}
	})
}

func TestRetryingAndCancelingByHand(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path, "POSTHORN_RETRY_SCHEDULE=1h,1h")
		api := s.tenant(t, "acme")
		receiver := newMendable(t)
		receiver.set(true)
		e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)
		send := func(id string) *client.Delivery {
			t.Helper()
			must(api.Send(t.Context(), client.Event{ID: id, Type: "cases.updated", Data: []byte(`{"hard":true}`)}))(t)
			return deliveries(t, api, client.DeliveryFilter{Event: id})[0]
		}
		attempted := func(id string, n int) (d *client.Delivery) {
			t.Helper()
			eventually(t, fmt.Sprintf("attempt %d of %s", n, id), func() bool {
				d = must(api.Delivery(t.Context(), id))(t)
				return d.AttemptsMade >= n
			})
			return d
		}
		waits := send("waits")
		attempted(waits.ID, 1)
		if d := must(api.RetryDelivery(t.Context(), waits.ID))(t); d.State != "pending" {
			t.Errorf("%+v", d)
		}
		if d := attempted(waits.ID, 2); d.State != "pending" || !d.Attempts[1].Manual || d.NextAttemptAt.Before(time.Now().Add(30*time.Minute)) {
			t.Errorf("it does not go on with its schedule: %+v", d)
		}
		if d := must(api.CancelDelivery(t.Context(), waits.ID))(t); d.State != "canceled" || d.Reason != "canceled_by_user" {
			t.Errorf("%+v", d)
		}
		// A failure leaves the final state as it is, a success does not.
		must(api.RetryDelivery(t.Context(), waits.ID))(t)
		if d := attempted(waits.ID, 3); d.State != "canceled" || d.Reason != "canceled_by_user" {
			t.Errorf("%+v", d)
		}
		// Five failures in a row: only probes are made, but for what was asked for by hand.
		others := []*client.Delivery{send("a"), send("b"), send("c"), send("d"), send("f"), send("g")}
		eventually(t, "the breaker to open", func() bool {
			h := must(api.EndpointHealth(t.Context(), e.ID))(t)
			return h.Condition == "failing"
		})
		receiver.set(false)
		must(api.RetryDelivery(t.Context(), waits.ID))(t)
		if d := attempted(waits.ID, 4); d.State != "succeeded" || d.Reason != "" {
			t.Errorf("%+v", d)
		}
		for _, d := range others[:2] {
			eventually(t, "the resend of "+d.Event, func() bool {
				if _, err := api.ResendEvent(t.Context(), d.Event, e.ID); err != nil {
					if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusConflict {
						t.Fatal(err)
					}
				}
				return must(api.Delivery(t.Context(), d.ID))(t).State == "succeeded"
			})
		}
		if n := must(api.CancelEvent(t.Context(), others[2].Event))(t); n.Canceled > 1 {
			t.Errorf("%+v", n)
		}

		paused := "paused"
		must(api.UpdateEndpoint(t.Context(), e.ID, client.EndpointChange{Status: &paused}))(t)
		for i := range 5 {
			send(fmt.Sprint("held-", i))
		}
		must(api.RetryDelivery(t.Context(), waits.ID))(t)
		if d := attempted(waits.ID, 5); d.State != "succeeded" || !d.Attempts[4].Manual {
			t.Errorf("a retry at a paused endpoint: %+v", d)
		}
		f := client.PendingFilter{States: []string{"held"}, Types: []string{"cases.*"}, DryRun: true}
		would := must(api.CancelPending(t.Context(), e.ID, f, nil))(t).Canceled
		if would < 5 {
			t.Errorf("%d would be canceled", would)
		}
		f.DryRun = false
		if done := must(api.CancelPending(t.Context(), e.ID, f, nil))(t); done.Canceled != would || done.More {
			t.Errorf("%+v, want %d", done, would)
		}
		if h := must(api.EndpointHealth(t.Context(), e.ID))(t); h.Waiting != 0 {
			t.Errorf("%d wait", h.Waiting)
		}
	})
}

// A replay goes on where it stood when the service was stopped, keeps its rate, and
// new events go first.
func TestAReplaySurvivesARestart(t *testing.T) {
	onEachStore(t, replaySurvivesARestart)
}

func replaySurvivesARestart(t *testing.T, path string) {
	keys := "POSTHORN_ENCRYPTION_KEYS=k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	s := serveOn(t, path, keys, "POSTHORN_RETRY_SCHEDULE=none")
	api := s.tenant(t, "acme")
	receiver := newMendable(t)
	receiver.set(true)
	e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)
	const missed = 30
	for i := range 2 * missed {
		must(api.Send(t.Context(), client.Event{Type: "cases.updated", Data: fmt.Appendf(nil, `{"hard":%v}`, i%2 == 0)}))(t)
	}
	eventually(t, "all to have failed", func() bool { return len(deliveries(t, api, client.DeliveryFilter{State: "failed"})) == missed })
	receiver.set(false)
	p := must(api.CreateReplay(t.Context(), e.ID, client.NewReplay{Since: time.Now().Add(-time.Hour), RatePerSecond: 20}))(t)
	began := time.Now()
	eventually(t, "some to be sent", func() bool { return must(api.Replay(t.Context(), p.ID))(t).Counts.Succeeded > 5 })
	if p = must(api.PauseReplay(t.Context(), p.ID))(t); p.State != "paused" || p.Counts.Sent >= missed {
		t.Fatalf("%+v", p)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = serveOn(t, path, keys, "POSTHORN_RETRY_SCHEDULE=none")
	api = s.tenant(t, "acme")
	if now := must(api.Replay(t.Context(), p.ID))(t); now.State != "paused" || now.Counts.Sent < p.Counts.Sent {
		t.Errorf("after the restart: %+v, before: %+v", now, p)
	}
	must(api.ResumeReplay(t.Context(), p.ID))(t)
	p = over(t, api, p)
	if c := p.Counts; c.Succeeded != missed || c.Sent != missed || c.Skipped != 0 {
		t.Errorf("%+v", c)
	}
	if took := time.Since(began); took < (missed-8)*time.Second/20 {
		t.Errorf("%d at 20 a second took %s", missed, took)
	}
	got := slices.Sorted(maps.Keys(receiver.received()))
	if len(got) != missed {
		t.Errorf("%d of %d were delivered", len(got), missed)
	}
}
