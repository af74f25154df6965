package lane

import (
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func TestFailingLaneIsProbedByOneDeliveryAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if up.Load() {
				return ok(w)
			}
			return broken(w)
		}
		m.commit = 0
		m.endpoint(1, posthorn.Settings{RetrySchedule: []int{86400, 86400}}, 1)
		e := start(t, m, r, Config{QueuePerLane: 100})
		began := time.Now()
		for range 60 {
			m.publish(e, 1, time.Time{})
		}
		wait(30 * time.Minute)
		var got []time.Duration
		for _, q := range r.seen(1) {
			got = append(got, q.at.Sub(began))
		}
		want := []time.Duration{0, 0, 0, 0, 0}
		at, gap := time.Duration(0), 5*time.Second
		for at+gap <= 30*time.Minute {
			at += gap
			want = append(want, at)
			gap = min(2*gap, 5*time.Minute)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attempts to a dead endpoint (-want +got):\n%s", diff)
		}
		if s := e.Snapshot(1); !s.BreakerOpen || s.Queued > failingQueue || !s.Backlogged {
			t.Errorf("the lane: %+v", s)
		}
		up.Store(true)
		wait(5*time.Minute + time.Second)
		if n := len(r.seen(1)); n != 60 {
			t.Errorf("%d attempts in all after the endpoint came back, want 60", n)
		}
	})
}

func TestRetryAfterHoldsTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Bool
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if asked.CompareAndSwap(false, true) {
				return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 429, RetryAfter: time.Hour}
			}
			return ok(w)
		}
		m.commit = 0
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		began := time.Now()
		for range 10 {
			m.publish(e, 1, time.Time{})
		}
		wait(time.Minute)
		// A restart does not forget what was asked for.
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		start(t, m, r, Config{})
		wait(2 * time.Hour)
		got := r.seen(1)
		if len(got) != 11 {
			t.Fatalf("%d attempts", len(got))
		}
		for _, q := range got[1:] {
			if d := q.at.Sub(began); d != time.Hour {
				t.Errorf("an attempt after %s, the receiver asked for an hour", d)
			}
		}
	})
}

func TestGonePausesBeforeAnotherAttemptBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		r := newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(100 * time.Millisecond)
			m.mu.Lock()
			m.commit = time.Second // the pause is recorded late
			m.mu.Unlock()
			return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410}
		})
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		for range 5 {
			m.publish(e, 1, time.Time{})
		}
		wait(24 * time.Hour)
		if n := len(r.seen(1)); n != 1 {
			t.Errorf("%d attempts to an endpoint that is gone", n)
		}
	})
}

func TestWindowGrowsWithSuccessAndShrinksWithTimeouts(t *testing.T) {
	p := paceOf(posthorn.Health{}, time.Now(), 0)
	now := time.Minute
	for range 40 {
		p.observe(&posthorn.Attempt{Class: posthorn.ClassOK}, false, 32, time.Second, now)
	}
	if got := p.limit(32); got != 32 {
		t.Errorf("after 40 successes the window is %d", got)
	}
	p.observe(&posthorn.Attempt{Class: posthorn.ClassTimeout}, false, 32, time.Second, now)
	if got := p.limit(32); got != 1 {
		t.Errorf("after a timeout the window is %d", got)
	}
}

func TestLocalFaultsCountAgainstNoEndpoint(t *testing.T) {
	p := paceOf(posthorn.Health{}, time.Now(), 0)
	now := time.Minute
	for range 20 {
		p.observe(&posthorn.Attempt{Class: posthorn.ClassLocal}, false, 32, 5*time.Second, now)
	}
	if p.open() || p.failures != 0 || p.limit(32) != 1 || p.notBefore() != now+5*time.Second {
		t.Errorf("after local faults: %+v", p)
	}
}

func TestPaceOfStoredHealthGoesOnProbing(t *testing.T) {
	since := time.Now()
	h := posthorn.Health{Failures: 7, FailingSince: since, LastFailure: since.Add(20 * time.Second)}
	if p := paceOf(h, since.Add(25*time.Second), time.Hour); !p.open() || p.nextProbe != time.Hour+15*time.Second {
		t.Errorf("next probe %s", p.nextProbe)
	}
	if p := paceOf(posthorn.Health{LastSuccess: since}, since, 0); !p.proven || p.open() {
		t.Errorf("a healthy endpoint: %+v", p)
	}
}

// What was stored by a clock that was ahead keeps an endpoint shut for no longer than
// its wait.
func TestStoredHealthAheadOfTheClockWaitsNoLonger(t *testing.T) {
	now := time.Now()
	const age = time.Minute
	for _, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 32 * 24 * time.Hour} {
		last := now.Add(ahead)
		h := posthorn.Health{Failures: 7, FailingSince: last.Add(-20 * time.Second), LastFailure: last, HoldUntil: last.Add(30 * time.Second)}
		if p := paceOf(h, now, age); p.nextProbe != age+20*time.Second || p.holdUntil != age+30*time.Second {
			t.Errorf("%s ahead: next probe after %s, held for %s", ahead, p.nextProbe-age, p.holdUntil-age)
		}
	}
	h := posthorn.Health{Failures: 1, LastFailure: now.Add(-time.Hour), HoldUntil: now.Add(time.Hour)}
	if p := paceOf(h, now, age); p.holdUntil != age+time.Hour {
		t.Errorf("held for %s", p.holdUntil-age)
	}
}

// A thousand endpoints that hang hold one attempt each, and a healthy one
// is as fast as if it were alone.
func TestHangingEndpointsSlowNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const healthy = 5000
		m, r := newMemory(t), newReceiver(t, nil)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if w.Endpoint == healthy {
				wait(10 * time.Millisecond)
				return ok(w)
			}
			return hang(w)
		}
		var hanging []int64
		for i := range 1000 {
			hanging = append(hanging, int64(i+1))
		}
		m.endpoint(1, posthorn.Settings{}, hanging...)
		m.endpoint(2, posthorn.Settings{}, healthy)
		var late atomic.Int64
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: 64, Observe: func(o Observation) {
			if o.Work.Endpoint == healthy {
				for was := late.Load(); int64(o.Lag) > was && !late.CompareAndSwap(was, int64(o.Lag)); was = late.Load() {
				}
			}
		}})
		m.publish(e, healthy, time.Time{})
		wait(time.Second)
		late.Store(0)
		for range 3 {
			for _, id := range hanging {
				m.publish(e, id, time.Time{})
			}
		}
		for range 500 {
			m.publish(e, healthy, time.Time{})
			wait(20 * time.Millisecond)
		}
		if n := len(r.seen(healthy)); n < 500 {
			t.Errorf("%d of 501 attempts to the healthy endpoint", n)
		}
		if late := time.Duration(late.Load()); late > 5*time.Millisecond {
			t.Errorf("a delivery to the healthy endpoint waited %s", late)
		}
		r.mu.Lock()
		most := maps.Clone(r.most)
		r.mu.Unlock()
		for id, n := range most {
			if id != healthy && n > 1 {
				t.Errorf("endpoint %d held %d attempts", id, n)
			}
		}
		wait(24 * time.Hour)
	})
}

func TestTenantsTakeTurnsWhenTheLimitBinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(time.Second); return ok(nil) })
		var many []int64
		for i := range 100 {
			many = append(many, int64(i+1))
		}
		m.endpoint(1, posthorn.Settings{}, many...)
		m.endpoint(2, posthorn.Settings{}, 1000)
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: 4})
		for range 10 {
			for _, id := range many {
				m.publish(e, id, time.Time{})
			}
		}
		began := time.Now()
		for range 10 {
			m.publish(e, 1000, time.Time{})
		}
		wait(time.Minute)
		got := r.seen(1000)
		if len(got) < 10 {
			t.Fatalf("the small tenant got %d attempts in a minute", len(got))
		}
		if d := got[9].at.Sub(began); d > 15*time.Second {
			t.Errorf("its ten deliveries took %s beside a tenant with a thousand", d)
		}
		wait(time.Hour)
	})
}
