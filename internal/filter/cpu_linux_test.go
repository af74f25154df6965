package filter

import (
	"runtime"
	"syscall"
	"time"
)

// counted says that cpu tells work from waiting, in a bubble too.
const counted = true

// cpu is how long fn works, whatever else the machine does meanwhile.
func cpu(fn func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := used()
	fn()
	return used() - before
}

func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
