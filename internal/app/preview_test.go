package app

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
)

// A replay by filter sends what its preview counted, all of it and not a page, while
// events are published and fail beside it; of many submits at a time one starts.
func TestAReplaySendsWhatItsPreviewCounted(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path, "POSTHORN_RETRY_SCHEDULE=none")
		api := s.tenant(t, "acme")
		receiver := newMendable(t)
		e := must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}}))(t)
		receiver.set(true)
		since := time.Now().Add(-time.Minute)

		const events, missed = 640, 320 // more than any page has
		want := map[string]int{}
		batch := make([]client.Event, events)
		for i := range batch {
			// Every second one is taken: the breaker stays closed.
			batch[i] = client.Event{ID: fmt.Sprint("e-", i), Type: "cases.updated", Data: fmt.Appendf(nil, `{"hard":%v}`, i%2 == 0)}
			if i%2 == 0 {
				want[batch[i].ID] = 1
			}
		}
		must(api.SendBatch(t.Context(), batch))(t)
		eventually(t, "all to have failed or succeeded", func() bool {
			return len(deliveries(t, api, client.DeliveryFilter{State: "failed"})) == missed && len(deliveries(t, api, client.DeliveryFilter{State: "succeeded"})) == events-missed
		})
		until := time.Now()

		stop, published := make(chan struct{}), sync.WaitGroup{}
		published.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					_, err := api.Send(t.Context(), client.Event{ID: fmt.Sprint("later-", i), Type: "cases.updated", Data: fmt.Appendf(nil, `{"hard":%v}`, i%2 == 0)})
					if err != nil && t.Context().Err() == nil {
						t.Error(err)
						return
					}
				}
			}
		})
		defer published.Wait()
		defer close(stop)
		eventually(t, "later ones to fail", func() bool { return len(deliveries(t, api, client.DeliveryFilter{State: "failed", Since: until})) > 5 })

		n := client.NewReplay{Since: since, Until: until, Types: []string{"cases.*"}, States: []string{"failed"}}
		plan := must(api.PlanReplay(t.Context(), e.ID, n))(t)
		if plan.Total != missed || len(plan.Samples) == 0 || plan.Samples[0].Event != "e-0" {
			t.Fatalf("the preview counts %d of %d: %+v", plan.Total, missed, plan.Samples)
		}

		receiver.set(false)
		p := oneOf(t, api, e.ID, n)
		p = over(t, api, p)
		if c := p.Counts; c.Total != plan.Total || c.Sent+c.Skipped != c.Total || c.Succeeded != plan.Total {
			t.Errorf("the preview counted %d, and the replay %+v", plan.Total, c)
		}
		got := receiver.received()
		maps.DeleteFunc(got, func(id string, _ int) bool { return strings.HasPrefix(id, "later-") })
		if !maps.Equal(got, want) {
			t.Errorf("%d of %d came, each once: %v", len(got), len(want), maps.Equal(got, want))
		}
	})
}

// oneOf submits a replay eight times at once: each time with a key of its own, so
// that each is a new request. One starts and the others are 409. Then the first
// request is repeated with its key: it is the same replay.
func oneOf(t *testing.T, api *client.Client, endpoint string, n client.NewReplay) *client.Replay {
	t.Helper()
	n.RatePerSecond = 200 // so that it runs while the others come
	var started []*client.Replay
	var keys []string
	var mu sync.Mutex
	var clicks sync.WaitGroup
	for i := range 8 {
		clicks.Go(func() {
			key := fmt.Sprint("click-", i)
			p, err := api.CreateReplay(client.WithIdempotencyKey(t.Context(), key), endpoint, n)
			mu.Lock()
			defer mu.Unlock()
			if problem, ok := errors.AsType[*client.Error](err); ok && problem.Status == http.StatusConflict {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			started, keys = append(started, p), append(keys, key)
		})
	}
	clicks.Wait()
	if len(started) != 1 {
		t.Fatalf("%d replays were started at once", len(started))
	}
	again := must(api.CreateReplay(client.WithIdempotencyKey(t.Context(), keys[0]), endpoint, n))(t)
	if again.ID != started[0].ID {
		t.Errorf("the same request made %s and %s", started[0].ID, again.ID)
	}
	all := 0
	for _, err := range api.Replays(t.Context(), endpoint) {
		if err != nil {
			t.Fatal(err)
		}
		all++
	}
	if all != 1 {
		t.Errorf("%d replays are listed", all)
	}
	return started[0]
}
