package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// OutboxEvent is an event that a program published by the SQL function
// posthorn.publish, before a node took it or after it was refused. Its calls need
// a platform token with the scope "admin".
type OutboxEvent struct {
	resource `json:"-"`
	// ID is the number that posthorn.publish returned.
	ID    string `json:"id"`
	State string `json:"state"` // waiting or refused
	// Tenant is empty once the tenant is deleted, EventID for an event without an id
	// of its publisher's.
	Tenant  string    `json:"tenant"`
	EventID string    `json:"event_id"`
	Type    string    `json:"type"`
	At      time.Time `json:"at"`
	// DeliverAt is zero for at once, RefusedAt for an event that waits.
	DeliverAt time.Time `json:"deliver_at"`
	RefusedAt time.Time `json:"refused_at"`
	Reason    string    `json:"reason"`
}

// Outbox lists events that wait or were refused, newest first. State is "refused"
// or "waiting"; "" is "refused".
func (c *Client) Outbox(ctx context.Context, state string) iter.Seq2[*OutboxEvent, error] {
	query := url.Values{}
	if state != "" {
		query.Set("state", state)
	}
	return list[OutboxEvent](ctx, c, "/outbox", query, 0)
}

// RetryOutbox publishes a refused event again.
func (c *Client) RetryOutbox(ctx context.Context, id string) (*OutboxEvent, error) {
	return call[OutboxEvent](ctx, c, request{method: http.MethodPost, path: "/outbox" + segment(id) + "/retry"})
}

// DropOutbox removes a refused event, which is never published; status 409 for one
// that waits.
func (c *Client) DropOutbox(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/outbox" + segment(id)}, nil)
	return err
}
