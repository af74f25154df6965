package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/proof"
)

// patching changes endpoints, each as fast as it can, until the test calls stop, which
// returns how often.
func patching(t *testing.T, api *client.Client, ids ...string) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var n atomic.Int64
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				text := fmt.Sprint("change ", i)
				ch := client.EndpointChange{Description: &text, Events: []string{"cases.*"}}
				if i%2 == 0 {
					ch.Events = []string{"cases.*", "assignments.*"}
				}
				if _, err := api.UpdateEndpoint(ctx, id, ch); err == nil {
					n.Add(1)
				}
			}
		})
	}
	return func() int64 { cancel(); wg.Wait(); return n.Load() }
}

// published publishes events one after the other from a few callers, without
// repeating any, and returns how long each took and what was not answered 202.
func (s *service) published(t *testing.T, token string, callers, each int) (took []time.Duration, refused map[int]int) {
	t.Helper()
	refused = map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				r, err := http.NewRequest("POST", s.base+"/v2.3/webhooks/events", strings.NewReader(`{"type":"cases.closed","data":{}}`))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+token)
				r.Header.Set("Content-Type", "application/json")
				began := time.Now()
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				mu.Lock()
				took = append(took, time.Since(began))
				if resp.StatusCode != http.StatusAccepted {
					refused[resp.StatusCode]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, refused
}

// TestAPatchLoopFailsNoPublish: however fast a tenant changes its endpoints, what it
// publishes is accepted.
func TestAPatchLoopFailsNoPublish(t *testing.T) {
	onBothStores(t, func(t *testing.T, s *service, api *client.Client) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer receiver.Close()
		e, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL, Events: []string{"cases.*"}})
		if err != nil {
			t.Fatal(err)
		}
		each := 150
		if proof.RaceDetector { // it takes a second for each
			each = 20
		}
		stop := patching(t, api, e.ID, e.ID, e.ID)
		took, refused := s.published(t, s.token(t, "acme"), 4, each)
		t.Logf("%d changes beside %d publishes, median %s, slowest %s", stop(), len(took), took[len(took)/2], took[len(took)-1])
		if len(refused) > 0 {
			t.Errorf("publishes were refused: %v", refused)
		}
	})
}
