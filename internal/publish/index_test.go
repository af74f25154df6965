package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// The index must agree with the rule that it stands for, on random endpoints.
func TestIndexMatchesWhatEndpointsMatch(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	words := []string{"a", "b", "a-b", "webhooks"}
	name := func() string {
		s := words[random.IntN(len(words))]
		for range random.IntN(4) {
			s += "." + words[random.IntN(len(words))]
		}
		return s
	}
	for range 50 {
		set := store.EndpointSet{Version: 1}
		for i := range random.IntN(30) {
			e := posthorn.Endpoint{ID: int64(1000 - i)} // not in order
			for range 1 + random.IntN(4) {
				switch p := name(); random.IntN(6) {
				case 0:
					e.Events = append(e.Events, "*")
				case 1, 2:
					e.Events = append(e.Events, posthorn.Pattern(p+".*"))
				default:
					e.Events = append(e.Events, posthorn.Pattern(p))
				}
			}
			set.Endpoints = append(set.Endpoints, e)
		}
		x := newIndex(set)
		for range 40 {
			eventType := name()
			var want []int64
			for _, e := range set.Endpoints {
				if e.Matches(eventType) {
					want = append(want, e.ID)
				}
			}
			slices.Sort(want)
			for range 2 { // found, then remembered
				if got := x.match(eventType); !slices.Equal(got, want) {
					t.Fatalf("seed %d: %s goes to %v, want %v of %+v", seed, eventType, got, want, set.Endpoints)
				}
			}
		}
	}
}

func TestIndexForgetsTypesThatOverflow(t *testing.T) {
	var set store.EndpointSet
	for i := range 1000 {
		set.Endpoints = append(set.Endpoints, posthorn.Endpoint{ID: int64(i), Events: []posthorn.Pattern{"a.*"}})
	}
	x := newIndex(set)
	for i := range 200 {
		if got := x.match(fmt.Sprintf("a.t%d", i)); len(got) != 1000 {
			t.Fatalf("type %d goes to %d endpoints", i, len(got))
		}
	}
	if n := len(x.answers) * 1000; n == 0 || n > maxAnswered {
		t.Errorf("%d ids are kept", n)
	}
}

func TestEndpointsAreReadOnceForManyCallers(t *testing.T) {
	var reads atomic.Int32
	let := make(chan struct{})
	x := indexes{of: make(map[int64]*loading), source: func(context.Context, int64) (store.EndpointSet, error) {
		reads.Add(1)
		<-let
		return store.EndpointSet{Version: 3}, nil
	}}
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if l, err := x.get(t.Context(), 1); err != nil || l.index.version != 3 {
				t.Errorf("got %v", err)
			}
		})
	}
	close(let)
	callers.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("the endpoints were read %d times", n)
	}
}

func TestTenantsKeptAreBounded(t *testing.T) {
	small, large := store.EndpointSet{}, tenThousand()
	for name, set := range map[string]store.EndpointSet{"many": small, "large": large} {
		x := indexes{of: make(map[int64]*loading), source: func(context.Context, int64) (store.EndpointSet, error) {
			return set, nil
		}}
		tenants := int64(maxIndexes + 100)
		if name == "large" {
			tenants = maxEntries/20_000 + 20
		}
		for tenant := range tenants {
			if l, err := x.get(t.Context(), tenant); err != nil || x.of[tenant] != l {
				t.Fatalf("%s: tenant %d: %v; the newest is not kept", name, tenant, err)
			}
		}
		sum := 0
		for _, l := range x.of {
			sum += l.index.entries
		}
		if len(x.of) > maxIndexes || sum > maxEntries || sum != x.entries {
			t.Errorf("%s: %d tenants with %d entries are kept, counted as %d", name, len(x.of), sum, x.entries)
		}
		for tenant := range tenants {
			x.drop(tenant, nil)
		}
		if x.entries != 0 {
			t.Errorf("%s: %d entries are counted when none is there", name, x.entries)
		}
	}
}

func tenThousand() store.EndpointSet {
	var set store.EndpointSet
	for i := range 10_000 {
		set.Endpoints = append(set.Endpoints, posthorn.Endpoint{ID: int64(i + 1), Events: []posthorn.Pattern{
			posthorn.Pattern(fmt.Sprintf("cases.tasks.t%d", i%1000)), "assignments.status.*",
		}})
	}
	return set
}

func BenchmarkMatch10000Endpoints(b *testing.B) {
	x := newIndex(tenThousand())
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if len(x.match("cases.tasks.t7")) != 10 {
				b.Fatal("no match")
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if len(x.find("cases.tasks.t7")) != 10 {
				b.Fatal("no match")
			}
		}
	})
	b.Run("index", func(b *testing.B) {
		set := tenThousand()
		for b.Loop() {
			newIndex(set)
		}
	})
}
