package bench

import (
	"syscall"
	"time"
)

// pause sleeps to within some 50 microseconds; it holds a thread meanwhile.
func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // cut short by a signal: the caller looks again
}
