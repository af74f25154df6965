package app

import (
	"context"
	"errors"
	"time"

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
			sweep.Reset(n.sweep(ctx))
		}
	}
}

// sweep does one slice of the housekeeping and says when the next is due.
func (n *node) sweep(ctx context.Context) time.Duration {
	swept, err := n.store.Sweep(ctx, n.now(), store.Retention{Events: n.cfg.Retention, Audit: n.cfg.AuditRetention})
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
