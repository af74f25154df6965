package app

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
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

// tellTurns publishes operational events: an endpoint is failing and will be
// paused, was paused, has recovered.
func (n *node) tellTurns(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-n.turns:
			if err := n.tellTurn(ctx, t); err != nil && ctx.Err() == nil {
				n.log.Warn("an operational event was not published", "type", t.eventType, "endpoint", t.endpoint.Ref, "err", err)
			}
		}
	}
}

func (n *node) tellTurn(ctx context.Context, t turn) error {
	if t.eventType == "webhooks.endpoint.failing" {
		first, err := n.store.MarkWarned(ctx, t.endpoint.ID, n.now())
		if err != nil || !first {
			return err
		}
	}
	data, err := json.Marshal(turnData{
		Endpoint:     t.endpoint.Ref,
		URL:          t.endpoint.URL,
		Reason:       optional(string(t.reason)),
		FailingSince: optionalTime(t.health.FailingSince),
		PauseAt:      optionalTime(t.health.PauseAt()),
		LastAttempt:  t.attempt.Explain(),
	})
	if err != nil {
		return err
	}
	n.log.Info("endpoint", "turn", t.eventType, "endpoint", t.endpoint.Ref, "reason", string(t.reason))
	return n.publish.Operational(ctx, t.tenant, t.eventType, data, t.endpoint.ID)
}

// turnData is the data of webhooks.endpoint.* events; the catalogue has its
// schema.
type turnData struct {
	Endpoint     string  `json:"endpoint"`
	URL          string  `json:"url"`
	Reason       *string `json:"reason"`
	FailingSince *string `json:"failing_since"`
	PauseAt      *string `json:"pause_at"`
	LastAttempt  string  `json:"last_attempt"`
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return optional(posthorn.FormatTime(t))
}
