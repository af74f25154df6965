package store_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func TestQuantileIsInTheBucketOfTheExactOne(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		h := store.Hours{}
		var exact []time.Duration
		for range 1 + r.IntN(200) {
			d := time.Duration(r.Float64() * r.Float64() * r.Float64() * float64(40*time.Second))
			if r.IntN(5) == 0 {
				d = []time.Duration{0, 10 * time.Millisecond, time.Second, 15 * time.Second, 30 * time.Second}[r.IntN(5)]
			}
			exact = append(exact, d)
			h.Count(&store.Result{Endpoint: 1, Attempt: posthorn.Attempt{Class: posthorn.ClassTimeout, Duration: d}}, posthorn.Progress{}, posthorn.Progress{}, 0)
		}
		slices.Sort(exact)
		last := time.Duration(0)
		for _, q := range []float64{0.001, 0.5, 0.95, 0.99, 1} {
			got, ok := h.At(1, time.Time{}).Quantile(q)
			i := max(int(float64(len(exact))*q+0.999999)-1, 0)
			d := exact[i]
			if !ok || d < got.Low || got.High > 0 && d > got.High || got.High == 0 && d <= 30*time.Second {
				t.Fatalf("quantile %v of %v is %v, found within %+v", q, exact, d, got)
			}
			if got.Estimate < got.Low || got.High > 0 && got.Estimate > got.High || got.Estimate < last {
				t.Fatalf("%+v after %v", got, last)
			}
			last = got.Estimate
		}
	}
	if _, ok := new(store.Hour).Quantile(0.5); ok {
		t.Error("nothing has a median")
	}
}

// A delivery is counted once, by the final state that it has and in the hour in which it
// got that.
func TestCountOfEnds(t *testing.T) {
	const before = 7
	in := func(s posthorn.State) posthorn.Progress { return posthorn.Progress{State: s} }
	extra := func(s posthorn.State) posthorn.Progress { return posthorn.Progress{Extra: true, Before: s} }
	for _, tc := range []struct {
		name        string
		from, to    posthorn.Progress
		then        store.Hour // what is added to the hour in which it was counted
		now         store.Hour
		counted     int64
		wantCounted int64
	}{
		{"a first success", in(posthorn.Pending), in(posthorn.Succeeded), store.Hour{}, store.Hour{Succeeded: 1}, 0, 9},
		{"a failure that waits", in(posthorn.Pending), in(posthorn.Pending), store.Hour{}, store.Hour{}, 0, 0},
		{"the last failure", in(posthorn.Pending), in(posthorn.Failed), store.Hour{}, store.Hour{Exhausted: 1}, 0, 9},
		{"a late failure", in(posthorn.Canceled), in(posthorn.Canceled), store.Hour{}, store.Hour{}, before, before},
		{"a late success", in(posthorn.Canceled), in(posthorn.Succeeded), store.Hour{Canceled: -1}, store.Hour{Succeeded: 1}, before, 9},
		{"a late success of what expired", in(posthorn.Expired), in(posthorn.Succeeded), store.Hour{Expired: -1}, store.Hour{Succeeded: 1}, before, 9},
		{"a late success of what an older version counted", in(posthorn.Canceled), in(posthorn.Succeeded), store.Hour{}, store.Hour{Succeeded: 1}, 0, 9},
		{"a failed one that is opened by hand", in(posthorn.Failed), extra(posthorn.Failed), store.Hour{}, store.Hour{}, before, before},
		{"a failed one by hand, again", extra(posthorn.Failed), in(posthorn.Failed), store.Hour{}, store.Hour{}, before, before},
		{"a failed one by hand, well", extra(posthorn.Failed), in(posthorn.Succeeded), store.Hour{Exhausted: -1}, store.Hour{Succeeded: 1}, before, 9},
		{"a success by hand, again", extra(posthorn.Succeeded), in(posthorn.Succeeded), store.Hour{}, store.Hour{}, before, before},
		{"a failed one that is replayed", in(posthorn.Failed), in(posthorn.Pending), store.Hour{Exhausted: -1}, store.Hour{}, before, 0},
		{"a final state of a later version", in(posthorn.Pending), in(77), store.Hour{}, store.Hour{}, 0, 9},
	} {
		h, at := store.Hours{}, time.Unix(9*3600, 0)
		counted := h.Move(1, posthorn.EventNormal, tc.from, tc.to, tc.counted, at)
		if *h.At(1, time.Unix(before*3600, 0)) != tc.then || *h.At(1, at) != tc.now || counted != tc.wantCounted {
			t.Errorf("%s: %+v, %d", tc.name, h, counted)
		}
		h = store.Hours{}
		if counted := h.Move(1, posthorn.EventTest, tc.from, tc.to, 0, at); counted != 0 || len(h) != 0 {
			t.Errorf("%s, of a test: %+v, %d", tc.name, h, counted)
		}
	}
}

// A replay counts what it opened by the final state that it has since then.
func TestCountOfAReplay(t *testing.T) {
	in := func(s posthorn.State) posthorn.Progress { return posthorn.Progress{State: s} }
	c := store.ReplayCounts{}
	for _, step := range []struct {
		from, to          posthorn.Progress
		succeeded, failed int
	}{
		{in(posthorn.Pending), in(posthorn.Pending), 0, 0},
		{in(posthorn.Pending), in(posthorn.Canceled), 0, 1},
		{in(posthorn.Canceled), posthorn.Progress{Extra: true, Before: posthorn.Canceled}, 0, 1},
		{posthorn.Progress{Extra: true, Before: posthorn.Canceled}, in(posthorn.Canceled), 0, 1},
		{in(posthorn.Canceled), in(posthorn.Succeeded), 1, 0},
		{posthorn.Progress{Extra: true, Before: posthorn.Succeeded}, in(posthorn.Succeeded), 1, 0},
	} {
		c.Count(1, step.from, step.to)
		c.Count(0, step.from, step.to)
		if n := c[1]; n == nil && step.succeeded+step.failed > 0 || n != nil && *n != (store.ReplayCount{Succeeded: step.succeeded, Failed: step.failed}) {
			t.Errorf("from %+v to %+v: %+v", step.from, step.to, c)
		}
	}
	if len(c) != 1 {
		t.Errorf("%+v", c)
	}
}
