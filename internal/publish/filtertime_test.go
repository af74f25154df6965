package publish_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// costly are filters that count as much as one may, some six milliseconds, and say
// that they cannot tell; in truth they are refused at once.
func costly(n int) (filters []string) {
	for i := range n {
		filters = append(filters, fmt.Sprintf(`data.text.matches("(x+x+)+y|(a|b|ab)*(ba|a?b){30}c%d")`, i))
	}
	return filters
}

func costlyEvent() publish.Event {
	return publish.Event{Type: "cases.updated", Data: []byte(`{"text":"` + strings.Repeat("a", 1000) + `"}`)}
}

const costOfCostly = 6 * time.Millisecond

// notes counts what became of the targets: asked in vain, or not asked for want of time.
func notes(publications []store.Publication) (asked, unasked int) {
	for _, p := range publications {
		for _, e := range p.Events {
			for _, to := range e.Targets {
				switch {
				case strings.Contains(to.Note, "more steps than a filter may"):
					asked++
				case strings.Contains(to.Note, "the tenant's filters have used their time"):
					unasked++
				}
			}
		}
	}
	return asked, unasked
}

// manyStores is a script that many publish to, each tenant with endpoints of its own.
type manyStores struct {
	mu  sync.Mutex
	set map[int64]store.EndpointSet
	got map[int64][]store.Publication
}

func (s *manyStores) EndpointSet(_ context.Context, tenant int64) (store.EndpointSet, error) {
	return s.set[tenant], nil
}

func (s *manyStores) Publish(_ context.Context, p store.Publication) ([]store.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[p.Tenant] = append(s.got[p.Tenant], p)
	return commitAll(p), nil
}

func newTenants(t *testing.T, burst time.Duration, set map[int64]store.EndpointSet) (*publish.Service, *manyStores) {
	s := &manyStores{set: set, got: map[int64][]store.Publication{}}
	w := newWorld(t, store.EndpointSet{}, func(c *publish.Config) { c.Store, c.FilterBurst = s, burst })
	return w.Service, s
}

// Sixteen publish what a tenant's filters work a second and a half on; beside it
// another tenant publishes. In the bubble work takes no time: only waiting does.
func TestFiltersOfOneTenantHaveTheirTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const publishers, filters, burst = 16, 16, 60 * time.Millisecond
		hostile, victim := posthorn.Tenant{ID: 7, Name: "hostile"}, posthorn.Tenant{ID: 8, Name: "victim"}
		s, got := newTenants(t, burst, map[int64]store.EndpointSet{7: filtered(costly(filters)...), 8: filtered(`data.text == "b"`)})
		began := time.Now()
		var wg sync.WaitGroup
		for range publishers {
			wg.Go(func() {
				a, err := s.Publish(t.Context(), hostile, []publish.Event{costlyEvent()}, nil, nil, nil)
				if err != nil || a[0].Deliveries != filters {
					t.Errorf("%v, %v: publishing is never refused for it", a, err)
				}
				if waited := time.Since(began); waited > time.Second {
					t.Errorf("a publish waited %v", waited)
				}
			})
		}
		synctest.Wait()
		if a, err := s.Publish(t.Context(), victim, []publish.Event{costlyEvent()}, nil, nil, nil); err != nil || a[0].Deliveries != 0 {
			t.Errorf("the victim: %+v, %v", a, err)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the victim waited %v", waited)
		}
		wg.Wait()
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("all were done after %v, want 1s", waited)
		}
		asked, unasked := notes(got.got[7])
		if asked+unasked != publishers*filters {
			t.Fatalf("%d asked and %d not, want %d", asked, unasked, publishers*filters)
		}
		// The burst, a quarter of the second, and what each had begun when it was spent.
		least, most := burst+time.Second/4, burst+time.Second/4+publishers*(costOfCostly+time.Millisecond)
		if spent := time.Duration(asked) * costOfCostly; spent < least*9/10 || spent > most {
			t.Errorf("%d of %d filters were asked, which is %v; want %v to %v", asked, asked+unasked, spent, least, most)
		}
		// One at a time was asked about, so that some were wholly filtered.
		whole := 0
		for _, p := range got.got[hostile.ID] {
			if _, unasked := notes([]store.Publication{p}); unasked == 0 {
				whole++
			}
		}
		if whole == 0 {
			t.Error("all had a part of the time, and none enough")
		}
		// Its time comes back.
		<-time.After(time.Minute)
		if _, err := s.Publish(t.Context(), hostile, []publish.Event{costlyEvent()}, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		if again, _ := notes(got.got[7][publishers:]); again < 10 {
			t.Errorf("a minute later %d filters were asked", again)
		}
	})
}

// One publish alone, which asks more than there is, takes its second and no more.
func TestAPublishWaitsASecondInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, got := newTenants(t, 6*time.Millisecond, map[int64]store.EndpointSet{acme.ID: filtered(costly(100)...)})
		began := time.Now()
		var events []publish.Event
		for range 3 {
			events = append(events, costlyEvent())
		}
		if _, err := s.Publish(t.Context(), acme, events, publish.InBatch, nil, nil); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("it waited %v", waited)
		}
		asked, unasked := notes(got.got[acme.ID])
		if asked < 40 || asked > 50 || asked+unasked != 300 {
			t.Errorf("%d filters were asked and %d not; want those of a quarter of a second, of 300", asked, unasked)
		}
		// Posthorn's own events wait for nobody, and one whose caller goes away stores nothing.
		began = time.Now()
		if err := s.Operational(t.Context(), acme.ID, "cases.updated", noon, []byte(`{}`), 100, nil); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("an operational event waited %v", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Publish(ctx, acme, []publish.Event{costlyEvent()}, nil, nil, nil); posthorn.ErrorCode(err) != posthorn.Unavailable {
			t.Errorf("the caller went away: %v", err)
		}
		if n := len(got.got[acme.ID]); n != 2 {
			t.Errorf("%d publications are stored", n)
		}
	})
}

// Compiling counts: expressions that are ever new cost their tenant's time.
func TestCompilingCostsTheTenantsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var filters []string
		for i := range 8 {
			filters = append(filters, strings.Repeat(fmt.Sprintf(`type == "a%d" && `, i), 50)+"false") // some six milliseconds each
		}
		s, _ := newTenants(t, 20*time.Millisecond, map[int64]store.EndpointSet{acme.ID: filtered(filters...)})
		for n := range 2 {
			began := time.Now()
			if _, err := s.Publish(t.Context(), acme, []publish.Event{costlyEvent()}, nil, nil, nil); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited == 0 != (n == 1) {
				t.Errorf("publish %d, when 20 ms may be spent, waited %v", n+1, waited)
			}
			<-time.After(time.Minute)
		}
	})
}

func TestFilterTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newTenants(t, 20*time.Millisecond, nil)
		try := func() (spent bool, err error) {
			turn, err := s.TryFilters(t.Context(), acme.ID)
			if err != nil {
				return false, err
			}
			defer turn.Leave()
			f, err := turn.Compile(costly(1)[0])
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				_, _ = turn.Match(f, "cases.updated", costlyEvent().Data)
			}
			return true, nil
		}
		if ok, err := try(); !ok {
			t.Fatal(err)
		}
		_, err := try()
		if fault, ok := err.(*posthorn.Error); !ok || fault.Code != posthorn.RateLimited || fault.RetryAfter < 30*time.Millisecond || fault.RetryAfter > time.Second {
			t.Errorf("who has spent its time: %v", err)
		}
		// A filter can be set all the same.
		began := time.Now()
		turn, err := s.SetFilter(t.Context(), acme.ID)
		if err != nil || time.Since(began) == 0 || time.Since(began) > time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		// Meanwhile others of the tenant wait for their turn, a second.
		began = time.Now()
		if _, err := s.SetFilter(t.Context(), acme.ID); posthorn.ErrorCode(err) != posthorn.RateLimited || time.Since(began) != time.Second {
			t.Errorf("beside another, after %v: %v", time.Since(began), err)
		}
		other, err := s.TryFilters(t.Context(), acme.ID+1)
		if err != nil {
			t.Fatalf("another tenant: %v", err)
		}
		other.Leave()
		turn.Leave()
		if ok, err := try(); !ok {
			t.Errorf("time came back: %v", err)
		}
	})
}
