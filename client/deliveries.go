package client

import (
	"context"
	"iter"
	"time"
)

// Delivery is what became of one event at one endpoint.
type Delivery struct {
	resource  `json:"-"`
	ID        string `json:"id"`
	Event     string `json:"event"`
	EventType string `json:"event_type"`
	Endpoint  string `json:"endpoint"`
	// State is pending, held, succeeded, failed, canceled or expired.
	State string `json:"state"`
	// Reason tells why it is canceled or expired; else empty.
	Reason string `json:"reason"`
	// Note is a sentence about how it came to be, or empty: that the endpoint's
	// filter failed on the event, say.
	Note         string `json:"note"`
	AttemptsMade int    `json:"attempts_made"`
	// NextAttemptAt is zero when none is planned.
	NextAttemptAt time.Time `json:"next_attempt_at"`
	CreatedAt     time.Time `json:"created_at"`
	// Attempts are the first 10 and the last 40 made.
	Attempts []Attempt `json:"attempts"`
}

// Final reports whether nothing happens any more unless a user asks for it.
func (d *Delivery) Final() bool {
	return d.State != "pending" && d.State != "held"
}

// Attempt is one request to the endpoint.
type Attempt struct {
	Number int       `json:"number"`
	At     time.Time `json:"at"`
	// DurationMS is in milliseconds, as are the timings.
	DurationMS float64 `json:"duration_ms"`
	Timings    Timings `json:"timings"`
	// Status is the HTTP status; 0 if no answer came.
	Status int `json:"status"`
	// Class says what came of it: "ok", "http_status", "timeout"…
	Class string `json:"class"`
	// Explanation says why, and what to do.
	Explanation     string            `json:"explanation"`
	ResponseHeaders map[string]string `json:"response_headers"`
	// ResponseBody is the beginning of the answer's body: 256 bytes in lists.
	ResponseBody     string `json:"response_body"`
	ResponseBodyNote string `json:"response_body_note"`
	// Manual marks an attempt that a user asked for.
	Manual bool `json:"manual"`
}

// Timings split an attempt; zero where a phase did not take place.
type Timings struct {
	DNSMS       float64 `json:"dns_ms"`
	ConnectMS   float64 `json:"connect_ms"`
	TLSMS       float64 `json:"tls_ms"`
	FirstByteMS float64 `json:"first_byte_ms"`
}

// DeliveryFilter selects deliveries; zero fields select all.
type DeliveryFilter struct {
	Endpoint, Event string
	// Type is an event type or a pattern such as "cases.*".
	Type  string
	State string
	// Since and Until are times of the event's acceptance: Since <= t < Until.
	Since, Until time.Time
	// PageSize is how many are asked for at a time, 1 to 250; 0 for 250.
	PageSize int
}

// Deliveries lists deliveries with their attempts, newest first.
func (c *Client) Deliveries(ctx context.Context, f DeliveryFilter) iter.Seq2[*Delivery, error] {
	q := filter("endpoint", f.Endpoint, "event", f.Event, "type", f.Type, "state", f.State,
		"since", instant(f.Since), "until", instant(f.Until))
	return list[Delivery](ctx, c, "/deliveries", q, f.PageSize)
}

// Delivery returns one delivery.
func (c *Client) Delivery(ctx context.Context, id string) (*Delivery, error) {
	return get[Delivery](ctx, c, "/deliveries"+segment(id))
}
