package lane

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// latest keeps the longest lag of some endpoints' attempts.
type latest struct{ lag atomic.Int64 }

func (l *latest) take(o Observation) {
	for was := l.lag.Load(); int64(o.Lag) > was && !l.lag.CompareAndSwap(was, int64(o.Lag)); was = l.lag.Load() {
	}
}

func (l *latest) reset()              { l.lag.Store(0) }
func (l *latest) most() time.Duration { return time.Duration(l.lag.Load()) }

// held is how many attempts are under way to a tenant's endpoints.
func (m *memory) held(r *receiver, tenant int64) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for endpoint, now := range r.now {
		if m.targets[endpoint].Endpoint.Tenant == tenant {
			n += now
		}
	}
	return n
}

// run is the ids from a to b.
func run(a, b int64) (ids []int64) {
	for ; a <= b; a++ {
		ids = append(ids, a)
	}
	return ids
}

// Ten tenants' lanes work with hundreds of attempts at a time and stop answering at
// one instant. Attempts of others start as if nothing had happened: those of lanes
// that work, a lane's first, and what is asked for by hand.
func TestFullLanesThatStopAnsweringDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, works, fresh = 512, 100, 1000
		var stopped atomic.Bool
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if w.Endpoint <= 10 && stopped.Load() {
				return hang(w)
			}
			wait(20 * time.Millisecond)
			return ok(w)
		}
		for i := range int64(10) {
			m.endpoint(1+i, posthorn.Settings{MaxInFlight: 128}, 1+i)
		}
		m.endpoint(works, posthorn.Settings{}, works)
		newcomers := run(fresh, fresh+150)
		for _, id := range newcomers {
			m.endpoint(id, posthorn.Settings{}, id)
		}
		m.commit = 0
		var others latest
		e := start(t, m, r, Config{MaxInFlight: all, Observe: func(o Observation) {
			if o.Work.Endpoint >= works {
				others.take(o)
			}
		}})
		// Windows of over a hundred.
		for range 200 {
			for i := range int64(10) {
				m.publish(e, 1+i, time.Time{})
			}
		}
		m.publish(e, works, time.Time{})
		wait(10 * time.Second)
		others.reset()
		stopped.Store(true)
		for range 150 {
			for i := range int64(10) {
				m.publish(e, 1+i, time.Time{})
			}
		}
		synctest.Wait()
		if n := e.Stats().InFlight; n != all-all/4 {
			t.Errorf("the ten hold %d attempts of %d, want three quarters", n, all)
		}
		// For as long as they hang: 14 s.
		for i := range 140 {
			m.publish(e, works, time.Time{})
			m.publish(e, newcomers[i], time.Time{})
			wait(50 * time.Millisecond)
			m.test(e, works)
			wait(50 * time.Millisecond)
		}
		if n := len(r.seen(works)); n != 281 {
			t.Errorf("%d attempts of 281 to the endpoint that works", n)
		}
		first := 0
		for _, id := range newcomers[:140] {
			first += len(r.seen(id))
		}
		if first != 140 {
			t.Errorf("%d of 140 deliveries that are an endpoint's first were attempted", first)
		}
		if others.most() > 20*time.Millisecond {
			t.Errorf("an attempt of another tenant waited %s", others.most())
		}
		wait(48 * time.Hour)
	})
}

// Four hundred endpoints of one tenant answer after 25 seconds. They succeed, and
// would hold all attempts for good.
func TestSlowEndpointsOfOneTenantDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, victim = 512, 5000
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.Endpoint == victim {
				wait(10 * time.Millisecond)
			} else {
				wait(25 * time.Second)
			}
			return ok(w)
		})
		slow := run(1, 400)
		m.endpoint(1, posthorn.Settings{TimeoutSeconds: 30}, slow...)
		m.endpoint(2, posthorn.Settings{}, victim)
		m.commit = 0
		var lag latest
		e := start(t, m, r, Config{MaxInFlight: all, Observe: func(o Observation) {
			if o.Work.Endpoint == victim {
				lag.take(o)
			}
		}})
		for range 12 {
			for _, id := range slow {
				m.publish(e, id, time.Time{})
			}
		}
		sent := 0
		wait(time.Minute) // until most of them are known to work
		for range 10 {
			wait(10 * time.Second)
			synctest.Wait()
			if n := m.held(r, 1); n != all-all/4 {
				t.Fatalf("the slow ones hold %d attempts of %d, want three quarters", n, all)
			}
			for range 10 {
				m.publish(e, victim, time.Time{})
				sent++
			}
		}
		wait(time.Second)
		if n := len(r.seen(victim)); n != sent {
			t.Errorf("%d attempts of %d to the victim", n, sent)
		}
		// Ten at once to a lane that starts with one attempt at a time.
		if lag.most() > 40*time.Millisecond {
			t.Errorf("the victim's attempts started %s late", lag.most())
		}
		wait(time.Hour)
	})
}

// What a tenant's endpoints hold that hang, or of which nothing is known, leaves a
// quarter of all attempts to its own endpoints that work.
func TestAnEndpointThatWorksGoesOnBesideItsTenantsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, works = 64, 5000
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.Endpoint == works {
				wait(10 * time.Millisecond)
				return ok(w)
			}
			return hang(w)
		})
		m.endpoint(1, posthorn.Settings{}, append(run(1, 200), works)...)
		m.commit = 0
		var lag latest
		e := start(t, m, r, Config{MaxInFlight: all, Observe: func(o Observation) {
			if o.Work.Endpoint == works {
				lag.take(o)
			}
		}})
		m.publish(e, works, time.Time{})
		wait(time.Second)
		lag.reset()
		for _, id := range run(1, 200) {
			m.publish(e, id, time.Time{})
		}
		synctest.Wait()
		if n := e.Stats().Unproven; n != all/2 {
			t.Errorf("endpoints of which nothing is known hold %d of %d attempts, want half", n, all)
		}
		for range 500 {
			m.publish(e, works, time.Time{})
			wait(20 * time.Millisecond)
		}
		if n := len(r.seen(works)); n != 501 || lag.most() > 5*time.Millisecond {
			t.Errorf("%d attempts of 501 to the endpoint that works, the latest after %s", n, lag.most())
		}
		wait(24 * time.Hour)
	})
}

// Whoever holds fewest starts next: among tenants, and then among a tenant's lanes.
func TestWhoHoldsFewestStartsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 96
		var slow atomic.Bool
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if slow.Load() {
				wait(10 * time.Second)
			}
			return ok(w)
		})
		m.endpoint(1, posthorn.Settings{}, run(1, 100)...)
		m.endpoint(2, posthorn.Settings{}, run(101, 140)...)
		m.endpoint(3, posthorn.Settings{}, 200)
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: all})
		publish := func(ids []int64, n int) {
			for range n {
				for _, id := range ids {
					m.publish(e, id, time.Time{})
				}
			}
			synctest.Wait()
		}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			got := []int{m.held(r, 1), m.held(r, 2), m.held(r, 3)}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s the tenants hold %v attempts, want %v", when, got, want)
			}
		}
		publish(append(run(1, 140), 200), 1)
		wait(time.Second)
		slow.Store(true)
		publish(run(1, 100), 20)
		expect("at first", 72, 0, 0)
		wait(time.Second)
		publish(run(101, 140), 20)
		// Less than 96/8/2 = 6.
		expect("a second tenant has come:", 72, 5, 0)
		publish([]int64{200}, 1)
		expect("a third has:", 72, 5, 1)
		wait(10 * time.Second)
		// All of the first ended, and then five and one: 72 are free again, and shared.
		expect("then", 36, 36, 0)
		r.mu.Lock()
		defer r.mu.Unlock()
		for id, most := range r.most {
			if id <= 140 && most > 2 {
				t.Errorf("endpoint %d held %d attempts while others of its tenant held none", id, most)
			}
		}
	})
}

// An attempt that lasts longer than twice its lane's usual time counts as unproven,
// so that what is kept for lanes that work is not given away beside those that hang.
func TestAttemptsThatLastTooLongCountAsUnproven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 64
		var hung atomic.Bool
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			switch {
			case w.Endpoint <= 24 && hung.Load(), w.Endpoint >= 100 && w.Endpoint < 200:
				return hang(w)
			case w.Endpoint <= 24:
				wait(3 * time.Second) // its usual time
			}
			return ok(w)
		}
		m.endpoint(1, posthorn.Settings{}, run(1, 24)...)
		m.endpoint(2, posthorn.Settings{}, run(100, 110)...)
		m.endpoint(3, posthorn.Settings{}, run(120, 122)...)
		m.endpoint(4, posthorn.Settings{}, 200)
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: all})
		for _, id := range append(run(1, 24), 200) {
			m.publish(e, id, time.Time{})
		}
		wait(time.Minute)
		hung.Store(true)
		for range 3 {
			for _, id := range run(1, 24) {
				m.publish(e, id, time.Time{})
			}
		}
		expect := func(unproven int, held ...int) {
			t.Helper()
			synctest.Wait()
			if n := e.Stats().Unproven; n != unproven {
				t.Errorf("%d attempts count as unproven, want %d", n, unproven)
			}
			if got := []int{m.held(r, 1), m.held(r, 2), m.held(r, 3)}; fmt.Sprint(got) != fmt.Sprint(held) {
				t.Errorf("the tenants hold %v attempts, want %v", got, held)
			}
		}
		expect(0, 48, 0, 0) // two each, and three quarters in all
		wait(6 * time.Second)
		expect(0, 48, 0, 0) // twice the usual time
		wait(time.Millisecond)
		expect(48, 48, 0, 0)
		for _, id := range append(run(100, 110), run(120, 122)...) {
			m.publish(e, id, time.Time{})
		}
		expect(50, 48, 1, 1) // one of each tenant that holds nothing else
		m.publish(e, 200, time.Time{})
		wait(time.Millisecond)
		if n := len(r.seen(200)); n != 2 {
			t.Errorf("%d attempts to the endpoint that works, want 2", n)
		}
		wait(24 * time.Hour)
		expect(0, 0, 0, 0)
	})
}

// A lane waits among the unproven ones when an attempt of it succeeds: it goes on as
// one that works.
func TestALaneThatSucceedsWaitsNoLongerAsUnproven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 64
		takes := []time.Duration{0, 0, 0, 500 * time.Millisecond, time.Second, 20 * time.Second, 0}
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if w.Endpoint < 100 {
				return hang(w)
			}
			n := len(r.seen(100)) - 1
			wait(takes[min(n, len(takes)-1)])
			if n == 3 {
				return broken(w)
			}
			return ok(w)
		}
		m.endpoint(1, posthorn.Settings{}, append(run(1, 48), 100)...)
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: all})
		publish := func(endpoint int64) {
			m.publish(e, endpoint, time.Time{})
			wait(time.Millisecond)
		}
		for range 3 { // a window of four
			publish(100)
		}
		for _, id := range run(1, 48) {
			publish(id)
		}
		for range 3 { // one fails soon, one succeeds later, one lasts
			publish(100)
		}
		wait(700 * time.Millisecond)
		publish(100)
		if n := len(r.seen(100)); n != 6 {
			t.Fatalf("%d attempts before one succeeds, want 6", n)
		}
		wait(500 * time.Millisecond)
		if n := len(r.seen(100)); n != 7 {
			t.Errorf("%d attempts after one has succeeded, want 7", n)
		}
		wait(24 * time.Hour)
	})
}
