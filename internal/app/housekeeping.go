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
)

// keepHouse lets old rows go, settles what deletions left, and records the last
// use of tokens.
func (n *node) keepHouse(ctx context.Context) {
	sure := n.clock.Sure()
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	flush := time.NewTicker(flushTokens)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			if err := n.access.Flush(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("the tokens' last use was not recorded; trying again", "err", err)
			}
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
	case swept.More:
		return sweepPause
	}
	return sweepEvery
}
