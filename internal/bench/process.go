package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// cpuTime is the processor time that a process has used, -1 where the system
// has no /proc. Linux counts it there in hundredths of a second.
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return -1
	}
	// The name, in parentheses, may hold spaces; utime and stime are the 12th
	// and 13th field behind it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return -1
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return -1
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// machineTime is the processor time that all processes have used, -1 where the
// system has no /proc.
func machineTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return -1
	}
	var user, nice, system int64
	if _, err := fmt.Sscanf(string(b), "cpu %d %d %d", &user, &nice, &system); err != nil {
		return -1
	}
	return time.Duration(user+nice+system) * 10 * time.Millisecond
}

// usage is processor time: of the server, of this process and of all.
type usage struct{ server, harness, machine time.Duration }

func usageOf(server int) usage {
	return usage{cpuTime(server), cpuTime(os.Getpid()), machineTime()}
}

// memory is a process's resident and anonymous memory in MiB; 0 where the system
// has no /proc.
func memory(pid int) (rss, anon float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch {
		case err != nil:
		case name == "VmRSS":
			rss = kib / 1024
		case name == "RssAnon":
			anon = kib / 1024
		}
	}
	return rss, anon
}

// watchMemory samples until the returned function is called, which returns the
// largest values seen.
func watchMemory(pid int) (peak func() (rss, anon float64)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var maxRSS, maxAnon float64
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			rss, anon := memory(pid)
			maxRSS, maxAnon = max(maxRSS, rss), max(maxAnon, anon)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() (float64, float64) {
		close(stop)
		<-done
		return maxRSS, maxAnon
	}
}

// written is how many bytes a process has had written to disk; 0 where the
// system has no /proc.
func written(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64) // 0 if the format changes
			return n
		}
	}
	return 0
}
