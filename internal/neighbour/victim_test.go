package neighbour

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn/internal/proof"
)

// perSecond is how many events the victim publishes, and listEvery how often it looks
// at its log.
const (
	perSecond = 50
	listEvery = 200 * time.Millisecond
)

// victim is the tenant that keeps to its share.
type victim struct {
	api proof.API
	// fresh makes a connection for each request.
	fresh    proof.API
	endpoint string

	mu      sync.Mutex
	n       int
	arrived map[string]chan struct{}
}

// noticed is what the victim saw in one window of time.
type noticed struct {
	asked                   int
	publish, deliver, lists time.Duration // p99
	refused                 []string
}

func (n noticed) String() string {
	return fmt.Sprintf("p99 publish %.1f ms, delivered %.1f ms, list %.1f ms, %d requests, %d refused",
		ms(n.publish), ms(n.deliver), ms(n.lists), n.asked, len(n.refused))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// newTenant makes a tenant's token by the platform's.
func newToken(ctx context.Context, platform proof.API, tenant string) (proof.API, error) {
	body, err := json.Marshal(map[string]any{"tenant": tenant, "scopes": []string{"webhooks:read", "webhooks:write", "events:publish"}})
	if err != nil {
		return proof.API{}, err
	}
	var made struct {
		Token string `json:"token"`
	}
	err = platform.Call(ctx, http.MethodPost, "/tokens", body, &made)
	return proof.API{URL: platform.URL, Token: made.Token}, err
}

func newTenant(ctx context.Context, platform proof.API, name string) error {
	return platform.Call(ctx, http.MethodPost, "/tenants", []byte(`{"name":"`+name+`"}`), nil)
}

func newVictim(ctx context.Context, t *testing.T, platform proof.API) (*victim, error) {
	v := &victim{arrived: make(map[string]chan struct{})}
	receiver := httptest.NewServer(http.HandlerFunc(v.receive))
	t.Cleanup(func() { receiver.CloseClientConnections(); receiver.Close() })
	if err := newTenant(ctx, platform, "victim"); err != nil {
		return nil, err
	}
	var err error
	if v.api, err = newToken(ctx, platform, "victim"); err != nil {
		return nil, err
	}
	kept := &http.Transport{MaxIdleConnsPerHost: 64}
	v.api.HTTP = &http.Client{Transport: kept, Timeout: 30 * time.Second}
	v.fresh = v.api
	v.fresh.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext}, Timeout: 30 * time.Second}
	t.Cleanup(kept.CloseIdleConnections)
	made, err := v.api.CreateEndpoint(ctx, receiver.URL+"/victim", "active", "cases.*")
	v.endpoint = made.ID
	return v, err
}

func (v *victim) receive(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	v.mu.Lock()
	defer v.mu.Unlock()
	if there := v.arrived[r.Header.Get("webhook-id")]; there != nil {
		close(there)
		delete(v.arrived, r.Header.Get("webhook-id"))
	}
}

// watch opens a stream, and counts what a replay would send.
func (v *victim) watch(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.api.URL+proof.Base+"/stream", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+v.api.Token)
	resp, err := v.fresh.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &proof.Status{Method: http.MethodGet, Path: "/stream", Code: resp.StatusCode}
	}
	return v.api.Call(ctx, http.MethodPost, "/endpoints/"+v.endpoint+"/replays", []byte(`{"since":"2020-01-01T00:00:00Z","dry_run":true}`), nil)
}

// measure publishes and lists for a while and returns when all has arrived.
func (v *victim) measure(ctx context.Context, during time.Duration) noticed {
	var (
		mu                       sync.Mutex
		wg                       sync.WaitGroup
		n                        noticed
		publishes, delays, lists []time.Duration
	)
	refused := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		n.refused = append(n.refused, err.Error())
	}
	wg.Go(func() {
		if err := v.watch(ctx); err != nil {
			refused(err)
		}
	})
	publish := time.NewTicker(time.Second / perSecond)
	defer publish.Stop()
	list := time.NewTicker(listEvery)
	defer list.Stop()
	over := time.After(during)
	for i := 0; ; i++ {
		select {
		case <-over:
			wg.Wait()
			n.publish, n.deliver, n.lists = p99(publishes), p99(delays), p99(lists)
			return n
		case <-publish.C:
			n.asked++
			api := v.api
			if i%4 == 0 {
				api = v.fresh
			}
			wg.Go(func() {
				took, delay, err := v.publish(ctx, api)
				if err != nil {
					refused(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				publishes, delays = append(publishes, took), append(delays, delay)
			})
		case <-list.C:
			n.asked++
			wg.Go(func() {
				began := time.Now()
				if err := v.api.Call(ctx, http.MethodGet, "/deliveries?limit=20", nil, nil); err != nil {
					refused(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				lists = append(lists, time.Since(began))
			})
		}
	}
}

// publish returns how long the answer took, and how long after the publish began the
// event arrived.
func (v *victim) publish(ctx context.Context, api proof.API) (took, delay time.Duration, err error) {
	there := make(chan struct{})
	v.mu.Lock()
	v.n++
	id := fmt.Sprintf("v-%d", v.n)
	v.arrived[id] = there
	v.mu.Unlock()
	began := time.Now()
	if err := api.Call(ctx, http.MethodPost, "/events", []byte(`{"id":"`+id+`","type":"cases.updated","data":{"case":"c-1","status":"open"}}`), nil); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	select {
	case <-there:
		return took, time.Since(began), nil
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("%s did not arrive: %w", id, context.Cause(ctx))
	}
}

func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)-1)*99/100]
}

// medians is the median of each figure.
func medians(all []noticed) (m noticed) {
	middle := func(of func(noticed) time.Duration) time.Duration {
		var list []time.Duration
		for _, n := range all {
			list = append(list, of(n))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	m.publish = middle(func(n noticed) time.Duration { return n.publish })
	m.deliver = middle(func(n noticed) time.Duration { return n.deliver })
	m.lists = middle(func(n noticed) time.Duration { return n.lists })
	for _, n := range all {
		m.asked += n.asked
		m.refused = append(m.refused, n.refused...)
	}
	return m
}

// judge compares what the victim noticed beside the attack with what it was alone.
func (n noticed) judge(t *testing.T, alone noticed) {
	for _, f := range []struct {
		what          string
		beside, alone time.Duration
	}{{"publish", n.publish, alone.publish}, {"delivery", n.deliver, alone.deliver}, {"list", n.lists, alone.lists}} {
		if f.beside > max(enough, atMost*f.alone) {
			t.Errorf("%s: p99 is %.1f ms beside the attack and was %.1f ms alone", f.what, ms(f.beside), ms(f.alone))
		}
	}
}
