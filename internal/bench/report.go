package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is what came of a load. Times are milliseconds. Latencies leave the
// first second out: it opens the connections.
type Report struct {
	Config  Config  `json:"config"`
	Seconds float64 `json:"seconds"` // Config.Duration
	// Accepted counts events answered 202; Refused the other answers by status,
	// 0 for none.
	Accepted int         `json:"accepted"`
	Refused  map[int]int `json:"refused,omitempty"`
	// Delivered counts deliveries to endpoints that answer, each once.
	Delivered  int `json:"delivered"`
	Duplicates int `json:"duplicates"`
	Lost       int `json:"lost"`
	// The rates are of the time until the last answer and the last receipt.
	AcceptedPerSecond  float64 `json:"accepted_per_second"`
	DeliveredPerSecond float64 `json:"delivered_per_second"`
	// Publish is until the 202, Receipt until the receiver has the request, both
	// from when the event was due in an open loop, from when it was sent in a
	// closed one. Endpoints that hang or fail are not in Receipt.
	Publish Latency `json:"publish"`
	Receipt Latency `json:"receipt"`
	// CPU is the processor time per delivery, of the server and of this process:
	// generator and receiver.
	ServerCPU  float64 `json:"server_cpu_ms_per_delivery"`
	HarnessCPU float64 `json:"harness_cpu_ms_per_delivery"`
	// Others is how many processors other processes kept busy meanwhile: where it
	// is not near 0, rates and latencies are not Posthorn's alone.
	Others float64 `json:"others_cpus"`
	// WrittenKiB is what the server had written to disk, per delivery.
	WrittenKiB float64 `json:"written_kib_per_delivery"`
	// PeakRSS and PeakAnon are the server's largest resident and anonymous
	// memory in MiB.
	PeakRSS  float64 `json:"peak_rss_mib"`
	PeakAnon float64 `json:"peak_anon_mib"`

	// Database is what the load cost PostgreSQL; nil for the embedded store.
	Database *hotPath `json:"database,omitempty"`

	Relay *Yardstick `json:"relay,omitempty"`
	Raw   *Yardstick `json:"raw,omitempty"`

	arrivals []int // by arrivalStep
}

// Yardstick is what the same machine does in the same run without the service.
type Yardstick struct {
	PerSecond float64 `json:"per_second"`
	// Ratio is the share of it that the service delivers.
	Ratio   float64 `json:"ratio"`
	Receipt Latency `json:"receipt"`
	// CPU is the relay's processor time per event in ms; 0 for raw, which is no
	// process of its own.
	CPU float64 `json:"cpu_ms_per_event,omitempty"`
}

func (y Yardstick) against(r Report) *Yardstick {
	y.Ratio = r.DeliveredPerSecond / max(y.PerSecond, 1)
	return &y
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
	line("endpoints", "%d of %d tenants, each event to %d; %d never answer and %d fail", c.Endpoints, c.Tenants, c.FanOut, c.Hang, c.Fail)
	if c.Server == "" {
		line("served with", "%s", shownHostLimits(c.HostLimits))
	}
	if c.Backlog > 0 {
		line("pending beforehand", "%d", c.Backlog)
	}
	line("accepted", "%d, %.0f/s", r.Accepted, r.AcceptedPerSecond)
	if len(r.Refused) > 0 {
		line("refused", "by status, 0 for a lost connection: %v", r.Refused)
	}
	line("delivered", "%d, %.0f/s", r.Delivered, r.DeliveredPerSecond)
	line("lost, duplicates", "%d, %d", r.Lost, r.Duplicates)
	line("publish", "%s", r.Publish)
	line("publish to receipt", "%s", r.Receipt)
	line("CPU per delivery", "server %.3f ms, load and receiver %.3f ms; other processes kept %.2f CPUs busy", r.ServerCPU, r.HarnessCPU, r.Others)
	line("written per delivery", "%.1f KiB", r.WrittenKiB)
	line("server memory, most", "%.0f MiB resident, %.0f MiB anonymous", r.PeakRSS, r.PeakAnon)
	if d := r.Database; d != nil {
		line("PostgreSQL's log per delivery", "%.0f bytes, of the whole server", d.WAL)
		if d.Publishes > 0 {
			line("groups", "%d of publishes, of %.1f events and one statement; %d of results, of %.1f and %.2f statements", d.Publishes,
				float64(r.Accepted)/float64(d.Publishes), d.Results, float64(r.Delivered)/float64(max(d.Results, 1)), d.PerResult)
		}
	}
	if y := r.Relay; y != nil {
		line("relay", "%.0f/s, of which Posthorn reaches %.2f; CPU %.3f ms", y.PerSecond, y.Ratio, y.CPU)
		line("relay, receipt", "%s", y.Receipt)
	}
	if y := r.Raw; y != nil {
		line("raw", "%.0f/s, of which Posthorn reaches %.2f", y.PerSecond, y.Ratio)
	}
	w.Flush()
}
