package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
)

var (
	worlds    = flag.Int("worlds", defaultWorlds(), "how many random worlds to try")
	worldSeed = flag.Uint64("seed", 0, "the seed of a world to try again; 0 for new ones")
	keepSteps = flag.String("keep", "", "the steps of that world to keep, by number and comma; all without")
	shrinking = flag.Duration("shrink", 30*time.Second, "how long to look for a smaller script that fails; 0 for not at all")
)

func defaultWorlds() int {
	switch {
	case os.Getenv("POSTHORN_TORTURE") == "long":
		return 10_000
	case raceEnabled:
		return 10
	}
	return 100
}

// In random worlds (receivers that fail in every way, publishes, pauses, new
// urls, deletions, suspensions, the sending switch, steps of the clock, errors
// of the store, a full disk, restarts and crashes) the checker finds nothing,
// and once everything is well again every delivery comes to its end.
func TestRandomWorldsKeepWhatWasPromised(t *testing.T) {
	first := *worldSeed
	if first == 0 {
		first = rand.Uint64()
	}
	t.Logf("%d worlds from seed %d on: -worlds %d -seed %d", *worlds, first, *worlds, first)
	var shrunk atomic.Bool
	t.Run("worlds", func(t *testing.T) {
		for i := range *worlds {
			seed := first + uint64(i)
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				t.Parallel()
				s := newScript(seed)
				if *keepSteps != "" {
					s = s.keeping(t, *keepSteps)
				}
				said := s.run(t)
				report(t, said)
				if len(said) > 0 && *shrinking > 0 && shrunk.CompareAndSwap(false, true) {
					s = s.shrink(t, said[0].kind)
				}
				if len(said) > 0 || t.Failed() {
					t.Logf("try it again with -worlds 1 -seed %d%s\n%s", seed, s.flag(), s)
				}
			})
		}
	})
	t.Logf("what occurred in %d worlds:\n%s", *worlds, countTable())
	if *worlds >= 1000 {
		for _, what := range expected() {
			if counts.of[what] == 0 {
				t.Errorf("never in %d worlds: %s", *worlds, what)
			}
		}
	}
	for _, p := range promises {
		tally.Count(t, "random worlds: "+p, *worlds)
	}
}

// promises are what the checker holds every world against.
var promises = []string{
	"what was answered 202 reaches every endpoint that matched, or is final with a reason",
	"one attempt of a delivery at a time, none after success but a crash's one",
	"nothing to another tenant, to an old url, or while paused, suspended or off",
	"webhook-id, body and signature are the same in every attempt",
	"no retry before 0.8 of its wait or before what Retry-After asks",
	"publish order while nothing fails",
	"memory is bounded",
	"an error of the store is never answered 202",
}

func report(t *testing.T, said []complaint) {
	t.Helper()
	for i, c := range said {
		if i == 10 {
			t.Errorf("and %d more", len(said)-i)
			return
		}
		t.Error(c)
	}
}

// keeping is the script with some steps alone.
func (s script) keeping(t *testing.T, list string) script {
	var keep []int
	for n := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		keep = append(keep, i)
	}
	s.Steps = slices.DeleteFunc(s.Steps, func(st step) bool { return !slices.Contains(keep, st.Place) })
	return s
}

// flag is how to run a script that is not whole.
func (s script) flag() string {
	var places []string
	for _, st := range s.Steps {
		places = append(places, strconv.Itoa(st.Place))
	}
	if len(places) == len(newScript(s.Seed).Steps) {
		return ""
	}
	return " -keep " + strings.Join(places, ",")
}

// shrink drops steps for as long as the script goes on failing in the same way.
func (s script) shrink(t *testing.T, kind string) script {
	end := time.Now().Add(*shrinking)
	fails := func(less script) bool {
		failed := false
		ok := t.Run("smaller", func(t *testing.T) {
			failed = slices.ContainsFunc(less.run(t), func(c complaint) bool { return c.kind == kind })
		})
		return failed || !ok
	}
	return reduce(s, func(less script) bool { return time.Now().Before(end) && fails(less) })
}

// reduce drops ever smaller runs of steps while the script fails.
func reduce(s script, fails func(script) bool) script {
	for size := (len(s.Steps) + 1) / 2; size > 0; {
		dropped := false
		for at := 0; at < len(s.Steps); {
			less := s
			less.Steps = slices.Delete(slices.Clone(s.Steps), at, min(at+size, len(s.Steps)))
			if fails(less) {
				s, dropped = less, true
			} else {
				at += size
			}
		}
		if size > 1 {
			size /= 2
		} else if !dropped {
			return s
		}
	}
	return s
}
