package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
)

// What an endpoint's owners are told of is written into the store by the commit
// that brings it about, as a [store.Turn], and taken out when the operational event
// about it is durable. The event's publication carries the turn's number as its
// idempotency key. So each turn becomes one event, whatever crashes in between and
// however many nodes see it.

const (
	turnsEvery = time.Second // between looks for what other nodes, or a crash, left
	turnsPage  = 100
	// turnKept is for how long a turn that was told of is known, should taking it
	// out fail.
	turnKept = 90 * 24 * time.Hour
)

// tellTurns publishes operational events: an endpoint is failing and will be
// paused, was paused, has recovered.
func (n *node) tellTurns(ctx context.Context) {
	tick := time.NewTicker(turnsEvery)
	defer tick.Stop()
	for {
		if err := n.warn(ctx); err != nil && !stopping(ctx, err) {
			n.log.Warn("endpoints that fail could not be looked for; trying again", "err", err)
		}
		if err := n.announce(ctx); err != nil && !stopping(ctx, err) {
			n.log.Warn("an operational event was not published; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.turned:
		}
	}
}

func stopping(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, store.ErrClosed)
}

// warn notes the pauses that are a day away. An endpoint is found by its health
// alone: nothing needs to be in flight to it.
func (n *node) warn(ctx context.Context) error {
	now := n.now()
	due, err := n.store.WarningsDue(ctx, now.Add(posthorn.FailingWarning-posthorn.FailingAfter), turnsPage)
	for _, endpoint := range due {
		if _, err := n.store.MarkWarned(ctx, endpoint, now); err != nil {
			return err
		}
	}
	return err
}

// announce publishes what was noted, oldest first. Turns of a newer version are left
// to its nodes: this one knows neither what belongs into their events nor, maybe,
// where it stands.
func (n *node) announce(ctx context.Context) error {
	turns, err := n.store.Turns(ctx, turnsPage)
	for i := range turns {
		if !knownTurn(&turns[i]) {
			continue
		}
		if err := n.tell(ctx, &turns[i]); err != nil {
			return err
		}
	}
	return err
}

func knownTurn(t *store.Turn) bool {
	switch t.Type {
	case posthorn.TypeEndpointPaused:
		return t.Reason == posthorn.PausedGone || t.Reason == posthorn.PausedFailing
	case posthorn.TypeEndpointFailing, posthorn.TypeEndpointRecovered:
		return true
	}
	return false
}

func (n *node) tell(ctx context.Context, t *store.Turn) error {
	data, err := json.Marshal(turnDataOf(t))
	if err != nil {
		return err
	}
	number := strconv.FormatInt(t.ID, 10)
	once := &store.Once{
		Tenant: t.Tenant, Route: "endpoint turn", Key: number,
		Hash: sha256.Sum256([]byte(number)), Expires: t.At.Add(turnKept),
	}
	err = n.publish.Operational(ctx, t.Tenant, t.Type, t.At, data, t.Endpoint, once)
	_, repeated := errors.AsType[*store.ErrRepeated](err)
	switch {
	case repeated, errors.Is(err, store.ErrNotFound): // told already; the tenant is gone
	case err != nil:
		return err
	default:
		n.metrics.operational.WithLabelValues(t.Type).Inc()
		n.log.Info("endpoint", "turn", t.Type, "endpoint", t.Ref, "host", hostOf(t.URL), "reason", string(t.Reason), "failures", t.Failures)
	}
	return n.store.ForgetTurn(ctx, t.ID)
}

// turnData is the data of webhooks.endpoint.* events; the catalogue has its
// schema. It holds no path or query of the url: they may be secrets, and other
// endpoints may belong to other people.
type turnData struct {
	Endpoint     string  `json:"endpoint"`
	Host         string  `json:"host"`
	Reason       *string `json:"reason"`
	FailingSince *string `json:"failing_since"`
	Failures     int     `json:"failures"`
	PauseAt      *string `json:"pause_at"`
	LastError    string  `json:"last_error"`
}

func turnDataOf(t *store.Turn) turnData {
	d := turnData{
		Endpoint: t.Ref, Host: hostOf(t.URL), Failures: t.Failures, LastError: t.LastError,
		FailingSince: optionalTime(t.FailingSince),
	}
	if t.Reason != "" {
		d.Reason = new(string(t.Reason))
	}
	if t.Type == posthorn.TypeEndpointFailing {
		d.PauseAt = optionalTime(posthorn.Health{FailingSince: t.FailingSince}.PauseAt())
	}
	return d
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(posthorn.FormatTime(t))
}

// noteTurn has the announcer look at once when an attempt was a turning point.
func (n *node) noteTurn(o *lane.Observation) {
	if o.Err != nil || o.Recorded.Paused == "" && !o.Recorded.Recovered {
		return
	}
	select {
	case n.turned <- struct{}{}:
	default: // it is going to look anyway
	}
}
