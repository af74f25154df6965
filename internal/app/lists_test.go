package app

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

var (
	listDeliveries = flag.Int("lists", 0, "deliveries of the store that TestListsAtScale builds; 0 leaves it out")
	listStore      = flag.String("lists-store", "", "where it is built: a folder, postgres://… of an empty database, or postgres for a server of its own (default a temporary folder)")
)

// listBar is what a page may take.
const listBar = 50 * time.Millisecond

// TestListsAtScale builds a store of -lists deliveries straight through the store,
// serves it, and times each kind of list over HTTP: first pages and pages in the
// middle. make bench-lists calls it.
func TestListsAtScale(t *testing.T) {
	if *listDeliveries == 0 {
		t.Skip("make bench-lists builds a store of ten million deliveries and times the lists")
	}
	path := *listStore
	switch {
	case path == "":
		path = filepath.Join(t.TempDir(), "lists.db")
	case path == "postgres":
		server := must(pgtest.Start())(t)
		t.Cleanup(func() {
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		})
		path = server.URL()
	case !strings.Contains(path, "://"):
		path = filepath.Join(path, "lists.db")
	}
	b := buildLists(t, path, *listDeliveries)
	s := serveOn(t, path, "POSTHORN_RETENTION=365d", "POSTHORN_BACKLOG_LIMIT=100000000", "POSTHORN_LOG_LEVEL=error")
	token := s.token(t, "large")
	admin := must(client.New(client.Config{Server: s.base, Token: token}))(t)
	if n := len(deliveries(t, admin, client.DeliveryFilter{Event: b.event})); n != b.fanOut {
		t.Fatalf("the event has %d deliveries, not %d", n, b.fanOut)
	}
	at := func(share float64) string {
		return url.QueryEscape(b.from.Add(time.Duration(share * float64(b.to.Sub(b.from)))).UTC().Format(time.RFC3339))
	}
	t.Logf("%-62s %8s %8s %8s", "GET", "median", "p99", "max")
	for _, list := range []string{
		"/deliveries?limit=50", "/deliveries?limit=250", "/deliveries?state=failed", "/deliveries?state=expired", "/deliveries?state=pending", "/deliveries?type=cases.closed",
		"/deliveries?since=" + at(0.5) + "&until=" + at(0.51), "/deliveries?until=" + at(0.3) + "&state=failed",
		"/deliveries?endpoint=" + b.hot, "/deliveries?endpoint=" + b.hot + "&state=failed", "/deliveries?endpoint=" + b.hot + "&state=expired", "/deliveries?endpoint=" + b.cold,
		"/deliveries?endpoint=" + b.hot + "&since=" + at(0.4) + "&until=" + at(0.6), "/deliveries?endpoint=" + b.hot + "&type=cases.closed",
		"/deliveries?event=" + b.event, "/deliveries/" + b.delivery,
		"/events", "/events?type=cases.closed", "/events?since=" + at(0.2) + "&until=" + at(0.21), "/events/" + b.event,
		"/endpoints/" + b.hot + "/health", "/replays",
	} {
		times := timeList(t, s.base+"/v2.3/webhooks", token, list)
		median, p99, most := times[len(times)/2], times[len(times)*99/100], times[len(times)-1]
		shown := strings.NewReplacer(b.hot, "HOT", b.cold, "COLD", b.event, "EVENT", b.delivery, "DELIVERY").Replace(list)
		t.Logf("%-62s %6.1fms %6.1fms %6.1fms", shown, ms(median), ms(p99), ms(most))
		if p99 > listBar {
			t.Errorf("%s took %s; %s is the bar", shown, p99, listBar)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// timeList times pages of a list: the first one, and those that its cursors lead to.
func timeList(t *testing.T, base, token, list string) (times []time.Duration) {
	t.Helper()
	cursor := ""
	for i := range 310 {
		target := base + list
		if cursor != "" {
			sep := "?"
			if strings.Contains(list, "?") {
				sep = "&"
			}
			target += sep + "cursor=" + url.QueryEscape(cursor)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		began := time.Now()
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		took := time.Since(began)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", list, resp.StatusCode, body, err)
		}
		if i >= 10 { // before, caches are warmed
			times = append(times, took)
		}
		var page struct {
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			t.Fatal(err)
		}
		if cursor = ""; page.NextCursor != nil && i%10 != 9 {
			cursor = *page.NextCursor
		}
	}
	slices.Sort(times)
	return times
}

// built is what a store of many deliveries has to look for.
type built struct {
	from, to                   time.Time
	hot, cold, event, delivery string
	fanOut                     int
}

// builder fills a store: one tenant has half of all, and one of its endpoints a
// tenth of that; 94 of 100 deliveries succeed, 3 fail for good, 3 wait.
type builder struct {
	t       *testing.T
	s       store.Store
	tenants []posthorn.Tenant
	targets [][]posthorn.Endpoint // by tenant; the first of the first is hot
	results sync.WaitGroup
	rand    *rand.Rand

	mu  sync.Mutex
	now time.Time
	err error
}

func (b *builder) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

const (
	buildTenants   = 20
	buildEndpoints = 100
	buildFanOut    = 5
	buildEvents    = 1000 // in a commit
)

func buildLists(t *testing.T, path string, deliveries int) built {
	t.Helper()
	b := &builder{t: t, rand: rand.New(rand.NewPCG(1, 2))}
	out := built{to: time.Now().Add(-time.Minute), from: time.Now().Add(-28 * 24 * time.Hour), fanOut: buildFanOut}
	b.now = out.from
	var err error
	if config.IsPostgres(path) {
		b.s, err = opened(postgres.Open(t.Context(), postgres.Options{URL: path, Now: b.clock}))
	} else {
		b.s, err = opened(sqlite.Open(t.Context(), sqlite.Options{Path: path, Now: b.clock}))
	}
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.furnish()
	for made := 0; made < deliveries; made += buildEvents * buildFanOut {
		b.mu.Lock()
		b.now = out.from.Add(time.Duration(float64(out.to.Sub(out.from)) * float64(made) / float64(deliveries)))
		b.mu.Unlock()
		tenant := 0
		if made/(buildEvents*buildFanOut)%2 == 1 {
			tenant = 1 + b.rand.IntN(buildTenants-1)
		}
		id, ref := b.publish(tenant)
		if tenant == 0 {
			out.event, out.delivery = ref, (id + 1).Text(posthorn.DeliveryPrefix)
		}
		if made%1_000_000 == 0 && made > 0 {
			t.Logf("%d deliveries after %s", made, time.Since(began).Round(time.Second))
		}
	}
	b.results.Wait()
	if err := b.s.Close(); err != nil || b.err != nil {
		t.Fatal(err, b.err)
	}
	t.Logf("built %d deliveries in %s", deliveries, time.Since(began).Round(time.Second))
	out.hot, out.cold = b.targets[0][0].Ref, b.targets[0][buildEndpoints-1].Ref
	return out
}

func (b *builder) furnish() {
	by := store.Change{Actor: "test", At: b.now}
	for i := range buildTenants {
		name := fmt.Sprint("tenant-", i)
		if i == 0 {
			name = "large"
		}
		tenant := must(b.s.CreateTenant(b.t.Context(), by, name))(b.t)
		b.tenants = append(b.tenants, tenant)
		var targets []posthorn.Endpoint
		for n := range buildEndpoints {
			targets = append(targets, must(b.s.CreateEndpoint(b.t.Context(), by, posthorn.Endpoint{
				Ref: posthorn.NewRef(posthorn.EndpointPrefix, b.now), Tenant: tenant.ID, URL: fmt.Sprintf("https://partner.example.com/%d", n),
				Events: []posthorn.Pattern{"*"}, Status: posthorn.StatusPaused, PausedReason: posthorn.PausedByUser, CreatedAt: b.now, UpdatedAt: b.now,
			}, func(int64) (store.Sealed, error) { return store.Sealed{KeyID: "k", Box: []byte("box")}, nil }, buildEndpoints))(b.t))
		}
		b.targets = append(b.targets, targets)
	}
}

// publish makes a commit's worth of events of a tenant with their results.
func (b *builder) publish(tenant int) (last posthorn.ID, ref string) {
	t, now := b.t, b.clock()
	set := must(b.s.EndpointSet(t.Context(), b.tenants[tenant].ID))(t)
	p := store.Publication{Tenant: b.tenants[tenant].ID, SetVersion: set.Version, At: now, BacklogLimit: 1 << 40}
	for i := range buildEvents {
		typ := "cases.updated"
		if i%50 == 0 {
			typ = "cases.closed"
		}
		data := fmt.Appendf(nil, `{"case_id":%d,"fill":"%0300d"}`, b.rand.Int64(), i)
		e := store.NewEvent{Type: typ, Hash: sha256.Sum256(data), OccurredAt: now, Body: posthorn.AppendBody(nil, "", typ, now, data)}
		at := 1 + b.rand.IntN(buildEndpoints-buildFanOut)
		for j := range buildFanOut {
			to := b.targets[tenant][at+j]
			if j == 0 && tenant == 0 && i%2 == 0 {
				to = b.targets[0][0]
			}
			e.Targets = append(e.Targets, store.PublishTarget{Endpoint: to.ID})
		}
		p.Events = append(p.Events, e)
	}
	accepted := must(b.s.Publish(t.Context(), p))(t)
	for i := range accepted {
		for j, to := range p.Events[i].Targets {
			b.record(accepted[i].ID+1+posthorn.ID(j), p.Tenant, to.Endpoint, now)
		}
	}
	a := accepted[len(accepted)-1]
	return a.ID, a.ID.Text(posthorn.EventPrefix)
}

func (b *builder) record(id posthorn.ID, tenant, endpoint int64, now time.Time) {
	attempt := posthorn.Attempt{Number: 1, At: now, Duration: 84 * time.Millisecond, Status: 200, Timings: posthorn.Timings{Connect: 3 * time.Millisecond, FirstByte: 80 * time.Millisecond},
		Headers: []posthorn.Header{{Name: "Content-Type", Value: "application/json"}, {Name: "Server", Value: "nginx"}}, Snippet: []byte(`{"ok":true}`)}
	policy := posthorn.Policy{LocalRetry: time.Second}
	switch n := b.rand.IntN(100); {
	case n < 3:
		attempt.Class, attempt.Status, attempt.Snippet = posthorn.ClassHTTPStatus, 503, []byte(strings.Repeat("the database is away. ", 20))
	case n < 6:
		attempt.Class = posthorn.ClassTimeout
		attempt.Status, policy.Schedule = 0, []time.Duration{300 * 24 * time.Hour}
	}
	b.results.Add(1)
	b.s.Record(store.Result{ID: id, Endpoint: endpoint, Tenant: tenant, Attempt: attempt, EndedAt: now.Add(attempt.Duration), Policy: policy}, func(rec store.Recorded, err error) {
		defer b.results.Done()
		if err != nil || rec.Lost {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.err = fmt.Errorf("a result: %+v, %w", rec, err)
		}
	})
}
