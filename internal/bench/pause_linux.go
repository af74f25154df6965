package bench

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// timers are the system's own, which are waited for like connections are. A thread
// in nanosleep keeps its processor from all other goroutines for up to 10 ms:
// when all workers slept, nobody saw a request arrive at the receiver.
var timers struct {
	mu   sync.Mutex
	free []*os.File
}

// pause sleeps to within some 50 microseconds.
func pause(d time.Duration) {
	t, err := takeTimer()
	if err != nil {
		time.Sleep(d)
		return
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	raw, err := t.SyscallConn()
	if err == nil {
		var failed error
		err = errors.Join(raw.Control(func(fd uintptr) { failed = unix.TimerfdSettime(int(fd), 0, &at, nil) }), failed)
	}
	if err == nil {
		var expired [8]byte
		_, err = t.Read(expired[:])
	}
	if err != nil {
		t.Close()
		time.Sleep(d)
		return
	}
	timers.mu.Lock()
	defer timers.mu.Unlock()
	timers.free = append(timers.free, t)
}

func takeTimer() (*os.File, error) {
	timers.mu.Lock()
	defer timers.mu.Unlock()
	if n := len(timers.free); n > 0 {
		t := timers.free[n-1]
		timers.free = timers.free[:n-1]
		return t, nil
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "timer"), nil
}
