package api

import (
	"math"
	"net/http"
	"reflect"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Stats are the figures of an endpoint, or of all that a tenant has.
type Stats struct {
	Since       string         `json:"since" format:"date-time" doc:"What was asked for, back to the beginning of its hour or, with days, its day (UTC)."`
	Until       string         `json:"until" format:"date-time" doc:"When this was counted; the last slot is not over."`
	SlotSeconds int64          `json:"slot_seconds" doc:"How long a slot of the series is: 3600 up to seven days back, else 86400."`
	Attempts    AttemptCounts  `json:"attempts"`
	Deliveries  DeliveryCounts `json:"deliveries"`
	SuccessRate *float64       `json:"success_rate" doc:"The share of the attempts that succeeded, 0 to 1; null without attempts."`
	Latency     LatencyFigures `json:"latency" doc:"How long attempts took, to the answer's headers or the failure."`
	Series      []StatsSlot    `json:"series" doc:"All slots from since to until, oldest first, those without attempts too."`
}

// AttemptCounts count requests that were made, without those that failed by a
// fault of our own.
type AttemptCounts struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// DeliveryCounts count how deliveries ended, each once: by the state that it has now and
// in the hour in which it got that. One that a replay sends again counts when it ends.
type DeliveryCounts struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed" doc:"The last attempt of the schedule failed."`
	Canceled  int `json:"canceled"`
	Expired   int `json:"expired"`
}

// LatencyFigures are percentiles.
type LatencyFigures struct {
	P50 Latency `json:"p50"`
	P95 Latency `json:"p95"`
	P99 Latency `json:"p99"`
}

// Latency is a percentile. Durations are counted in ranges, so that it is known
// to lie within one, and estimated as if the range were evenly filled. All are
// null without attempts.
type Latency struct {
	EstimateMS *float64 `json:"estimate_ms" doc:"Null without attempts, as are the others."`
	OverMS     *float64 `json:"over_ms" doc:"The exact one is longer than this, or 0."`
	AtMostMS   *float64 `json:"at_most_ms" doc:"The exact one is at most this; null also beyond 30 s."`
}

// StatsSlot is an hour or a day of the series.
type StatsSlot struct {
	Start      string         `json:"start" format:"date-time"`
	Attempts   AttemptCounts  `json:"attempts"`
	Deliveries DeliveryCounts `json:"deliveries"`
	P95MS      *float64       `json:"p95_ms" doc:"The estimated 95th percentile; null without attempts."`
}

// How far back statistics go: a slot is an hour up to hourlyFor, else a day.
const (
	hourlyFor   = 7 * 24 * time.Hour
	maxStatsAge = 366 * 24 * time.Hour
)

func (s *server) statsOperations() []*operation {
	query := []param{{"since", "Counted from the hour of this time on, at most 366 days back; 24 hours ago by default.", timeSchema()}}
	success := []success{{status: 200, doc: "The figures.", model: reflect.TypeFor[answer[Stats]]()}}
	const counted = "Counted by hour as things happen, so that it is quick however much was sent. Tests are not in it."
	return []*operation{{
		id: "get-endpoint-stats", method: "GET", path: "/endpoints/{webhookId}/stats", tag: "Endpoints", scope: access.ScopeRead,
		summary: "Count what an endpoint was sent", description: counted,
		query: query, success: success,
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getEndpointStats,
	}, {
		id: "get-stats", method: "GET", path: "/stats", tag: "Deliveries", scope: access.ScopeRead,
		summary:     "Count what all endpoints were sent",
		description: counted + " Deleted endpoints count for as long as their deliveries are kept.",
		query:       query, success: success,
		handle: s.getStats,
	}}
}

func (s *server) getEndpointStats(q *request) (*reply, error) {
	since := statsSince(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	return s.stats(q, since, e.ID)
}

func (s *server) getStats(q *request) (*reply, error) {
	since := statsSince(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	return s.stats(q, since, 0)
}

func statsSince(q *request) time.Time {
	since := q.query.time("since")
	switch {
	case since.IsZero():
		return q.at.Add(-24 * time.Hour)
	case since.After(q.at):
		q.query.fault("since must lie in the past")
	case q.at.Sub(since) > maxStatsAge:
		q.query.fault("since must be within the last 366 days")
	}
	return since
}

func (s *server) stats(q *request, since time.Time, endpoint int64) (*reply, error) {
	slot := time.Hour
	if q.at.Sub(since) > hourlyFor {
		slot = 24 * time.Hour
	}
	since = since.UTC().Truncate(slot)
	f := store.StatsFilter{
		Tenant: q.tenant.ID, Endpoint: endpoint,
		From: since.Unix() / 3600, Until: q.at.Unix()/3600 + 1, Step: int64(slot / time.Hour),
	}
	slots, err := s.Store.Stats(q.Context(), f)
	if err != nil {
		return nil, err
	}
	return ok(http.StatusOK, showStats(f, slots, q.at))
}

func showStats(f store.StatsFilter, slots []store.Slot, now time.Time) Stats {
	shown := Stats{
		Since: posthorn.FormatTime(time.Unix(f.From*3600, 0)), Until: posthorn.FormatTime(now), SlotSeconds: f.Step * 3600,
		Series: make([]StatsSlot, 0, (f.Until-f.From)/f.Step+1),
	}
	var sum, none store.Hour
	for at := f.From; at < f.Until; at += f.Step {
		h := &none
		if len(slots) > 0 && slots[0].Start == at {
			h, slots = &slots[0].Hour, slots[1:]
		}
		sum.Add(h)
		one := StatsSlot{Start: posthorn.FormatTime(time.Unix(at*3600, 0))}
		one.Attempts, one.Deliveries = showCounts(h)
		if p95, ok := h.Quantile(0.95); ok {
			one.P95MS = new(milliseconds(p95.Estimate))
		}
		shown.Series = append(shown.Series, one)
	}
	shown.Attempts, shown.Deliveries = showCounts(&sum)
	if n := sum.OK + sum.Failed; n > 0 {
		// Rounded down: what failed once shows no 1.
		shown.SuccessRate = new(math.Floor(float64(sum.OK)/float64(n)*1e6) / 1e6)
	}
	shown.Latency = LatencyFigures{P50: showLatency(&sum, 0.5), P95: showLatency(&sum, 0.95), P99: showLatency(&sum, 0.99)}
	return shown
}

func showCounts(h *store.Hour) (AttemptCounts, DeliveryCounts) {
	return AttemptCounts{h.OK, h.Failed}, DeliveryCounts{h.Succeeded, h.Exhausted, h.Canceled, h.Expired}
}

func showLatency(h *store.Hour, q float64) (l Latency) {
	found, ok := h.Quantile(q)
	if !ok {
		return l
	}
	l.EstimateMS, l.OverMS = new(milliseconds(found.Estimate)), new(milliseconds(found.Low))
	if found.High > 0 {
		l.AtMostMS = new(milliseconds(found.High))
	}
	return l
}
