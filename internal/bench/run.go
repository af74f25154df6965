// Package bench measures one node from outside: it starts "posthorn serve" on a
// new store as a process of its own, publishes from this process and receives
// here too, so that publish-to-receipt times are taken with one clock. Everything
// shares the machine, and the store's fsync is on. Two yardsticks are measured in
// the same run, without which a figure says little: raw, a bare loop of signed
// requests, and relay, the same two HTTP hops and a signature with nothing
// behind them.
package bench

import (
	"context"
	"fmt"
	"time"
)

// Run measures one load and its yardsticks.
func Run(ctx context.Context, c Config) (Report, error) {
	if err := c.Validate(); err != nil {
		return Report{}, err
	}
	report, err := runNode(ctx, c)
	if err != nil {
		return report, err
	}
	if c.Relay {
		y, err := relay(ctx, c)
		if err != nil {
			return report, err
		}
		report.Relay = y.against(report)
	}
	if c.Raw {
		y, err := raw(ctx, c)
		if err != nil {
			return report, err
		}
		report.Raw = y.against(report)
	}
	return report, nil
}

func runNode(ctx context.Context, c Config) (Report, error) {
	n, err := newNode(ctx, c)
	if err != nil {
		return Report{}, err
	}
	defer n.Close()
	return n.measure(ctx, c)
}

// measure runs the load on the node. c may differ from the node's own
// configuration in what does not concern endpoints.
func (n *node) measure(ctx context.Context, c Config) (Report, error) {
	l := newLedger(c, c.events())
	n.receiver.ledger.Store(l)
	cost := func(int) (*hotPath, error) { return nil, nil }
	if n.database != nil {
		var err error
		if cost, err = n.database.watch(ctx); err != nil {
			return Report{}, err
		}
	}
	before, began, writtenBefore := n.usage(), time.Now(), written(n.pid())
	memory := watchMemory(n.pid())
	done := watch(c, n.describe(c), l)
	g := generator{config: c, ledger: l, request: n.publishing(c)}
	err := g.run(ctx)
	if err == nil {
		err = l.settle(ctx)
	}
	done()
	report := l.report()
	report.PeakRSS, report.PeakAnon = memory()
	if err != nil {
		return report, fmt.Errorf("publishing: %w%s", err, n.logTail())
	}
	if report.Database, err = cost(report.Delivered); err != nil {
		return report, err
	}
	delivered := float64(max(report.Delivered, 1))
	if after := n.usage(); before.server >= 0 {
		server, harness := after.server-before.server, after.harness-before.harness
		report.ServerCPU, report.HarnessCPU = milliseconds(server)/delivered, milliseconds(harness)/delivered
		report.Others = max(0, float64(after.machine-before.machine-server-harness)/float64(time.Since(began)))
	}
	report.WrittenKiB = float64(written(n.pid())-writtenBefore) / 1024 / delivered
	return report, nil
}

// watch tells how a load goes until the returned function is called.
func watch(c Config, what string, l *ledger) (stop func()) {
	if c.Watch == nil {
		return func() {}
	}
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		const every = 500 * time.Millisecond
		tick := time.NewTicker(every)
		defer tick.Stop()
		for seen := int64(0); ; {
			share := min(float64(l.now())/float64(c.Duration), 1)
			now := l.arrived.Load()
			c.Watch(Progress{What: what, Share: share, PerSecond: float64(now-seen) / every.Seconds()})
			seen = now
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	}()
	return func() {
		close(ended)
		<-gone
	}
}

// tell names a step that has no measure.
func (c Config) tell(format string, args ...any) {
	if c.Watch != nil {
		c.Watch(Progress{What: fmt.Sprintf(format, args...), Share: -1})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
