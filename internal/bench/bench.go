// Package bench measures one node from outside: it starts "posthorn serve" on a
// new store as a child process, publishes from this process and receives here
// too, so that publish-to-receipt times are taken with one clock. Everything
// shares the machine, the store's fsync is on, and the same run drives the same
// generator straight at the same receiver: the raw ceiling, without which a
// figure says little.
package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// Config is one load.
type Config struct {
	// Binary is the posthorn to measure.
	Binary string `json:"-"`
	// Dir is where temporary stores go; empty for the system's. On a RAM disk
	// fsync costs nothing and the figures mean less.
	Dir string `json:"-"`
	// ServeArgs are further flags of "posthorn serve".
	ServeArgs []string `json:"serve_args,omitempty"`

	// Rate is the events a second of an open loop, published on time whether or
	// not earlier ones were answered; 0 for a closed loop: as fast as answers come.
	Rate float64 `json:"rate"`
	// Conns is the number of connections that publish.
	Conns int `json:"conns"`
	// Batch is the number of events in a request; 1 for single publishes.
	Batch int `json:"batch"`
	// BodySize is the size of "data" in bytes.
	BodySize int `json:"body_size"`
	// Endpoints take the events in turn. The last Hang of them accept and never
	// answer, the Fail before those answer 500.
	Endpoints int           `json:"endpoints"`
	Hang      int           `json:"hang"`
	Fail      int           `json:"fail"`
	Duration  time.Duration `json:"-"`
	// Raw measures the ceiling too, for half as long.
	Raw bool `json:"raw"`
}

// Default is a closed loop of 64 connections on one endpoint.
func Default() Config {
	return Config{Conns: 64, Batch: 1, BodySize: 1024, Endpoints: 1, Duration: 10 * time.Second, Raw: true}
}

// Validate names what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Endpoints < 1 || c.Endpoints > maxEndpoints:
		return fmt.Errorf("endpoints must be 1 to %d", maxEndpoints)
	case c.Hang < 0 || c.Fail < 0 || c.Hang+c.Fail >= c.Endpoints:
		return fmt.Errorf("of %d endpoints, %d are to hang and %d to fail: leave at least one that answers", c.Endpoints, c.Hang, c.Fail)
	case c.Conns < 1 || c.Conns > 4096:
		return fmt.Errorf("conns must be 1 to 4096")
	case c.Batch < 1 || c.Batch > 1000:
		return fmt.Errorf("batch must be 1 to 1000")
	case c.BodySize < minBodySize || c.BodySize > 250<<10:
		return fmt.Errorf("body-size must be %d to %d", minBodySize, 250<<10)
	case c.Batch*(c.BodySize+64) > 8<<20:
		return fmt.Errorf("a batch of %d events of %d bytes is over 8 MiB; lower batch or body-size", c.Batch, c.BodySize)
	case c.Duration < time.Second || c.Duration > time.Hour:
		return fmt.Errorf("duration must be 1s to 1h")
	case c.Rate < 0 || c.Rate > 1e6:
		return fmt.Errorf("rate must be 0 to 1000000")
	}
	return nil
}

// Report is what came of a load. Times are milliseconds. Latencies leave the
// first second out: it opens the connections.
type Report struct {
	Config  Config  `json:"config"`
	Seconds float64 `json:"seconds"` // Config.Duration
	// Accepted counts events answered 202; Refused the other answers by status,
	// 0 for none.
	Accepted int         `json:"accepted"`
	Refused  map[int]int `json:"refused,omitempty"`
	// The rates are of the time until the last answer and the last receipt.
	AcceptedPerSecond  float64 `json:"accepted_per_second"`
	DeliveredPerSecond float64 `json:"delivered_per_second"`
	// RawPerSecond is what generator and receiver reach without Posthorn between
	// them, Ratio the share of it that Posthorn delivers.
	RawPerSecond float64 `json:"raw_per_second,omitempty"`
	Ratio        float64 `json:"ratio,omitempty"`
	// Publish is until the 202, Receipt until the receiver has the request, both
	// from when the event was due in an open loop, from when it was sent in a
	// closed one. Endpoints that hang or fail are not in Receipt, Lost and
	// Duplicates.
	Publish    Latency `json:"publish"`
	Receipt    Latency `json:"receipt"`
	Lost       int     `json:"lost"`
	Duplicates int     `json:"duplicates"`
	// CPU is the processor time per accepted event, of the server and of this
	// process: generator and receiver.
	ServerCPU  float64 `json:"server_cpu_ms_per_event"`
	HarnessCPU float64 `json:"harness_cpu_ms_per_event"`
	// Others is how many processors other processes kept busy meanwhile: where it
	// is not near 0, the latencies are not Posthorn's alone.
	Others float64 `json:"others_cpus"`
	// PeakRSS and PeakAnon are the server's largest resident and anonymous
	// memory in MiB.
	PeakRSS  float64 `json:"peak_rss_mib"`
	PeakAnon float64 `json:"peak_anon_mib"`
}

// Run measures one load on a server of its own.
func Run(ctx context.Context, c Config) (Report, error) {
	if err := c.Validate(); err != nil {
		return Report{}, err
	}
	r, err := newReceiver(c.Endpoints, c.Endpoints-c.Hang-c.Fail, c.Hang)
	if err != nil {
		return Report{}, err
	}
	defer r.Close()
	s, err := newSubject(ctx, c)
	if err != nil {
		return Report{}, err
	}
	defer s.Close()
	for i := range c.Endpoints {
		if _, err := s.api.CreateEndpoint(ctx, r.url(i), "active", eventType(i)); err != nil {
			return Report{}, err
		}
	}

	l := newLedger(c.cells())
	r.ledger.Store(l)
	before, began := usageOf(s.server.PID()), time.Now()
	memory := watchMemory(s.server.PID())
	g := generator{config: c, ledger: l, request: publishing(c, s.api)}
	if err := g.run(ctx); err != nil {
		return Report{}, fmt.Errorf("publishing: %w\n%s", err, s.server.LogTail())
	}
	err = l.settle(ctx, r.healthy)
	report := l.report(c, r.healthy)
	report.PeakRSS, report.PeakAnon = memory()
	if n, after := float64(max(report.Accepted, 1)), usageOf(s.server.PID()); before.server >= 0 {
		server, harness := after.server-before.server, after.harness-before.harness
		report.ServerCPU, report.HarnessCPU = milliseconds(server)/n, milliseconds(harness)/n
		report.Others = max(0, float64(after.machine-before.machine-server-harness)/float64(time.Since(began)))
	}
	if err != nil || !c.Raw {
		return report, err
	}
	s.Close()
	report.RawPerSecond, err = ceiling(ctx, c, r)
	report.Ratio = report.DeliveredPerSecond / report.RawPerSecond
	return report, err
}

// ceiling is a closed loop of signed requests from the generator straight to the
// receiver.
func ceiling(ctx context.Context, c Config, r *receiver) (float64, error) {
	c.Rate, c.Batch, c.Duration, c.Endpoints, c.Hang, c.Fail = 0, 1, max(c.Duration/2, time.Second), 1, 0, 0
	l := newLedger(c.cells())
	r.ledger.Store(l)
	g := generator{config: c, ledger: l, request: delivering(c, r.address())}
	if err := g.run(ctx); err != nil {
		return 0, fmt.Errorf("raw ceiling: %w", err)
	}
	return l.report(c, r.healthy).AcceptedPerSecond, nil
}

// subject is the server under test.
type subject struct {
	server *proof.Server
	api    proof.API
	dir    string
}

func newSubject(ctx context.Context, c Config) (*subject, error) {
	dir, err := os.MkdirTemp(c.Dir, "posthorn-bench-")
	if err != nil {
		return nil, err
	}
	s := &subject{dir: dir}
	if s.server, err = proof.Start(ctx, proof.Options{Binary: c.Binary, Dir: dir, Args: c.ServeArgs}); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s.api.URL = s.server.URL()
	if s.api.Token, err = s.server.Token(ctx, "bench", "webhooks:read", "webhooks:write", "events:publish"); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the server and removes its store.
func (s *subject) Close() {
	s.server.Kill()
	os.RemoveAll(s.dir)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
