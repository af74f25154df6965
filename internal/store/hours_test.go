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
			h.Count(&store.Result{Endpoint: 1, Attempt: posthorn.Attempt{Class: posthorn.ClassTimeout, Duration: d}}, posthorn.Progress{}, posthorn.Pending)
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

// An extra attempt, asked for by hand, counts as an end only if it is another
// one than before.
func TestCountOfEnds(t *testing.T) {
	for _, tc := range []struct {
		name              string
		before            posthorn.Progress
		after             posthorn.State
		succeeded, failed int
	}{
		{"a first success", posthorn.Progress{}, posthorn.Succeeded, 1, 0},
		{"a failure that waits", posthorn.Progress{}, posthorn.Pending, 0, 0},
		{"the last failure", posthorn.Progress{}, posthorn.Failed, 0, 1},
		{"a late failure", posthorn.Progress{State: posthorn.Canceled}, posthorn.Canceled, 0, 0},
		{"a late success", posthorn.Progress{State: posthorn.Canceled}, posthorn.Succeeded, 1, 0},
		{"a failed one by hand, again", posthorn.Progress{Extra: true, Before: posthorn.Failed}, posthorn.Failed, 0, 0},
		{"a failed one by hand, well", posthorn.Progress{Extra: true, Before: posthorn.Failed}, posthorn.Succeeded, 1, 0},
		{"a success by hand, again", posthorn.Progress{Extra: true, Before: posthorn.Succeeded}, posthorn.Succeeded, 0, 0},
		{"a success by hand, badly", posthorn.Progress{Extra: true, Before: posthorn.Succeeded}, posthorn.Succeeded, 0, 0},
	} {
		h := store.Hours{}
		h.Count(&store.Result{Attempt: posthorn.Attempt{Class: posthorn.ClassTimeout}}, tc.before, tc.after)
		if s := h.At(0, time.Time{}); s.Succeeded != tc.succeeded || s.Exhausted != tc.failed || s.Failed != 1 {
			t.Errorf("%s: %+v", tc.name, *s)
		}
	}
}
