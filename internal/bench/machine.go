package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine is what the figures depend on.
type Machine struct {
	CPUs int    `json:"cpus"`
	CPU  string `json:"cpu,omitempty"`
	OS   string `json:"os"`
	Go   string `json:"go"`
	// Fsync is the median of writing 4 KiB and fsync where the stores are, in ms.
	Fsync float64 `json:"fsync_ms"`
	// Load is the load average before the first run; latencies of a machine that
	// is busy with other things are not Posthorn's. 0 where there is no /proc.
	Load float64   `json:"load_average"`
	At   time.Time `json:"at"`
}

func (m Machine) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %d CPUs %s, %s, %s, fsync %.2f ms, load average %.1f before",
		m.At.Format("2006-01-02 15:04"), m.CPUs, m.CPU, m.OS, m.Go, m.Fsync, m.Load))
}

// ThisMachine looks at the machine, and at the disk that dir is on.
func ThisMachine(dir string) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), At: time.Now().UTC()}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &m.Load) // stays 0
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "model name")
		name, _, _ := strings.Cut(after, "\n")
		m.CPU = strings.Trim(name, "\t: ")
	}
	var err error
	m.Fsync, err = fsync(dir)
	return m, err
}

// fsync is the median time of writing 4 KiB to the end of a file and syncing it.
func fsync(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "posthorn-bench-fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range 51 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return milliseconds(took[len(took)/2]), nil
}
