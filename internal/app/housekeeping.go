package app

import (
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	sweepEvery  = time.Second // between looks; a look that finds nothing is a few index seeks
	sweepPause  = 20 * time.Millisecond
	flushTokens = 30 * time.Second
	tendEvery   = time.Minute
)

// keepHouse lets old rows go, settles what deletions left, and records the last
// use of tokens.
func (n *node) keepHouse(ctx context.Context) {
	sure := n.clock.Sure()
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	flush := time.NewTicker(flushTokens)
	defer flush.Stop()
	tend := time.NewTicker(tendEvery)
	defer tend.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			if err := n.access.Flush(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("the tokens' last use was not recorded; trying again", "err", err)
			}
		case <-tend.C:
			n.tend(ctx)
		case <-sweep.C:
			sweep.Reset(n.sweep(ctx, sure))
		}
	}
}

// sweep does one slice of the housekeeping and says when the next is due.
func (n *node) sweep(ctx context.Context, sure *clock.Sure) time.Duration {
	if sure.Believed() {
		if err := n.readBack(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("what waits since the clock was ahead could not be read back; it may wait longer", "err", err)
		}
	}
	swept, err := n.store.Sweep(ctx, n.now(), store.Retention{
		Events: n.cfg.Retention, Payloads: n.cfg.RetainPayloads, Deliveries: n.cfg.RetainDeliveries, Attempts: n.cfg.RetainAttempts,
		Audit: n.cfg.AuditRetention, Ran: sure.For(n.databaseClock() != nil),
	})
	switch {
	case errors.Is(err, store.ErrClosed) || ctx.Err() != nil:
		return sweepEvery
	case err != nil:
		n.log.Warn("housekeeping failed; trying again", "err", err)
		return 10 * sweepEvery
	}
	if swept.Refused > 0 {
		n.metrics.dropped.Add(float64(swept.Refused))
		n.log.Warn("refused events of the outbox were dropped: a tenant had more than are kept; posthorn outbox list shows the others", "events", swept.Refused)
	}
	if swept.More {
		return sweepPause
	}
	return sweepEvery
}

// tend says what nobody does that one process does for all: whoever waits for
// another one sees no fault of its own.
func (n *node) tend(ctx context.Context) {
	t, ok := n.store.(store.Tended)
	if !ok {
		return
	}
	u, err := t.Upkeep(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("how the housekeeping stands cannot be told; trying again", "err", err)
		}
		return
	}
	if u.Swept > store.SweptLate {
		n.log.Warn("no node has done the housekeeping for long: retention and deletions stand still; posthorn doctor says more", "since", u.Swept.Round(time.Second))
	}
	if u.Ahead < store.AheadShort {
		n.log.Warn("no node has made the tables of the coming week: publishing will stop; posthorn doctor says more", "left", u.Ahead.Round(time.Second))
	}
}
