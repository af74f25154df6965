package lane

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var ordered = posthorn.Settings{Ordered: true}

// keepsLine makes the receiver check what an ordered endpoint was promised: an
// attempt begins only when all that stands before it is in a final state.
func keepsLine(m *memory, r *receiver) {
	r.check = func(t *store.Target, w *store.Work) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !t.Endpoint.Settings.Ordered || m.rows[w.ID].work.Aside {
			return
		}
		for id, row := range m.rows {
			if id < w.ID && row.work.Endpoint == w.Endpoint && !row.work.Aside && row.place != "done" {
				m.t.Errorf("delivery %d is attempted while %d, %s, stands before it", w.ID, id, row.place)
			}
		}
	}
}

func TestFailingHeadHoldsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, nil)
		m.commit = 0
		keepsLine(m, r)
		r.answer = func(w *store.Work) posthorn.Attempt {
			if w.ID == 2 && w.Progress.Tries < 3 {
				return broken(w)
			}
			return ok(w)
		}
		m.endpoint(1, ordered, 1)
		e := start(t, m, r, Config{})
		began := time.Now()
		for range 40 {
			m.publish(e, 1, time.Time{})
		}
		m.publish(e, 1, began.Add(time.Minute))   // 41 passes the line
		m.publish(e, 1, began.Add(2*time.Minute)) // and so does 42
		wait(10 * time.Second)
		if s := e.Snapshot(1); !s.Backlogged || s.Queued != 0 {
			t.Errorf("while the head waits, the lane is %+v", s)
		}
		wait(2 * time.Hour)
		type start struct {
			id posthorn.ID
			at time.Duration
		}
		var got []start
		for _, q := range r.seen(1) {
			got = append(got, start{q.id, q.at.Sub(began)})
		}
		at := 35*time.Minute + 5*time.Second
		want := []start{{1, 0}, {2, 0}, {2, 5 * time.Second}, {41, time.Minute}, {42, 2 * time.Minute}, {2, 5*time.Minute + 5*time.Second}, {2, at}}
		for id := range posthorn.ID(38) {
			want = append(want, start{id + 3, at})
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(start{})); diff != "" {
			t.Error(diff)
		}
	})
}

// What a line does not hold is sent even when there is no room for it in memory
// while the head waits.
func TestAsidePassesAFullLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.ID == 1 {
				return broken(w)
			}
			wait(time.Second)
			return ok(w)
		})
		m.commit = 0
		keepsLine(m, r)
		m.endpoint(1, ordered, 1)
		e := start(t, m, r, Config{})
		for range 10 {
			m.publish(e, 1, time.Time{})
		}
		at := time.Now().Add(time.Minute)
		for range 50 {
			m.publish(e, 1, at)
		}
		wait(4 * time.Minute)
		if n := len(r.seen(1)); n != 2+50 {
			t.Errorf("%d attempts; want two of the head and the fifty that are delayed", n)
		}
	})
}

// In random worlds with failures, overflows, pauses, restarts, crashes and changes
// of the settings, an ordered endpoint's line is kept and nothing is lost.
func TestRandomWorldsKeepTheLine(t *testing.T) {
	for range *worlds {
		seed := rand.Uint64()
		if *worldSeed != 0 {
			seed = *worldSeed
		}
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("try it again with -run TheLine -worlds 1 -seed %d", seed)
				}
			})
			lineWorld(t, seed)
		})
	}
}

func lineWorld(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	dice := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	m := newMemory(t)
	m.shared = rng.IntN(2) == 0
	r := newReceiver(t, func(w *store.Work) posthorn.Attempt {
		wait(time.Duration(1+dice(4)) * time.Millisecond)
		if dice(8) == 0 {
			return broken(w)
		}
		return ok(w)
	})
	keepsLine(m, r)
	m.chance = func() time.Duration { return time.Duration(dice(5000)) * time.Microsecond }
	m.endpoint(1, ordered, 1)
	c := Config{QueuePerLane: 1 + rng.IntN(20), QueueBytes: 1 << 20}
	e := start(t, m, r, c)
	const events = 300
	random := rand.New(rand.NewPCG(seed, 1))
	paused, suspended, tests := false, false, 0
	choices := []posthorn.Settings{{Ordered: true}, {}, {MaxInFlight: 3}, {Ordered: true, RatePerSecond: 100}, {RatePerSecond: 200}}
	for range events {
		var at time.Time
		if random.IntN(10) == 0 {
			at = time.Now().Add(time.Duration(random.IntN(2000)) * time.Millisecond)
		}
		m.publish(e, 1, at)
		switch random.IntN(25) {
		case 0:
			wait(time.Duration(random.IntN(1000)) * time.Millisecond)
		case 1:
			if paused = !paused; paused {
				m.change(1, pauseIt)
			} else {
				m.change(1, resumeIt)
			}
		case 2:
			m.settings(1, choices[random.IntN(len(choices))])
		case 3:
			e.Notice(store.Notice{Kind: store.NoticeAll})
		case 4:
			e.Notice(store.Notice{Kind: store.NoticeParked, Tenant: 1, Endpoint: 1})
		case 5:
			if err := e.Drain(context.Background()); err != nil {
				t.Error(err)
			}
			m.reopen()
			e = start(t, m, r, c)
		case 6:
			m.settings(1, ordered)
		case 7:
			m.test(e, 1)
			tests++
		case 8, 9:
			m.retryAny(e, random)
		case 10:
			suspended = !suspended
			m.suspend(1, suspended)
		}
	}
	m.suspend(1, false)
	m.change(1, resumeIt)
	wait(20 * 24 * time.Hour)
	if n := m.places(); n["done"] != events+tests {
		t.Errorf("something is left: %v", n)
	}
	if s := e.Stats(); s.Queued+s.InFlight+s.Unrecorded != 0 || s.QueuedBytes != 0 {
		t.Errorf("something is left: %+v", s)
	}
}

func TestRateIsKeptOverMinutes(t *testing.T) {
	for i, c := range []struct {
		rate  float64
		over  time.Duration
		least int
		most  int
	}{
		{0.1, 10 * time.Minute, 60, 61},
		{2, 5 * time.Minute, 600, 601},
		{7.5, time.Minute, 450, 451},
		{1000, 4 * time.Second, 3900, 4006},
	} {
		synctest.Test(t, func(t *testing.T) {
			m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
				wait(20 * time.Millisecond)
				return ok(w)
			})
			m.commit, m.shared = 0, i%2 == 0
			m.endpoint(1, posthorn.Settings{RatePerSecond: c.rate, MaxInFlight: 256}, 1)
			e := start(t, m, r, Config{QueuePerLane: 100})
			for range c.most + 50 {
				m.publish(e, 1, time.Time{})
			}
			wait(time.Millisecond)
			began := r.seen(1)[0].at
			wait(c.over - time.Since(began))
			got := r.seen(1)
			if n := len(got); n < c.least || n > c.most {
				t.Errorf("%d attempts in %s at %g a second, want %d to %d", n, c.over, c.rate, c.least, c.most)
			}
			// In no second there are more than the rate, its slack and one.
			per := int(c.rate*(1+slack(c.rate).Seconds())) + 1
			for i := per; i < len(got); i++ {
				if d := got[i].at.Sub(got[i-per].at); d < time.Second-time.Duration(float64(time.Second)/c.rate) {
					t.Fatalf("%d attempts within %s at %g a second", per+1, d, c.rate)
				}
			}
			m.setSending(false)
		})
	}
}

// A restart, a lane that was let go and a clock that steps do not bend the rate.
func TestRateHoldsOverRestartsAndSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.commit = 0
		m.endpoint(1, posthorn.Settings{RatePerSecond: 0.5}, 1)
		var step time.Duration
		var mu sync.Mutex
		c := Config{Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Round(0).Add(step)
		}}
		e := start(t, m, r, c)
		began := time.Now()
		for range 100 {
			m.publish(e, 1, time.Time{})
		}
		wait(9 * time.Second)
		for _, by := range []time.Duration{-time.Hour, 3 * time.Hour, -2 * time.Minute} {
			mu.Lock()
			step += by
			mu.Unlock()
			before := len(r.seen(1))
			wait(10 * time.Second)
			if n := len(r.seen(1)) - before; n < 4 {
				t.Errorf("%d attempts in the 10 s after a step of %v", n, by)
			}
		}
		for range 5 { // one by one, over restarts and with nothing waiting between
			if err := e.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.reopen()
			e = start(t, m, r, c)
			wait(3 * time.Second)
			e.Notice(store.Notice{Kind: store.NoticeAll})
		}
		wait(10 * time.Minute)
		got := r.seen(1)
		if len(got) != 100 {
			t.Fatalf("%d attempts", len(got))
		}
		for i := range got[1:] {
			if d := got[i+1].at.Sub(got[i].at); d < 2*time.Second {
				t.Errorf("attempt %d, %s after the start, is %s after the one before", i+1, got[i+1].at.Sub(began), d)
			}
		}
		if d := got[99].at.Sub(began); d > 99*2*time.Second+30*time.Second {
			t.Errorf("the last attempt is %s after the first", d)
		}
	})
}

func TestLetGoLaneKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.commit = 0
		m.endpoint(1, posthorn.Settings{RatePerSecond: 0.1}, 1)
		e := start(t, m, r, Config{})
		for range 5 {
			m.publish(e, 1, time.Time{})
			wait(time.Second)
			e.Notice(store.Notice{Kind: store.NoticeAll}) // lets go of lanes at rest
			wait(time.Second)
		}
		wait(time.Hour)
		for i, q := range r.seen(1)[1:] {
			if d := q.at.Sub(r.seen(1)[i].at); d < 10*time.Second {
				t.Errorf("attempt %d is %s after the one before", i+1, d)
			}
		}
	})
}

func TestMaxInFlightIsNeverExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			wait(time.Second)
			return ok(w)
		})
		m.shared = true
		m.endpoint(1, posthorn.Settings{MaxInFlight: 3}, 1)
		e := start(t, m, r, Config{})
		for range 60 {
			m.publish(e, 1, time.Time{})
		}
		wait(time.Hour)
		if n := len(r.seen(1)); n != 60 || r.most[1] != 3 {
			t.Errorf("%d attempts, %d at a time; want 60, 3", n, r.most[1])
		}
	})
}

func TestLineUp(t *testing.T) {
	now := time.Now()
	soon, later := now.Add(time.Second), now.Add(time.Minute)
	tried := func(at time.Time) store.ParkedRow { return store.ParkedRow{Tries: 1, NextAt: at} }
	aside := store.ParkedRow{Aside: true}
	for name, c := range map[string]struct {
		ordered    bool
		parked     []store.ParkedRow
		limit      int
		take, wait []int
		next       time.Time
		full, more bool
	}{
		"nothing":                      {},
		"all that is new":              {parked: []store.ParkedRow{{}, {NextAt: later}}, limit: 9, take: []int{0, 1}},
		"no more than the limit":       {parked: []store.ParkedRow{{}, {}, tried(soon)}, limit: 1, take: []int{0}, more: true},
		"a time given back":            {parked: []store.ParkedRow{tried(later), {}, tried(soon), tried(now)}, limit: 9, take: []int{1, 3}, wait: []int{0, 2}, next: soon},
		"only times, and who knows":    {parked: []store.ParkedRow{tried(later)}, limit: 1, wait: []int{0}, next: now, full: true, more: true},
		"a head that waits":            {ordered: true, parked: []store.ParkedRow{tried(later), {}, tried(soon)}, limit: 9, next: later, more: true},
		"a line up to one that waits":  {ordered: true, parked: []store.ParkedRow{{}, tried(now), tried(soon), {}}, limit: 9, take: []int{0, 1}, next: soon, more: true},
		"aside of a line":              {ordered: true, parked: []store.ParkedRow{tried(later), aside, {}, aside}, limit: 9, take: []int{1, 3}, next: later, more: true},
		"aside of a line, in its time": {ordered: true, parked: []store.ParkedRow{{}, {Aside: true, Tries: 1, NextAt: soon}}, limit: 9, take: []int{0}, wait: []int{1}, next: soon},
	} {
		take, wait, more, next := store.LineUp(c.ordered, c.parked, c.full, now, c.limit)
		if !slices.Equal(take, c.take) || !slices.Equal(wait, c.wait) || !next.Equal(c.next) || more != c.more {
			t.Errorf("%s: took %v, let wait %v, more %v, next %v", name, take, wait, more, next)
		}
	}
}
