package clock

import (
	"sync/atomic"
	"time"
)

// began is any fixed time.
var began = time.Now()

// lastSeen is the wall clock less Go's monotonic clock, and how long the machine had
// slept then: only where the former moves need the system be asked again.
var lastSeen atomic.Pointer[seen]

type seen struct{ offset, slept int64 }

// machine reads the machine's clocks.
func machine() Reading {
	now := time.Now()
	r := Reading{Wall: now.Round(0), Monotonic: now.Sub(began)}
	s := lastSeen.Load()
	if s == nil || abs(r.offset()-s.offset) > int64(time.Millisecond) {
		s = &seen{r.offset(), int64(slept())}
		lastSeen.Store(s)
	}
	r.Monotonic += time.Duration(s.slept)
	return r
}
