package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Event is something to publish. Type and Data are required.
type Event struct {
	// ID makes publishing idempotent: the same ID with the same content is
	// accepted again and delivers nothing new. Empty for one that the server
	// gives.
	ID   string
	Type string
	// Data is a JSON object; receivers get its bytes as they are here.
	Data jsontext.Value
	// Timestamp is when it happened; zero for now.
	Timestamp time.Time
	// DeliverAt delays the delivery; zero for at once.
	DeliverAt time.Time
	// Tenant is required with a platform token; empty for the client's own.
	Tenant string
	// Test marks an event that is for trying out: receivers get posthorn-test, and
	// what comes of it changes neither health nor statistics. A batch is a test
	// when its first event is.
	Test bool
}

// testHeader asks for events to be marked as tests.
func testHeader(test bool) http.Header {
	if !test {
		return nil
	}
	return http.Header{"Posthorn-Test": {"true"}}
}

// appendJSON appends the event as the API takes it, with Data byte for byte.
func (e Event) appendJSON(b []byte) ([]byte, error) {
	if !e.Data.IsValid() || e.Data.Kind() != '{' {
		return nil, errors.New("client: an event's data is a JSON object without duplicate members")
	}
	b = append(b, `{"type":`...)
	b, err := jsontext.AppendQuote(b, e.Type)
	for _, m := range []struct{ name, value string }{
		{"id", e.ID}, {"tenant", e.Tenant}, {"timestamp", instant(e.Timestamp)}, {"deliver_at", instant(e.DeliverAt)},
	} {
		if m.value != "" && err == nil {
			b = append(b, `,"`+m.name+`":`...)
			b, err = jsontext.AppendQuote(b, m.value)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("client: the event holds text that is not UTF-8: %w", err)
	}
	b = append(b, `,"data":`...)
	b = append(b, e.Data...)
	return append(b, '}'), nil
}

// batch is the body of SendBatch.
type batch []Event

func (events batch) appendJSON(b []byte) (_ []byte, err error) {
	b = append(b, `{"events":[`...)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = e.appendJSON(b); err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
	}
	return append(b, `]}`...), nil
}

// instant writes a time; empty for the zero one.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Accepted is the server's promise: the event and its deliveries are durable.
type Accepted struct {
	resource   `json:"-"`
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Timestamp  time.Time `json:"timestamp"`
	Deliveries int       `json:"deliveries"`
}

// Send publishes an event. When it returns without error nothing can lose the
// event any more.
func (c *Client) Send(ctx context.Context, e Event) (*Accepted, error) {
	return call[Accepted](ctx, c, request{method: http.MethodPost, path: "/events", body: c.addressed(e), header: testHeader(e.Test)})
}

// SendBatch publishes up to 1,000 events, all or none. The answers are in the
// events' order.
func (c *Client) SendBatch(ctx context.Context, events []Event) ([]*Accepted, error) {
	own := make(batch, len(events))
	for i, e := range events {
		own[i] = c.addressed(e)
	}
	var answers []jsontext.Value
	if _, err := c.do(ctx, request{method: http.MethodPost, path: "/events/batch", body: own, header: testHeader(len(events) > 0 && events[0].Test)}, &answers); err != nil {
		return nil, err
	}
	all := make([]*Accepted, 0, len(answers))
	var fault error
	each(answers, func(a *Accepted, err error) bool {
		all, fault = append(all, a), err
		return err == nil
	})
	if fault != nil {
		return nil, fault
	}
	return all, nil
}

func (c *Client) addressed(e Event) Event {
	if e.Tenant == "" {
		e.Tenant = c.tenant
	}
	return e
}

// Published is an event that the service keeps.
type Published struct {
	resource   `json:"-"`
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Timestamp  time.Time `json:"timestamp"`
	AcceptedAt time.Time `json:"accepted_at"`
	DeliverAt  time.Time `json:"deliver_at"` // zero for at once
	Deliveries int       `json:"deliveries"`
	// Source and Subject are CloudEvents attributes, or empty.
	Source  string `json:"source"`
	Subject string `json:"subject"`
	// SourceID is the id that a CloudEvent came with.
	SourceID string `json:"source_id"`
	// PayloadErasedAt is zero while the payload is there.
	PayloadErasedAt time.Time `json:"payload_erased_at"`
	// PayloadState is "kept", "erasing" or "erased"; see [Client.ErasePayload].
	PayloadState string `json:"payload_state"`
	// Data is what was published, byte for byte, and DeliveryLog its deliveries.
	// Both are nil in lists; Data is nil also when it was erased.
	Data        jsontext.Value `json:"data,omitzero"`
	DeliveryLog []Delivery     `json:"delivery_log,omitzero"`
}

// UnmarshalJSON keeps null apart from data.
func (p *Published) UnmarshalJSON(b []byte) error {
	type plain Published
	if err := json.Unmarshal(b, (*plain)(p)); err != nil {
		return err
	}
	if p.Data.Kind() == 'n' {
		p.Data = nil
	}
	return nil
}

// EventFilter selects events; zero fields select all.
type EventFilter struct {
	// Type is an event type or a pattern such as "cases.*".
	Type string
	// Since and Until are times of acceptance: Since <= t < Until.
	Since, Until time.Time
	// Source, Subject and SourceID are CloudEvents attributes, whole.
	Source, Subject, SourceID string
	// PageSize is how many are asked for at a time, 1 to 250; 0 for 250.
	PageSize int
}

// Events lists events, newest first, without data and deliveries.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[*Published, error] {
	return list[Published](ctx, c, "/events", filter("type", f.Type, "since", instant(f.Since), "until", instant(f.Until),
		"source", f.Source, "subject", f.Subject, "source_id", f.SourceID), f.PageSize)
}

// Event returns an event with its data and deliveries.
func (c *Client) Event(ctx context.Context, id string) (*Published, error) {
	return get[Published](ctx, c, "/events"+segment(id))
}

// ErasePayload erases an event's payload for good and cancels what is open of
// it; the rest of the event stays in the log. To erase it again changes nothing.
//
// done is false while nothing shows or sends the payload any more, but a reader of the
// embedded store's file, such as a backup, keeps bytes of it in the store's log. They go
// when that ends: the event's PayloadState is "erasing" until then.
func (c *Client) ErasePayload(ctx context.Context, id string) (done bool, err error) {
	a, err := c.do(ctx, request{method: http.MethodDelete, path: "/events" + segment(id) + "/payload"}, nil)
	return err == nil && a.status != http.StatusAccepted, err
}

// filter makes a query of names and values, without the empty ones.
func filter(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// EventType is one entry of the catalogue.
type EventType struct {
	resource    `json:"-"`
	Name        string `json:"name"`
	Description string `json:"description"`
	// Open marks a namespace ("cases.tasks.*"): any type below it may be
	// published.
	Open bool `json:"open"`
	// Operational types are made by Posthorn only.
	Operational bool           `json:"operational"`
	Schema      jsontext.Value `json:"schema"`
	Example     jsontext.Value `json:"example"`
}

// EventTypes lists the catalogue.
func (c *Client) EventTypes(ctx context.Context) iter.Seq2[*EventType, error] {
	return list[EventType](ctx, c, "/event-types", nil, 0)
}

// EventType returns one type.
func (c *Client) EventType(ctx context.Context, name string) (*EventType, error) {
	return get[EventType](ctx, c, "/event-types"+segment(name))
}
