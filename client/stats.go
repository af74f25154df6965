package client

import (
	"context"
	"time"
)

// Stats are figures of an endpoint, or of all that a tenant has. Tests are not
// in them.
type Stats struct {
	resource `json:"-"`
	// Since is what was asked for, back to the beginning of its slot; Until is
	// when this was counted.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// SlotSeconds is how long a slot of Series is: an hour up to seven days back,
	// else a day (UTC).
	SlotSeconds int64          `json:"slot_seconds"`
	Attempts    AttemptCounts  `json:"attempts"`
	Deliveries  DeliveryCounts `json:"deliveries"`
	// SuccessRate is the share of the attempts that succeeded, 0 to 1; nil without
	// attempts.
	SuccessRate *float64 `json:"success_rate"`
	// Latency holds percentiles of how long attempts took.
	Latency struct {
		P50 Latency `json:"p50"`
		P95 Latency `json:"p95"`
		P99 Latency `json:"p99"`
	} `json:"latency"`
	// Series has a slot for each hour or day, oldest first; the last one is not
	// over.
	Series []StatsSlot `json:"series"`
}

// AttemptCounts count requests to endpoints, without those that failed by a fault
// of the service's own.
type AttemptCounts struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// DeliveryCounts count how deliveries ended.
type DeliveryCounts struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`
	Expired   int `json:"expired"`
}

// Latency is a percentile in milliseconds: the exact one is over OverMS and at
// most AtMostMS. All are nil without attempts, and AtMostMS beyond 30 s.
type Latency struct {
	EstimateMS *float64 `json:"estimate_ms"`
	OverMS     *float64 `json:"over_ms"`
	AtMostMS   *float64 `json:"at_most_ms"`
}

// StatsSlot is an hour or a day.
type StatsSlot struct {
	Start      time.Time      `json:"start"`
	Attempts   AttemptCounts  `json:"attempts"`
	Deliveries DeliveryCounts `json:"deliveries"`
	// P95MS is estimated; nil without attempts.
	P95MS *float64 `json:"p95_ms"`
}

// EndpointStats counts what an endpoint was sent since a time, at most 366 days
// back; the zero one is 24 hours ago.
func (c *Client) EndpointStats(ctx context.Context, id string, since time.Time) (*Stats, error) {
	return c.stats(ctx, "/endpoints"+segment(id)+"/stats", since)
}

// Stats counts what all endpoints were sent since a time, as EndpointStats does
// for one.
func (c *Client) Stats(ctx context.Context, since time.Time) (*Stats, error) {
	return c.stats(ctx, "/stats", since)
}

func (c *Client) stats(ctx context.Context, path string, since time.Time) (*Stats, error) {
	return call[Stats](ctx, c, request{method: "GET", path: path, query: filter("since", instant(since))})
}
