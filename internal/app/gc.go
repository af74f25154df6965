package app

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
)

// A busy node keeps little and allocates much: with Go's default, a heap that
// doubles, it collected garbage some thirty times a second, for 8 % of its
// processor time. So a small heap may grow further before the next collection,
// up to gcHeadroom; a large one doubles as ever.
const (
	gcHeadroom   = 128 << 20
	gcMaxPercent = 400
)

// tuneGC sets the heap's growth anew after each collection, unless the operator
// has decided with GOGC.
func tuneGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	retuneGC(new(collected))
}

// collected is unreachable at once: its finalizer runs after each collection.
type collected struct{ _ [16]byte }

func retuneGC(c *collected) {
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	runtimemetrics.Read(live)
	debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
	runtime.SetFinalizer(c, retuneGC)
}

// gcPercent is how much a heap with so many live bytes may grow.
func gcPercent(live uint64) int {
	return int(min(max(100*gcHeadroom/max(live, 1), 100), gcMaxPercent))
}

// tuneProcessors gives a node on the embedded store one processor of the runtime
// more than the machine has: SQLite's system calls do not tell the runtime that they
// wait, so that the processor whose turn it is does nothing during an fsync. It
// leaves alone what the operator has decided with GOMAXPROCS.
func tuneProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}
