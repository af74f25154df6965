package client

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// RetryDelivery has a delivery attempted once more, now, in any state. What comes
// back is queued, not delivered. A paused endpoint is sent it, too. Status 409 while an
// attempt is being made, while the tenant is suspended, and when the endpoint is gone.
func (c *Client) RetryDelivery(ctx context.Context, id string) (*Delivery, error) {
	return call[Delivery](ctx, c, request{method: http.MethodPost, path: "/deliveries" + segment(id) + "/retry"})
}

// CancelDelivery cancels a delivery that waits: status 409 for a finished one.
func (c *Client) CancelDelivery(ctx context.Context, id string) (*Delivery, error) {
	return call[Delivery](ctx, c, request{method: http.MethodPost, path: "/deliveries" + segment(id) + "/cancel"})
}

// Resent is what became of a resend.
type Resent struct {
	resource `json:"-"`
	ID       string `json:"id"` // the event's
	// Queued counts the deliveries that will be attempted now.
	Queued     int `json:"queued"`
	Deliveries []struct {
		ID     string `json:"id"`
		Queued bool   `json:"queued"`
		// Refused is why it is not attempted now; empty if it is.
		Refused string `json:"refused"`
	} `json:"deliveries"`
}

// ResendEvent has an event's deliveries attempted once more, now: all of them, or
// the one of an endpoint.
func (c *Client) ResendEvent(ctx context.Context, id, endpoint string) (*Resent, error) {
	body := struct {
		Endpoint string `json:"endpoint,omitempty"`
	}{endpoint}
	return call[Resent](ctx, c, request{method: http.MethodPost, path: "/events" + segment(id) + "/resend", body: body})
}

// EventCanceled is what became of the cancellation of an event.
type EventCanceled struct {
	resource `json:"-"`
	ID       string `json:"id"`
	Canceled int    `json:"canceled"` // deliveries
}

// CancelEvent cancels all deliveries of an event that wait.
func (c *Client) CancelEvent(ctx context.Context, id string) (*EventCanceled, error) {
	return call[EventCanceled](ctx, c, request{method: http.MethodPost, path: "/events" + segment(id) + "/cancel"})
}

// PendingFilter selects what waits for an endpoint; zero fields select all.
type PendingFilter struct {
	States []string  `json:"states,omitempty"` // pending, held
	Types  []string  `json:"types,omitempty"`  // event types and patterns
	Until  time.Time `json:"until,omitzero"`   // accepted before
	DryRun bool      `json:"dry_run,omitempty"`
}

// PendingCanceled is what became of a cancellation.
type PendingCanceled struct {
	resource `json:"-"`
	// Canceled counts deliveries; in a dry run those that would be canceled.
	Canceled int       `json:"canceled"`
	More     bool      `json:"more"`
	Until    time.Time `json:"until"`
	DryRun   bool      `json:"dry_run"`
}

// CancelPending cancels what waits for an endpoint. It asks as often as the server
// has more; each time told hears of the sum so far (nil for nobody). On an error
// what was canceled so far comes back with it; [ErrEndless] is one that comes no further.
func (c *Client) CancelPending(ctx context.Context, endpoint string, f PendingFilter, told func(canceled int)) (*PendingCanceled, error) {
	sum := &PendingCanceled{}
	for range maxRounds {
		next, err := call[PendingCanceled](ctx, c, request{method: http.MethodPost, path: "/endpoints" + segment(endpoint) + "/cancel-pending", body: f})
		if err != nil {
			return sum, err
		}
		if next.More && next.Canceled <= 0 {
			break // the next one would come no further either
		}
		next.Canceled += sum.Canceled
		if sum = next; told != nil {
			told(sum.Canceled)
		}
		if !sum.More {
			return sum, nil
		}
		f.Until = sum.Until
	}
	return sum, fmt.Errorf("client: the server says that there is more to cancel and comes no further; %w", ErrEndless)
}
