package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Event is a verified webhook, as Posthorn sends them.
type Event struct {
	// ID is the webhook-id: the same each time this event is sent.
	ID string
	// Type is such as "cases.updated"; Timestamp is when it happened.
	Type      string
	Timestamp time.Time
	// Data is what the platform published, byte for byte.
	Data json.RawMessage
	// Delivery and Attempt name the delivery in the sender's log; empty and 0 if
	// the sender is another product.
	Delivery string
	Attempt  int
	// Test marks an event that somebody sent to try the endpoint out.
	Test bool
	// Body is the whole body, the bytes that were signed.
	Body []byte
}

// Decode reads Data into v, as [json.Unmarshal] does.
func (e *Event) Decode(v any) error { return json.Unmarshal(e.Data, v) }

// ErrNotEvent: the signature is right, and the body is not the JSON of an event.
var ErrNotEvent = errors.New("the body is signed, but is no event: a JSON object with type, timestamp and data")

// ParseEvent reads an event from a request that was verified before. It returns
// [ErrNotEvent] for a body that is none. The event shares the bytes of body.
func ParseEvent(h http.Header, body []byte) (*Event, error) {
	var in struct {
		Type      string          `json:"type"`
		Timestamp time.Time       `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Type == "" {
		return nil, ErrNotEvent
	}
	e := &Event{
		ID: h.Get(HeaderID), Type: in.Type, Timestamp: in.Timestamp, Data: in.Data, Body: body,
		Delivery: h.Get("posthorn-delivery"), Test: h.Get("posthorn-test") == "true",
	}
	e.Attempt, _ = strconv.Atoi(h.Get("posthorn-attempt")) // 0 if there is none
	return e, nil
}

type eventKey struct{}

// FromContext returns the event that [Receiver.Handler] verified; nil where it
// did not.
func FromContext(ctx context.Context) *Event {
	e, _ := ctx.Value(eventKey{}).(*Event)
	return e
}
