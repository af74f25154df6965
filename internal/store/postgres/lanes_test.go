package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// settings changes those of the cluster's endpoint.
func (c *cluster) settings(s *postgres.Store, to posthorn.Settings) {
	c.Helper()
	_, err := s.UpdateSettings(c.Context(), store.Change{Actor: "test", At: time.Now()}, c.tenant.ID, c.to.Ref, 0, func(p *posthorn.Settings) error {
		*p = to
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
}

// line publishes an event into the endpoint's line and returns its delivery.
func (c *cluster) line(s *postgres.Store) posthorn.ID {
	c.Helper()
	p := c.publication(s, "")
	p.Events[0].Targets[0] = store.PublishTarget{Endpoint: c.to.ID, Parked: true, Owned: true, Ordered: true}
	got, err := s.Publish(c.Context(), p)
	if err != nil {
		c.Fatal(err)
	}
	return got[0].ID + 1
}

func (c *cluster) claimLane(s *postgres.Store) (ids []posthorn.ID) {
	c.Helper()
	work, _, _, err := s.ClaimParked(c.Context(), c.to.ID, 100)
	if err != nil {
		c.Fatal(err)
	}
	for i := range work {
		ids = append(ids, work[i].ID)
	}
	return ids
}

func TestAnOwnedLaneIsOneNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	told := make(chan store.Notice, 1000)
	a.Watch(func(n store.Notice) { told <- n })
	c.settings(a, posthorn.Settings{Ordered: true})
	first := c.line(b)
	if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{first}) {
		t.Fatalf("claimed %v", got)
	}
	if rec, err := record(a, c.result(first, posthorn.ClassOK)); err != nil || rec.Lost {
		t.Fatalf("%+v, %v", rec, err)
	}
	second := c.line(b) // now the lane's node holds nothing of it
	if got := c.claimLane(b); len(got) != 0 {
		t.Errorf("claimed %v of another node's lane", got)
	}
	want := store.Notice{Kind: store.NoticeParked, Tenant: c.tenant.ID, Endpoint: c.to.ID}
	if took := c.eventually("the lane's node is told", func() bool { return <-told == want }); took > time.Second {
		t.Errorf("that took %v", took)
	}
	if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{second}) {
		t.Errorf("claimed %v", got)
	}
	third := c.line(a)
	// The line is as it was for whoever comes next, the one under way first.
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := c.claimLane(b); !slices.Equal(got, []posthorn.ID{second, third}) {
		t.Errorf("claimed %v, want %v", got, []posthorn.ID{second, third})
	}
}

func TestADeadNodesLaneGoesToAnother(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	a, b := c.node(w.URL(pgtest.Name(c.url))), c.node(c.url)
	c.settings(b, posthorn.Settings{Ordered: true})
	var line []posthorn.ID
	for range 3 {
		line = append(line, c.line(b))
	}
	if got := c.claimLane(a); !slices.Equal(got, line) {
		t.Fatalf("claimed %v", got)
	}
	line = append(line, c.line(b))
	w.Set(ill.Silent)
	var got []posthorn.ID
	took := c.eventually("the other node has the lane", func() bool {
		got = c.claimLane(b)
		return len(got) > 0
	})
	// A lease, counted from the last beat that was seen, and a second.
	if took > lease+lease/3+time.Second {
		t.Errorf("that took %v", took)
	}
	if !slices.Equal(got, line) {
		t.Errorf("claimed %v, want %v", got, line)
	}
	w.Set(ill.Open)
	c.eventually("the node that returns has a run again", func() bool { return a.Ping(t.Context()) == nil })
	if rec, err := record(a, c.result(line[0], posthorn.ClassOK)); err != nil || !rec.Lost {
		t.Errorf("its result: %+v, %v", rec, err)
	}
	if got := c.claimLane(a); len(got) != 0 {
		t.Errorf("it claimed %v", got)
	}
	if rec, err := record(b, c.result(line[0], posthorn.ClassHTTPStatus)); err != nil || !rec.Parked {
		t.Errorf("the other's result: %+v, %v", rec, err)
	}
	tally.Count(t, "the lane of a node cut from the database goes to another, its line as it was", 1)
}

// Two nodes whose clocks differ publish in turn: ids follow the clocks, the line
// follows the publishes.
func TestALineIsInTheOrderOfPublishesWhateverTheClocks(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	ahead := open(t, postgres.Options{URL: c.url, Lease: lease, Now: func() time.Time { return time.Now().Add(800 * time.Millisecond) }})
	nodes := []*postgres.Store{ahead, c.node(c.url)}
	old := c.publish(ahead) // before there is a line
	if err := ahead.Park(t.Context(), []store.Hold{{ID: old}}); err != nil {
		t.Fatal(err)
	}
	c.settings(nodes[1], posthorn.Settings{Ordered: true})
	want := []posthorn.ID{old}
	for i := range 20 {
		want = append(want, c.line(nodes[(i+1)%2]))
	}
	if slices.IsSorted(want) {
		t.Fatal("the ids are in order: nothing is shown")
	}
	if got := c.claimLane(nodes[0]); !slices.Equal(got, want) {
		t.Errorf("claimed %v, published %v", got, want)
	}
}

// What is due in a lane goes to the node that has it, whoever meets it.
func TestWhatIsDueInALaneGoesToItsNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	c.settings(a, posthorn.Settings{RatePerSecond: 5})
	first := c.line(a)
	if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{first}) {
		t.Fatalf("claimed %v", got)
	}
	r := c.result(first, posthorn.ClassHTTPStatus)
	r.Policy.Schedule = []time.Duration{0}
	if rec, err := record(a, r); err != nil || rec.Parked {
		t.Fatalf("%+v, %v", rec, err)
	}
	if got := c.claim(b); len(got) != 0 {
		t.Errorf("another node has %v", got)
	}
	if got := c.claimLane(b); len(got) != 0 {
		t.Errorf("another node claimed %v", got)
	}
	if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{first}) {
		t.Errorf("the lane's node claimed %v", got)
	}
}

// What is asked for by hand in another node's lane reaches that node at once, though
// the endpoint is paused, and though the head of its line waits.
func TestWhatIsAskedForByHandReachesItsLane(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{false, true} {
		c := newCluster(t, database(t))
		a, b := c.node(c.url), c.node(c.url)
		told := make(chan store.Notice, 1000)
		a.Watch(func(n store.Notice) { told <- n })
		done := c.publish(a)
		if rec, err := record(a, c.result(done, posthorn.ClassOK)); err != nil || rec.Lost {
			t.Fatalf("%+v, %v", rec, err)
		}
		c.settings(a, posthorn.Settings{Ordered: true})
		head := c.line(a)
		if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{head}) {
			t.Fatalf("claimed %v", got)
		}
		r := c.result(head, posthorn.ClassHTTPStatus)
		r.Policy.Schedule = []time.Duration{time.Hour}
		if rec, err := record(a, r); err != nil || !rec.Parked {
			t.Fatalf("%+v, %v", rec, err)
		}
		by := store.Change{Actor: "test", At: time.Now()}
		if paused {
			if _, err := a.UpdateEndpoint(t.Context(), by, c.tenant.ID, c.to.Ref, 0, func(e *posthorn.Endpoint) error {
				e.Status = posthorn.StatusPaused
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Retry(t.Context(), by, store.RetryOrder{Tenant: c.tenant.ID, Delivery: done}, nil); err != nil {
			t.Fatal(err)
		}
		if got := c.claim(b); len(got) != 0 {
			t.Errorf("another node has %v", got)
		}
		want := store.Notice{Kind: store.NoticeParked, Tenant: c.tenant.ID, Endpoint: c.to.ID}
		for len(told) > 0 {
			<-told
		}
		took := c.eventually("the lane's node is told", func() bool {
			select {
			case n := <-told:
				return n == want
			default:
				return false
			}
		})
		if took > time.Second {
			t.Errorf("that took %v", took)
		}
		if got := c.claimLane(a); !slices.Equal(got, []posthorn.ID{done}) {
			t.Errorf("paused %v: the lane's node claimed %v, want %v", paused, got, done)
		}
	}
}

// A lane that becomes an owned one is not given out before other nodes have given
// back what they hold of it.
func TestALaneIsGivenOutWhenOthersHoldNothingOfIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.node(c.url), c.node(c.url)
	held := c.publish(a)
	c.settings(b, posthorn.Settings{Ordered: true})
	next := c.line(b)
	work, more, at, err := b.ClaimParked(t.Context(), c.to.ID, 10)
	if err != nil || len(work) != 0 || !more || at.IsZero() {
		t.Fatalf("claimed %v, more %v, next %v, %v; another node holds the head", work, more, at, err)
	}
	if err := a.Park(t.Context(), []store.Hold{{ID: held}}); err != nil {
		t.Fatal(err)
	}
	if got := c.claimLane(b); !slices.Equal(got, []posthorn.ID{held, next}) {
		t.Errorf("claimed %v", got)
	}
}

// fleet is nodes that serve, with one receiver for all.
type fleet struct {
	*cluster
	stores  []*postgres.Store
	publish []*publish.Service

	mu     sync.Mutex
	begun  []posthorn.ID
	times  []time.Time
	now    int
	most   int
	failed map[posthorn.ID]bool
	// succeeded counts the attempts that did.
	succeeded int
	fails     func(posthorn.ID) bool
	atOnce    int           // attempts of a node; 0 for the default
	takes     time.Duration // an attempt
}

func newFleet(t *testing.T, n int, s posthorn.Settings) *fleet {
	f := newFleetOf(t, n, nil)
	f.cluster.settings(f.stores[0], s)
	return f
}

// newFleetOf opens the nodes' stores with options that are changed before.
func newFleetOf(t *testing.T, n int, change func(f *fleet, o *postgres.Options)) *fleet {
	f := &fleet{cluster: newCluster(t, database(t)), failed: map[posthorn.ID]bool{}, fails: func(posthorn.ID) bool { return false }, takes: 3 * time.Millisecond}
	for range n {
		o := postgres.Options{URL: f.url, Lease: lease, Log: logger()}
		if change != nil {
			change(f, &o)
		}
		s := open(t, o)
		f.stores = append(f.stores, s)
		policy := posthorn.DefaultPolicy()
		policy.Schedule = []time.Duration{30 * time.Millisecond, 30 * time.Millisecond}
		e := lane.New(lane.Config{Store: s, Sender: sending{f}, Policy: policy, MaxInFlight: f.atOnce})
		p := publish.New(publish.Config{Store: s, Lanes: fleetLanes{e}, Catalog: everyType{}, Now: time.Now})
		f.publish = append(f.publish, p)
		s.Watch(func(n store.Notice) { p.Notice(n); e.Notice(n) })
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := e.Drain(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return f
}

type fleetLanes struct{ *lane.Engine }

func (l fleetLanes) Reserve(tenant, endpoint int64, size int) publish.Slot {
	return l.Engine.Reserve(tenant, endpoint, size)
}

func (l fleetLanes) ReserveParked(endpoint int64) publish.Slot {
	return l.Engine.ReserveParked(endpoint)
}

type everyType struct{}

func (everyType) Publishable(string) bool { return true }
func (everyType) Suggest(string) string   { return "" }

// sending is a node's attempts.
type sending struct{ f *fleet }

func (x sending) Send(ctx context.Context, _ *store.Target, w *store.Work, g lane.Gate) posthorn.Attempt {
	if !g.Enter() {
		return posthorn.Attempt{Class: posthorn.ClassLocal}
	}
	g.Leave()
	f := x.f
	f.mu.Lock()
	f.begun, f.times = append(f.begun, w.ID), append(f.times, time.Now())
	f.now++
	f.most = max(f.most, f.now)
	fails := f.fails(w.ID) && !f.failed[w.ID]
	f.failed[w.ID] = true
	f.mu.Unlock()
	<-time.After(x.f.takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now--
	if fails {
		return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 500}
	}
	f.succeeded++
	return posthorn.Attempt{Class: posthorn.ClassOK, Status: 200}
}

// send publishes an event on a node and returns its delivery.
func (f *fleet) send(node int) posthorn.ID {
	f.Helper()
	event := publish.Event{Type: "cases.updated", Data: []byte(`{}`)}
	got, err := f.publish[node].Publish(f.Context(), f.tenant, []publish.Event{event}, nil, nil, nil)
	if err != nil {
		f.Error(err)
		return 0
	}
	id, _ := posthorn.ParseID(posthorn.EventPrefix, got[0].Ref)
	return id + 1
}

// all waits until so many attempts succeeded, and returns when each of all began,
// for which delivery, and how many there were at a time.
func (f *fleet) all(n int) (times []time.Time, begun []posthorn.ID, most int) {
	f.Helper()
	f.eventually(fmt.Sprint(n, " attempts succeeded"), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.succeeded == n
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.times), slices.Clone(f.begun), f.most
}

// Three nodes publish for an ordered endpoint in turn, every fifth delivery fails
// once, and settings and nodes change: the line is kept.
func TestNodesKeepALine(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, posthorn.Settings{Ordered: true})
	f.fails = func(id posthorn.ID) bool { return id%5 == 0 }
	const n = 90
	var published []posthorn.ID
	for i := range n {
		published = append(published, f.send(i%3))
		if i == n/2 {
			f.cluster.settings(f.stores[1], posthorn.Settings{Ordered: true, RatePerSecond: 200})
		}
	}
	_, begun, most := f.all(n)
	if most != 1 {
		t.Errorf("%d attempts at a time", most)
	}
	// One after another, each until it succeeded.
	if order := slices.Compact(slices.Clone(begun)); !slices.Equal(order, published) {
		t.Errorf("%d attempts of %d deliveries", len(begun), n)
		for i, id := range order {
			if i >= len(published) || id != published[i] {
				t.Fatalf("%d attempts, of %d published; number %d was of the one published as number %d", len(order), n, i, slices.Index(published, id))
			}
		}
	}
	tally.Count(t, "deliveries of an ordered endpoint come in publish order from three nodes", n)
}

func TestNodesKeepMaxInFlightTogether(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, posthorn.Settings{MaxInFlight: 3})
	f.fails = func(id posthorn.ID) bool { return id%7 == 0 }
	var wg sync.WaitGroup
	for node := range 2 {
		wg.Go(func() {
			for range 100 {
				f.send(node)
			}
		})
	}
	wg.Wait()
	_, begun, most := f.all(200)
	if most > 3 {
		t.Errorf("%d attempts at a time, want 3 at most", most)
	}
	tally.Count(t, "attempts of two nodes together stay within max_in_flight", len(begun))
}

func TestNodesKeepARateTogether(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, posthorn.Settings{RatePerSecond: 20})
	for i := range 50 {
		f.send(i % 2)
	}
	times, _, _ := f.all(50)
	const some = 10
	for i := range times[some:] {
		// What is measured is when the attempt runs, not when it was started.
		if d := times[i+some].Sub(times[i]); d < some*50*time.Millisecond/2 {
			t.Errorf("%d attempts from the %dth on come within %v", some, i, d)
		}
	}
	if d := times[49].Sub(times[0]); d < 48*50*time.Millisecond {
		t.Errorf("50 attempts in %v", d)
	}
}
