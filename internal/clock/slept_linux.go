package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Linux's monotonic clock stands still while the machine sleeps, and says by how
// much (clock_gettime(2), CLOCK_BOOTTIME).
var sleptBefore = asleep()

func slept() time.Duration { return asleep() - sleptBefore }

func asleep() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	d := time.Duration(boot.Nano() - mono.Nano())
	if d < time.Millisecond { // what passed between the two calls
		return 0
	}
	return d.Truncate(time.Millisecond)
}
