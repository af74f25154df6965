package postgres_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// lease is that of nodes in tests: short, but not so short that a busy machine
// loses it.
const lease = 3 * time.Second

func logger() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return nil
}

// cluster is a database with a tenant and an endpoint.
type cluster struct {
	testing.TB
	url    string
	tenant posthorn.Tenant
	to     posthorn.Endpoint
}

func newCluster(t testing.TB, url string) *cluster {
	c := &cluster{TB: t, url: url}
	admin := open(t, postgres.Options{URL: url, Role: postgres.Admin})
	change := store.Change{Actor: "test", At: time.Now()}
	var err error
	if c.tenant, err = admin.CreateTenant(t.Context(), change, "acme"); err != nil {
		t.Fatal(err)
	}
	c.to, err = admin.CreateEndpoint(t.Context(), change, posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, change.At), Tenant: c.tenant.ID, URL: "https://example.com", Events: []posthorn.Pattern{"*"},
	}, func(int64) (store.Sealed, error) { return store.Sealed{Box: []byte("s")}, nil }, 10)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) node(url string) *postgres.Store {
	c.Helper()
	return c.nodeFor(url, lease)
}

func (c *cluster) nodeFor(url string, lease time.Duration) *postgres.Store {
	c.Helper()
	return open(c, postgres.Options{URL: url, Lease: lease, Log: logger()})
}

func (c *cluster) publication(s *postgres.Store, keys ...string) store.Publication {
	c.Helper()
	set, err := s.EndpointSet(c.Context(), c.tenant.ID)
	if err != nil {
		c.Fatal(err)
	}
	p := store.Publication{Tenant: c.tenant.ID, SetVersion: set.Version, At: time.Now(), BacklogLimit: 1_000_000}
	for _, key := range keys {
		p.Events = append(p.Events, c.event(key))
	}
	return p
}

func (c *cluster) event(key string) store.NewEvent {
	at := time.Now()
	return store.NewEvent{
		Key: key, Type: "cases.updated", OccurredAt: at, Hash: sha256.Sum256([]byte(key)),
		Body: posthorn.AppendBody(nil, key, "cases.updated", at, []byte(`{}`)), Targets: []store.PublishTarget{{Endpoint: c.to.ID}},
	}
}

// publish returns the delivery of a new event.
func (c *cluster) publish(s *postgres.Store) posthorn.ID {
	c.Helper()
	got, err := s.Publish(c.Context(), c.publication(s, ""))
	if err != nil {
		c.Fatal(err)
	}
	return got[0].ID + 1
}

func (c *cluster) result(id posthorn.ID, class posthorn.Class) store.Result {
	now := time.Now()
	return store.Result{
		ID: id, Endpoint: c.to.ID, Tenant: c.tenant.ID, Attempt: posthorn.Attempt{Class: class, At: now, Number: 1}, EndedAt: now,
		Policy: posthorn.DefaultPolicy(),
	}
}

func record(s store.Queue, r store.Result) (rec store.Recorded, err error) {
	done := make(chan struct{})
	s.Record(r, func(got store.Recorded, e error) { rec, err = got, e; close(done) })
	<-done
	return rec, err
}

// eventually waits for a condition.
func (c *cluster) eventually(what string, is func() bool) time.Duration {
	c.Helper()
	return eventually(c, what, is)
}

func eventually(c testing.TB, what string, is func() bool) time.Duration {
	c.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > 30*time.Second {
			c.Fatalf("waited in vain until %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
	return time.Since(began)
}

// may asks whether an attempt may begin, without waiting long.
func (c *cluster) may(s *postgres.Store, id posthorn.ID) bool {
	ctx, cancel := context.WithTimeout(c.Context(), 50*time.Millisecond)
	defer cancel()
	return s.MayAttempt(ctx, store.Hold{ID: id})
}

func (c *cluster) claim(s *postgres.Store) []store.Work {
	c.Helper()
	work, _, err := s.ClaimDue(c.Context(), time.Now(), 1000)
	if err != nil {
		c.Fatal(err)
	}
	return work
}

func TestWhatADeadNodeOwnedGoesToAnother(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	a, b := c.node(w.URL(pgtest.Name(c.url))), c.node(c.url)
	id := c.publish(a)
	if !c.may(a, id) || c.may(b, id) {
		t.Fatal("the node that stored a delivery is the one that attempts it")
	}
	if got := c.claim(b); len(got) != 0 {
		t.Fatalf("claimed %v of a node that lives", got)
	}
	w.Set(ill.Silent)
	var got []store.Work
	took := c.eventually("the other node claims it", func() bool {
		got = c.claim(b)
		return len(got) > 0
	})
	if took > 2*lease {
		t.Errorf("that took %v", took)
	}
	if got[0].ID != id || !c.may(b, id) {
		t.Errorf("claimed %+v", got)
	}
	if c.may(a, id) {
		t.Error("both nodes may attempt it")
	}
	t.Run("and the one that returns late confuses nobody", func(t *testing.T) {
		w.Set(ill.Open)
		c.eventually("the node that returns has a run again", func() bool { return a.Ping(t.Context()) == nil })
		if c.may(a, id) {
			t.Error("it may attempt what another node has")
		}
		// One result of an attempt that began while it was its, and one of an
		// attempt that was refused.
		for range 2 {
			if rec, err := record(a, c.result(id, posthorn.ClassOK)); err != nil || !rec.Lost {
				t.Errorf("its result: %+v, %v", rec, err)
			}
		}
		if rec, err := record(b, c.result(id, posthorn.ClassOK)); err != nil || rec.Lost {
			t.Errorf("the other's result: %+v, %v", rec, err)
		}
		again := c.publish(a)
		if !c.may(a, again) {
			t.Error("it does not go on")
		}
		if rec, err := record(a, c.result(again, posthorn.ClassOK)); err != nil || rec.Lost {
			t.Errorf("its next result: %+v, %v", rec, err)
		}
	})
	tally.Count(t, "what a node cut from the database owned is taken over, and its late results are lost", 1)
}

func TestAnOutageShorterThanTheLeaseTakesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	a, b := c.node(w.URL(pgtest.Name(c.url))), c.node(c.url)
	id := c.publish(a)
	w.Set(ill.Broken)
	if _, err := record(a, c.result(id, posthorn.ClassOK)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a result without a database: %v", err)
	}
	// Connections that rested for a second are looked at before they are used. One
	// that breaks under a publish makes it wait until its fate is known.
	rested := time.Now()
	c.eventually("the connections rested", func() bool { return time.Since(rested) > 1100*time.Millisecond })
	if _, err := a.Publish(t.Context(), store.Publication{Tenant: c.tenant.ID, At: time.Now(), Events: []store.NewEvent{c.event("")}}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a publish without a database: %v", err)
	}
	w.Set(ill.Open)
	c.eventually("the node can write again", func() bool { return a.Ping(t.Context()) == nil })
	if got := c.claim(b); len(got) != 0 {
		t.Errorf("taken over: %v", got)
	}
	if rec, err := record(a, c.result(id, posthorn.ClassOK)); err != nil || rec.Lost {
		t.Errorf("the result in hand: %+v, %v", rec, err)
	}
}

func TestAClosedNodeGivesBackAtOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	told := make(chan store.Notice, 100)
	b.Watch(func(n store.Notice) { told <- n })
	id := c.publish(a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.claim(b); len(got) != 1 || got[0].ID != id {
		t.Errorf("claimed %v", got)
	}
	if n := <-told; n.Kind != store.NoticeAll {
		t.Errorf("told %v", n)
	}
}

func TestChangesReachOtherNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	told := make(chan store.Notice, 100)
	b.Watch(func(n store.Notice) { told <- n })
	stale := c.publication(b, "")
	began := time.Now()
	_, err := a.UpdateEndpoint(t.Context(), store.Change{Actor: "test", At: began}, c.tenant.ID, c.to.Ref, 0, func(e *posthorn.Endpoint) error {
		e.Events = []posthorn.Pattern{"assignments.*"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(t.Context(), stale); !errors.Is(err, store.ErrStale) {
		t.Errorf("a publish that matched before the change: %v", err)
	}
	want := store.Notice{Kind: store.NoticeEndpoint, Tenant: c.tenant.ID, Endpoint: c.to.ID}
	if n := <-told; n != want {
		t.Errorf("told %v, want %v", n, want)
	}
	t.Log("after", time.Since(began))
}

func TestAChangeThatWasNotHeardIsFoundByPolling(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	b := c.node(c.url)
	told := make(chan store.Notice, 100)
	b.Watch(func(n store.Notice) { told <- n })
	pgtest.Exec(t, c.url, `UPDATE posthorn.meta SET value = value + 1 WHERE key = 'changes'`)
	if n := <-told; n.Kind != store.NoticeAll {
		t.Errorf("told %v", n)
	}
}

func TestNodesShareWhatIsDue(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	nodes := []*postgres.Store{c.node(c.url), c.node(c.url), c.node(c.url)}
	const n = 600
	p := c.publication(nodes[0], make([]string, n)...)
	for i := range p.Events {
		p.Events[i].DeliverAt = p.At.Add(time.Millisecond)
	}
	if _, err := nodes[0].Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[posthorn.ID]int{}
	var wg sync.WaitGroup
	for _, s := range nodes {
		wg.Go(func() {
			for {
				work, next, err := s.ClaimDue(t.Context(), time.Now(), 17)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, w := range work {
					seen[w.ID]++
				}
				mu.Unlock()
				if len(work) == 0 && next.IsZero() {
					return
				}
			}
		})
	}
	wg.Wait()
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%x was claimed %d times", id, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d were claimed", len(seen), n)
	}
	tally.Count(t, "of several nodes that claim at a time each delivery goes to one", n)
}

func TestNodesPublishTheSameKeyOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	nodes := []*postgres.Store{c.node(c.url), c.node(c.url)}
	const keys = 60
	var fresh atomic.Int64
	var mu sync.Mutex
	ids := map[string]posthorn.ID{}
	numbers := map[uint8]bool{}
	var wg sync.WaitGroup
	for _, s := range nodes {
		p := c.publication(s)
		for range 4 {
			wg.Go(func() {
				for i := range keys {
					p := p
					p.Events = []store.NewEvent{c.event(fmt.Sprint("key-", i))}
					p.Once = &store.Once{Tenant: c.tenant.ID, Route: "r", Key: fmt.Sprint("once-", i%7, "-", i), Hash: sha256.Sum256(nil), Expires: time.Now().Add(time.Hour)}
					got, err := s.Publish(t.Context(), p)
					if _, again := errors.AsType[*store.ErrRepeated](err); again {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if !got[0].Repeated {
						fresh.Add(1)
					}
					mu.Lock()
					if id, ok := ids[p.Events[0].Key]; ok && id != got[0].ID {
						t.Errorf("%s has the ids %x and %x", p.Events[0].Key, id, got[0].ID)
					}
					ids[p.Events[0].Key] = got[0].ID
					numbers[got[0].ID.Node()] = true
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if fresh.Load() != keys {
		t.Errorf("%d events of %d keys", fresh.Load(), keys)
	}
	if len(numbers) > 2 {
		t.Errorf("node numbers %v", numbers)
	}
	tally.Count(t, "nodes that publish the same id at a time publish it once", keys)
}
