package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// Suite is all figures that Posthorn is held to, with the machine they are of.
type Suite struct {
	Machine    Machine `json:"machine"`
	Latency    Report  `json:"latency"`
	Throughput Report  `json:"throughput"`
	Control    Report  `json:"isolation_control"`
	Isolation  Report  `json:"isolation"`
	Memory     Memory  `json:"memory"`
	Bars       []Bar   `json:"bars"`
}

// Bar is a figure that must be reached.
type Bar struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Bound   float64 `json:"bound"`
	AtLeast bool    `json:"at_least"` // else at most
	Unit    string  `json:"unit"`
}

// Met reports whether the figure is reached.
func (b Bar) Met() bool {
	if b.AtLeast {
		return b.Value >= b.Bound
	}
	return b.Value <= b.Bound
}

// Met reports whether all are, and nothing was lost.
func (s Suite) Met() bool {
	return !slices.ContainsFunc(s.Bars, func(b Bar) bool { return !b.Met() })
}

// RunSuite measures everything; base gives binary, folder and further flags of
// the server, and its Duration is that of the isolation loads. progress is told
// what begins.
func RunSuite(ctx context.Context, base Config, progress func(string)) (Suite, error) {
	var s Suite
	var err error
	if s.Machine, err = thisMachine(base.Dir); err != nil {
		return s, err
	}
	progress("memory: idle, then 100,000 held deliveries")
	if s.Memory, err = MeasureMemory(ctx, base); err != nil {
		return s, err
	}
	load := func(what string, into *Report, set func(*Config)) {
		if err != nil {
			return
		}
		c := Default()
		c.Binary, c.Dir, c.ServeArgs, c.Raw = base.Binary, base.Dir, base.ServeArgs, false
		set(&c)
		progress(fmt.Sprintf("%s, for %s", what, c.Duration))
		*into, err = Run(ctx, c)
	}
	load("latency: 100 events/s to one endpoint", &s.Latency, func(c *Config) { c.Rate, c.Duration = 100, 20*time.Second })
	load("throughput: 64 connections, as fast as answers come", &s.Throughput, func(c *Config) { c.Raw = true })
	load("isolation, control: 1,000 events/s to ten endpoints", &s.Control, func(c *Config) {
		c.Rate, c.Endpoints, c.Duration = 1000, 10, base.Duration
	})
	load("isolation: the same, five of the ten never answer", &s.Isolation, func(c *Config) {
		c.Rate, c.Endpoints, c.Hang, c.Duration = 1000, 10, 5, base.Duration
	})
	s.Bars = s.bars()
	return s, err
}

func (s Suite) bars() []Bar {
	lost := s.Latency.Lost + s.Throughput.Lost + s.Control.Lost + s.Isolation.Lost
	return []Bar{
		{Name: "publish to receipt, p99 at 100 events/s", Value: s.Latency.Receipt.P99, Bound: 13, Unit: "ms"},
		{Name: "published singly and delivered", Value: s.Throughput.DeliveredPerSecond, Bound: 3000, AtLeast: true, Unit: "events/s"},
		{Name: "p99 with five of ten endpoints hanging, to p99 without", Value: s.Isolation.Receipt.P99 / max(s.Control.Receipt.P99, 0.001), Bound: 1.5, Unit: "times"},
		{Name: "anonymous memory, idle", Value: s.Memory.Idle, Bound: 40, Unit: "MiB"},
		{Name: "anonymous memory that 100,000 held deliveries add", Value: s.Memory.Added, Bound: 50, Unit: "MiB"},
		{Name: "lost", Value: float64(lost), Unit: "events"},
	}
}

// Memory is the server's anonymous memory in MiB.
type Memory struct {
	Idle float64 `json:"idle_anon_mib"`
	// Held deliveries were published to a paused endpoint.
	Held int `json:"held"`
	// Peak was the most while they were published, Added what is more than Idle
	// some seconds later.
	Peak  float64 `json:"peak_anon_mib"`
	Added float64 `json:"added_anon_mib"`
}

const (
	heldDeliveries = 100_000
	calm           = 10 * time.Second // before memory is read
)

// MeasureMemory measures an idle server, and one with many held deliveries.
func MeasureMemory(ctx context.Context, base Config) (Memory, error) {
	c := Default()
	c.Binary, c.Dir, c.ServeArgs, c.Batch, c.Conns = base.Binary, base.Dir, base.ServeArgs, 500, 4
	s, err := newSubject(ctx, c)
	if err != nil {
		return Memory{}, err
	}
	defer s.Close()
	m := Memory{Held: heldDeliveries}
	// Never dialled: the endpoint stays paused.
	if _, err := s.api.CreateEndpoint(ctx, "https://partner.example.com/hooks", "paused", eventType(0)); err != nil {
		return m, err
	}
	if m.Idle, err = settledMemory(ctx, s.server.PID()); err != nil {
		return m, err
	}
	c.Duration = 10 * time.Minute // at most: the load ends when the cells are used up
	l := newLedger(heldDeliveries)
	g := generator{config: c, ledger: l, request: publishing(c, s.api)}
	peak := watchMemory(s.server.PID())
	err = g.run(ctx)
	_, m.Peak = peak()
	if err != nil {
		return m, err
	}
	if accepted := l.report(c, func(int) bool { return false }).Accepted; accepted != heldDeliveries {
		return m, fmt.Errorf("only %d of %d events were accepted, refused by status: %v", accepted, heldDeliveries, l.refused)
	}
	after, err := settledMemory(ctx, s.server.PID())
	m.Added = after - m.Idle
	return m, err
}

func settledMemory(ctx context.Context, pid int) (anon float64, err error) {
	select {
	case <-time.After(calm):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	_, anon = memory(pid)
	return anon, nil
}

// Machine is what the figures depend on.
type Machine struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Go   string `json:"go"`
	// Fsync is the median of writing 4 KiB and fsync where the stores are, in ms.
	Fsync float64 `json:"fsync_ms"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%d CPUs, %s, %s, fsync %.2f ms", m.CPUs, m.OS, m.Go, m.Fsync)
}

func thisMachine(dir string) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	f, err := os.CreateTemp(dir, "posthorn-bench-fsync-")
	if err != nil {
		return m, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range 51 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return m, err
		}
		if err := f.Sync(); err != nil {
			return m, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	m.Fsync = milliseconds(took[len(took)/2])
	return m, nil
}

// Print writes the report for people.
func (r Report) Print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	c := r.Config
	how := fmt.Sprintf("as fast as answers come on %d connections", c.Conns)
	if c.Rate > 0 {
		how = fmt.Sprintf("%g events/s on %d connections", c.Rate, c.Conns)
	}
	line("load", "%s, %d a request, %d bytes, %s", how, c.Batch, c.BodySize, c.Duration)
	line("endpoints", "%d, of which %d never answer and %d fail", c.Endpoints, c.Hang, c.Fail)
	line("accepted", "%d, %.0f/s", r.Accepted, r.AcceptedPerSecond)
	if len(r.Refused) > 0 {
		line("refused", "by status, 0 for a lost connection: %v", r.Refused)
	}
	line("delivered", "%.0f/s", r.DeliveredPerSecond)
	if r.RawPerSecond > 0 {
		line("raw ceiling", "%.0f/s without Posthorn; Posthorn reaches %.0f %%", r.RawPerSecond, 100*r.Ratio)
	}
	line("publish", "%s", r.Publish)
	line("publish to receipt", "%s", r.Receipt)
	line("lost, duplicates", "%d, %d", r.Lost, r.Duplicates)
	line("CPU per event", "server %.3f ms, load and receiver %.3f ms; other processes kept %.2f CPUs busy", r.ServerCPU, r.HarnessCPU, r.Others)
	line("server memory, most", "%.0f MiB resident, %.0f MiB anonymous", r.PeakRSS, r.PeakAnon)
	w.Flush()
}

// Print writes the suite for people.
func (s Suite) Print(out io.Writer) {
	fmt.Fprintln(out, s.Machine)
	for _, part := range []struct {
		name   string
		report Report
	}{{"Latency", s.Latency}, {"Throughput", s.Throughput}, {"Isolation, control", s.Control}, {"Isolation", s.Isolation}} {
		fmt.Fprintf(out, "\n%s\n", part.name)
		part.report.Print(out)
	}
	fmt.Fprintf(out, "\nMemory\nidle %.1f MiB anonymous; %d held deliveries add %.1f MiB (%.1f MiB at most while they were published)\n\n", s.Memory.Idle, s.Memory.Held, s.Memory.Added, s.Memory.Peak)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, b := range s.Bars {
		verdict, sign := "met", "<="
		if b.AtLeast {
			sign = ">="
		}
		if !b.Met() {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%.4g %s\t%s %g\t%s\n", b.Name, b.Value, b.Unit, sign, b.Bound, verdict)
	}
	w.Flush()
}
