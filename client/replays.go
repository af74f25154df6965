package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Replay sends again what an endpoint did not get.
type Replay struct {
	resource `json:"-"`
	ID       string `json:"id"`
	Endpoint string `json:"endpoint"`
	// State is running, paused, completed or canceled. Completed: all was handed
	// over; what was may still be on its way.
	State         string       `json:"state"`
	Since         time.Time    `json:"since"`
	Until         time.Time    `json:"until"`
	Types         []string     `json:"types"`
	States        []string     `json:"states"`
	Missing       bool         `json:"missing"`
	RatePerSecond float64      `json:"rate_per_second"`
	Counts        ReplayCounts `json:"counts"`
	CreatedAt     time.Time    `json:"created_at"`
	UpdatedAt     time.Time    `json:"updated_at"`
}

// ReplayCounts are for a progress bar.
type ReplayCounts struct {
	// Total is fixed when the replay is made. Sent and Skipped were dealt with; of
	// those sent Succeeded and Failed have ended, and Waiting have not.
	Total     int `json:"total"`
	Sent      int `json:"sent"`
	Skipped   int `json:"skipped"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Waiting   int `json:"waiting"`
}

// Over reports whether nothing of the replay is to be sent or waits any more.
func (r *Replay) Over() bool {
	return (r.State == "completed" || r.State == "canceled") && r.Counts.Waiting == 0
}

// NewReplay says what to send again. Since is required.
type NewReplay struct {
	// Since and Until are times of the event's acceptance: Since <= t < Until.
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	// Types are event types and patterns; empty for all.
	Types []string `json:"types,omitempty"`
	// States are succeeded, failed, canceled and expired; empty for failed and
	// expired.
	States []string `json:"states,omitempty"`
	// Missing sends what was never sent because the endpoint did not exist yet.
	Missing bool `json:"missing,omitempty"`
	// RatePerSecond is 0.1 to 1000; 0 for no bound.
	RatePerSecond float64 `json:"rate_per_second,omitzero"`
}

// ReplayPlan is what a replay would send.
type ReplayPlan struct {
	resource `json:"-"`
	Total    int            `json:"total"`
	Samples  []ReplaySample `json:"samples"` // the first and the last
}

// ReplaySample is one of what a replay would send.
type ReplaySample struct {
	Delivery   string    `json:"delivery"` // empty for one that is missing
	Event      string    `json:"event"`
	EventType  string    `json:"event_type"`
	State      string    `json:"state"`
	AcceptedAt time.Time `json:"accepted_at"`
}

// PlanReplay counts exactly what a replay would send, and sends nothing.
func (c *Client) PlanReplay(ctx context.Context, endpoint string, n NewReplay) (*ReplayPlan, error) {
	body := struct {
		NewReplay
		DryRun bool `json:"dry_run"`
	}{n, true}
	return call[ReplayPlan](ctx, c, request{method: http.MethodPost, path: "/endpoints" + segment(endpoint) + "/replays", body: body})
}

// CreateReplay begins a replay. An endpoint has one at a time (else status 409).
func (c *Client) CreateReplay(ctx context.Context, endpoint string, n NewReplay) (*Replay, error) {
	return call[Replay](ctx, c, request{method: http.MethodPost, path: "/endpoints" + segment(endpoint) + "/replays", body: n})
}

// Replay returns a replay as it stands now.
func (c *Client) Replay(ctx context.Context, id string) (*Replay, error) {
	return get[Replay](ctx, c, "/replays"+segment(id))
}

// Replays lists replays, newest first, of one endpoint or of all (empty).
func (c *Client) Replays(ctx context.Context, endpoint string) iter.Seq2[*Replay, error] {
	return list[Replay](ctx, c, "/replays", filter("endpoint", endpoint), 0)
}

// PauseReplay lets a replay rest: nothing more is handed over.
func (c *Client) PauseReplay(ctx context.Context, id string) (*Replay, error) {
	return c.setReplay(ctx, id, "pause")
}

// ResumeReplay lets a replay go on.
func (c *Client) ResumeReplay(ctx context.Context, id string) (*Replay, error) {
	return c.setReplay(ctx, id, "resume")
}

// CancelReplay ends a replay. What was handed over stays.
func (c *Client) CancelReplay(ctx context.Context, id string) (*Replay, error) {
	return c.setReplay(ctx, id, "cancel")
}

func (c *Client) setReplay(ctx context.Context, id, verb string) (*Replay, error) {
	return call[Replay](ctx, c, request{method: http.MethodPost, path: "/replays" + segment(id) + "/" + verb})
}
