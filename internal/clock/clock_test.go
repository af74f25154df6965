package clock_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/clock"
)

// hands are the clocks of a machine, and a database's, that a test sets.
type hands struct {
	mu        sync.Mutex
	passed    time.Duration // since the beginning
	wall, ref time.Duration // how far they are ahead of it
}

var beginning = time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)

func (h *hands) read() clock.Reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	return clock.Reading{Wall: beginning.Add(h.passed + h.wall), Monotonic: h.passed + 17*time.Hour}
}

// pass lets time pass, in which somebody looks at the clock now and then.
func (h *hands) pass(c *clock.Clock, d time.Duration) {
	for left := d; left > 0; left -= time.Minute {
		h.mu.Lock()
		h.passed += min(left, time.Minute)
		h.mu.Unlock()
		c.Now()
	}
}

// off is how far the service's time is ahead of the truth.
func (h *hands) off(c *clock.Clock) time.Duration { return c.Now().Sub(beginning.Add(h.passed)) }

const day = 24 * time.Hour

var jumps = []time.Duration{time.Hour, -time.Hour, day, -day, 32 * day, -32 * day}

func TestAJumpIsNotFollowedBeforeItStoodForAnHour(t *testing.T) {
	for _, jump := range jumps {
		h := &hands{}
		c := clock.New(clock.Options{Read: h.read})
		h.pass(c, time.Hour)
		turns := c.State().Turns
		h.wall = jump
		if s := c.State(); s.Jump != jump || s.Turns == turns || s.Believed != 0 {
			t.Errorf("%s: %+v", jump, s)
		}
		h.pass(c, 59*time.Minute)
		if off := h.off(c); off != 0 {
			t.Errorf("%s: after 59 minutes the service is %s ahead", jump, off)
		}
		h.pass(c, 2*time.Minute)
		if off, s := h.off(c), c.State(); off != jump || s.Jump != 0 || s.Believed != 1 {
			t.Errorf("%s: after an hour the service is %s ahead: %+v", jump, off, s)
		}
	}
}

func TestAClockThatJumpsBackAndForthMovesNothing(t *testing.T) {
	for _, jump := range jumps {
		h := &hands{}
		c := clock.New(clock.Options{Read: h.read})
		for range 40 {
			h.wall = jump
			h.pass(c, 50*time.Minute)
			if off := h.off(c); off != 0 {
				t.Fatalf("%s: the service is %s ahead", jump, off)
			}
			h.wall = 0
			h.pass(c, 10*time.Minute)
		}
		if s := c.State(); s.Jump != 0 || s.Turns != 80 {
			t.Errorf("%s: %+v", jump, s)
		}
	}
}

// What jumps again before it is believed begins again.
func TestEachJumpStandsForAnHourOfItsOwn(t *testing.T) {
	h := &hands{}
	c := clock.New(clock.Options{Read: h.read})
	for i := range 5 {
		h.wall = time.Duration(i+1) * time.Hour
		h.pass(c, 40*time.Minute)
	}
	if off := h.off(c); off != 0 {
		t.Errorf("the service is %s ahead", off)
	}
}

func TestAMachineMaySetItsClockByAMinute(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := &hands{}
	c := clock.New(clock.Options{Read: h.read})
	for range 200 {
		h.wall += time.Duration(rng.Int64N(int64(2*time.Minute))) - time.Minute
		h.pass(c, time.Minute)
		if off := h.off(c) - h.wall; off.Abs() > 100*time.Millisecond {
			t.Fatalf("the service is %s from the machine's clock", off)
		}
	}
	if s := c.State(); s.Turns != 0 {
		t.Errorf("%+v", s)
	}
}

// A driven clock goes by its reference, known within a margin, and by no wall clock.
func TestADrivenClockFollowsItsReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := &hands{ref: -3 * time.Second}
	c := clock.New(clock.Options{Read: h.read, Driven: true, Slack: clock.DatabaseSlack})
	follow := func() {
		before := h.read()
		took := time.Duration(rng.Int64N(int64(time.Second)))
		answered := time.Duration(rng.Int64N(int64(took) + 1))
		at := beginning.Add(h.passed + answered + h.ref)
		h.passed += took
		c.Follow(at, before, h.read())
	}
	c.Set(beginning.Add(h.ref), h.read())
	for range 1000 {
		h.ref += time.Duration(rng.Int64N(int64(time.Millisecond))) // it is set right slowly
		h.wall = jumps[rng.IntN(len(jumps))]
		follow()
		if off := h.off(c) - h.ref; off.Abs() > time.Second {
			t.Fatalf("the service is %s from its reference", off)
		}
	}
	for _, jump := range jumps {
		was, off := h.ref, h.off(c)
		h.ref += jump
		for range 100 {
			follow()
		}
		if got := h.off(c); (got-off).Abs() > time.Second || c.State().Jump == 0 {
			t.Errorf("a jump by %s moves the service by %s: %+v", jump, got-off, c.State())
		}
		h.ref = was
		follow()
		if c.State().Jump != 0 {
			t.Errorf("back again: %+v", c.State())
		}
	}
}

func TestNowMayBeAskedByMany(t *testing.T) {
	h := &hands{}
	c := clock.New(clock.Options{Read: h.read})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if off := c.Now().Sub(beginning); off.Abs() > time.Minute {
					t.Errorf("%s", off)
					return
				}
				c.State()
			}
		})
	}
	for i := range 1000 {
		h.mu.Lock()
		h.wall = time.Duration(i%2) * 32 * day
		h.mu.Unlock()
	}
	wg.Wait()
}

func TestMachineShowsTheMachinesTime(t *testing.T) {
	c := clock.New(clock.Options{})
	if off := time.Since(c.Now()); off < 0 || off > time.Minute {
		t.Errorf("%s", off)
	}
}

func TestWhoIsWrong(t *testing.T) {
	const h, s = time.Hour, time.Second
	type list = []time.Duration
	right, wrong, database := clock.Standing{}, clock.Standing{Wrong: true}, clock.Standing{DatabaseWrong: true}
	for _, c := range []struct {
		what   string
		mine   time.Duration
		others list
		want   clock.Standing
	}{
		{"alone, as the database", 0, nil, right},
		{"alone, and the database off", h, nil, database},
		{"two agree", 0, list{s / 2}, right},
		{"of two, the one that is off", h, list{0}, wrong},
		{"of two, the one that is not", 0, list{h}, right},
		{"two that agree against the database", h, list{h + s/2}, database},
		{"two that do not agree, and none with the database", h, list{2 * h}, wrong},
		{"the one of three", -h, list{0, 0}, wrong},
		{"one of the two others", 0, list{0, -h}, right},
		{"two of three against the database", h, list{h, 0}, database},
		{"and the one that agrees with the database", 0, list{h, h}, wrong},
		{"two against two: the database decides", 0, list{0, h, h}, right},
		{"two against two, not as the database", h, list{h, 0, 0}, wrong},
		{"three that all differ: the database decides", 0, list{h, 2 * h}, right},
		{"a second is nothing", s, list{0}, right},
		{"two seconds are not", 2 * s, list{0}, wrong},
		{"two seconds alone", 2 * s, nil, database},
	} {
		if got := clock.Judge(c.mine, c.others); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// Of nodes that differ never two sides are right.
func TestNeverAreTwoSidesRight(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		nodes := make([]time.Duration, 1+rng.IntN(6))
		for i := range nodes {
			nodes[i] = []time.Duration{0, time.Hour, -day}[rng.IntN(3)] + time.Duration(rng.Int64N(int64(time.Second)))
		}
		var right []time.Duration
		for i, mine := range nodes {
			others := append(append([]time.Duration{}, nodes[:i]...), nodes[i+1:]...)
			if !clock.Judge(mine, others).Wrong {
				right = append(right, mine)
			}
		}
		for _, a := range right {
			for _, b := range right {
				if (a - b).Abs() > clock.Apart {
					t.Fatalf("of %v, %s and %s are both right", nodes, a, b)
				}
			}
		}
	}
}
