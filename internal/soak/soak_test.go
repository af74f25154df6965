package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

var (
	minutes    = flag.Float64("minutes", usualMinutes(), "how long there is load; below 1 is the short form")
	rate       = flag.Float64("rate", 75, "events to publish a second")
	seed       = flag.Uint64("seed", uint64(time.Now().UnixNano()), "for what is done and when")
	samplesTo  = flag.String("samples", "", "file that all samples are written to, as TSV; the heap and the goroutines of the end go beside it")
	onPostgres = flag.Bool("postgres", false, "on a PostgreSQL of the test's own instead of a file")
)

// usualMinutes is some seconds, and three minutes in the long form of "make torture",
// which is not for waiting; "make soak" gives an hour.
func usualMinutes() float64 {
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		return 3
	}
	return 0.1
}

// judged is how long a run must be for its figures to be called flat or not: a third of
// it is warm-up, and collections of garbage are two minutes apart.
const judged = 20 * time.Minute

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(proof.WithBinary(&binary, m.Run))
}

// TestSoak does everything at once for as long as it is told, and then holds figures,
// log and receivers against each other.
func TestSoak(t *testing.T) {
	span := time.Duration(*minutes * float64(time.Minute))
	t.Logf("-minutes %g -seed %d", *minutes, *seed)
	limit := span + span/4 + 5*time.Minute // reading the lists at the end takes a while
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the run took longer than %s", limit))
	defer cancel()

	w := newWorld(ctx, t, span)
	watching := w.watch()
	load := w.startLoad(ctx)
	stop := w.begin(ctx, append(w.hands(), w.mallory()...))
	w.pass(span)
	stop()
	if err := load.Finish(); err != nil {
		t.Fatalf("%v\n%s", err, w.server.LogTail())
	}
	samples := watching()
	w.profile()
	ended := time.Now()
	w.settle()
	settled := time.Now()
	deliveries := w.audit()
	t.Logf("all was in a final state after %s, and reading the lists took %s", settled.Sub(ended).Round(time.Second), time.Since(settled).Round(time.Second))
	w.figures()
	w.report()
	w.judge(samples, span)
	tally.Count(t, "after everything at once, figures, log and receivers agree on every delivery", deliveries)
}
