package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Event is a verified webhook, as Posthorn sends them. ID and Body were signed, and
// what comes of Body: Type, Timestamp and Data. Delivery, Attempt and Test come from
// headers that are not signed: whoever may replay or pass on a request can write what
// he likes there. They are for logs; let nothing that matters depend on them.
type Event struct {
	// ID is the webhook-id: the same each time this event is sent. It is signed.
	ID string
	// Type is such as "cases.updated"; Timestamp is when it happened. Both are signed.
	Type      string
	Timestamp time.Time
	// Data is what the platform published, byte for byte. It is signed.
	Data json.RawMessage
	// Endpoint is the name that [NewVerifierFor] has for the endpoint whose secret signed
	// this; empty with [NewVerifier] and from [ParseEvent].
	Endpoint string
	// Delivery and Attempt name the delivery in the sender's log; empty and 0 if
	// the sender is another product. They are NOT signed.
	Delivery string
	Attempt  int
	// Test marks an event that somebody sent to try the endpoint out. That it is marked
	// is NOT signed: do not drop an event for it, or a replay with the mark could take
	// the place of a genuine one. Only the ids of tests of one endpoint, which begin with
	// evt_test_, are signed: of those the mark cannot be taken away.
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
		ID: only(h, HeaderID), Type: in.Type, Timestamp: in.Timestamp, Data: in.Data, Body: body,
		Delivery: only(h, "posthorn-delivery"),
	}
	e.Test = only(h, "posthorn-test") == "true" || strings.HasPrefix(e.ID, testPrefix)
	if n, err := strconv.Atoi(only(h, "posthorn-attempt")); err == nil {
		e.Attempt = max(n, 0)
	}
	return e, nil
}

// testPrefix begins the ids of the events that Posthorn sends to one endpoint to try
// it out. Nobody can publish such an id.
const testPrefix = "evt_test_"

type eventKey struct{}

// FromContext returns the event that [Receiver.Handler] verified; nil where it
// did not.
func FromContext(ctx context.Context) *Event {
	e, _ := ctx.Value(eventKey{}).(*Event)
	return e
}
