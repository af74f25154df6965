package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// rule is what a figure must keep to. Figures move with what happens to be under way, and
// with collections of garbage: so medians of thirds of the run are compared, and the first
// third, in which caches and pools fill, is not judged.
type rule struct {
	figure string
	// of is the figure of a sample, its column unless it is given.
	of func(sample) float64
	// slack is what the median of the last third may be above 1.15 times that of the
	// middle one: what is small moves by more than its 15 %. most bounds every sample,
	// 0 for no bound.
	slack, most float64
	unit        string
}

const (
	growth = 1.15
	mib    = 1 << 20
)

var rules = []rule{
	{figure: "rss", slack: 8 * mib, unit: "MiB"},
	{figure: "anonymous", slack: 8 * mib, unit: "MiB"},
	// The heap between two collections is a saw: by chance a third ends in a tooth.
	{figure: "heap", slack: 8 * mib, unit: "MiB"},
	// Where the next collection is due goes with what is live, without the saw.
	{figure: "heap goal", slack: 4 * mib, unit: "MiB"},
	// A hostile client holds sixty connections for half a minute, or does not.
	{figure: "files", slack: 16},
	{figure: "goroutines", slack: 32},
	{figure: "threads", slack: 4},
	// A backup keeps the log from being emptied while it copies.
	{figure: "log", slack: 8 * mib, most: 256 * mib, unit: "MiB"},
	{figure: "temporary", slack: mib, most: 64 * mib, unit: "MiB"},
	// Retention takes nothing in a service's first hour: until then the store grows by the
	// event, and no faster.
	{figure: "store by event", of: func(s sample) float64 { return s["store"] / max(s["events"], 1) }, slack: 128, unit: "B"},
	{figure: "in memory", slack: 512},
	{figure: "lanes", slack: 8},
	{figure: "connections", slack: 32},
}

// finding is a rule and what became of it.
type finding struct {
	rule
	thirds  [3]float64 // medians
	highest float64
	allowed float64
}

func (f *finding) grows() bool { return f.thirds[2] > f.allowed }
func (f *finding) above() bool { return f.most > 0 && f.highest > f.most }

// find holds samples to a rule.
func find(r rule, samples []sample) finding {
	f := finding{rule: r}
	values := make([]float64, len(samples))
	for i, s := range samples {
		if values[i] = s[r.figure]; r.of != nil {
			values[i] = r.of(s)
		}
	}
	for i := range f.thirds {
		f.thirds[i] = median(values[i*len(values)/3 : (i+1)*len(values)/3])
	}
	f.highest = slices.Max(values)
	f.allowed = growth*f.thirds[1] + r.slack
	return f
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

// judge prints the table and, if the run was long enough, fails for what is not flat.
func (w *world) judge(samples []sample, span time.Duration) {
	w.t.Helper()
	if *samplesTo != "" {
		to, err := os.Create(*samplesTo)
		w.must(err)
		w.must(writeSamples(to, samples))
		w.must(to.Close())
	}
	if len(samples) == 0 {
		w.t.Fatal("no sample was taken")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-15s %12s %12s %12s %12s %12s  %s\n", "median of the", "first third", "middle", "last", "highest", "allowed", "verdict")
	var bad []string
	for _, r := range rules {
		f := find(r, samples)
		verdict := "flat"
		switch {
		case span < judged:
			verdict = "too short to be judged"
		case f.above():
			verdict = "TOO HIGH"
		case f.grows():
			verdict = "GROWS"
		}
		if strings.ToUpper(verdict) == verdict {
			bad = append(bad, fmt.Sprintf("%s: %s", r.figure, verdict))
		}
		fmt.Fprintf(&b, "%-15s %12s %12s %12s %12s %12s  %s\n", r.figure, r.show(f.thirds[0]), r.show(f.thirds[1]), r.show(f.thirds[2]), r.show(f.highest), r.show(f.allowed), verdict)
	}
	w.t.Logf("%d samples\n%s", len(samples), b.String())
	if len(bad) > 0 {
		w.t.Errorf("not flat: %s (every sample: -samples FILE)", strings.Join(bad, "; "))
	}
}

func (r *rule) show(v float64) string {
	if r.unit == "MiB" {
		return fmt.Sprintf("%.1f MiB", v/mib)
	}
	return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, r.unit))
}

// A judge that sees no leak proves nothing, and one that takes noise for a leak is
// switched off.
func TestALeakIsToldFromNoise(t *testing.T) {
	random := rand.New(rand.NewPCG(*seed, 0))
	t.Logf("-seed %d", *seed)
	run := func(minutes int, figure string, at func(minute float64) float64) finding {
		var samples []sample
		for i := range minutes * 12 {
			samples = append(samples, sample{figure: at(float64(i) / 12)})
		}
		i := slices.IndexFunc(rules, func(r rule) bool { return r.figure == figure })
		return find(rules[i], samples)
	}
	noise := func(share float64) float64 { return 1 + share*(2*random.Float64()-1) }
	for name, c := range map[string]struct {
		minutes int
		figure  string
		at      func(minute float64) float64
		want    bool
	}{
		"4 MiB a minute on 60":             {20, "rss", func(m float64) float64 { return (60 + 4*m) * noise(.1) * mib }, true},
		"1.5 MiB a minute on 60":           {60, "rss", func(m float64) float64 { return (60 + 1.5*m) * noise(.1) * mib }, true},
		"noise":                            {20, "rss", func(float64) float64 { return 60 * noise(.3) * mib }, false},
		"a warm-up":                        {20, "rss", func(m float64) float64 { return (20 + 10*min(m, 6)) * noise(.1) * mib }, false},
		"a saw with teeth of two minutes":  {20, "heap", func(m float64) float64 { return (10 + 20*(m/2-float64(int(m/2)))) * mib }, false},
		"eight files a minute":             {20, "files", func(m float64) float64 { return 60 + 8*m }, true},
		"connections that come in dozens":  {20, "files", func(m float64) float64 { return 60 + float64(int(m)%3)*30 }, false},
		"a goroutine for each two seconds": {20, "goroutines", func(m float64) float64 { return 100 + 30*m }, true},
	} {
		if f := run(c.minutes, c.figure, c.at); f.grows() != c.want {
			t.Errorf("%s: grows is %t: %v, allowed %v", name, f.grows(), f.thirds, f.allowed)
		}
	}
	if f := run(20, "log", func(m float64) float64 { return 300 * mib * float64(int(m/19)) }); !f.above() {
		t.Errorf("a log of 300 MiB in the last minute is not seen: %v", f)
	}
}
