package api

import (
	"net/http"
	"reflect"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Event is an event in lists.
type Event struct {
	ID         string  `json:"id" doc:"What receivers get as webhook-id."`
	Type       string  `json:"type"`
	Timestamp  string  `json:"timestamp" format:"date-time" doc:"When it happened."`
	AcceptedAt string  `json:"accepted_at" format:"date-time" doc:"When it was published."`
	DeliverAt  *string `json:"deliver_at" format:"date-time" doc:"When it is delivered; null for at once."`
	Deliveries int     `json:"deliveries" doc:"How many endpoints it goes to."`
	Source     *string `json:"source"`
	Subject    *string `json:"subject"`
	SourceID   *string `json:"source_id" doc:"The id that a CloudEvent came with."`
	// PayloadErasedAt also tells of retention.
	PayloadErasedAt *string `json:"payload_erased_at" format:"date-time" doc:"When the payload was erased, by hand or because its time was over; null while it is there. An event without payload is not sent again."`
	PayloadState    string  `json:"payload_state" enum:"kept,erasing,erased" doc:"erasing: nothing shows or sends the payload any more, but its bytes may be in the log of the embedded store still, as somebody reads its file, such as a backup; it is erased soon after that ends."`
}

// WholeEvent is an event with its data and deliveries.
type WholeEvent struct {
	Event
	Data jsonObject `json:"data" doc:"The bytes that were published; null when they were erased."`
	// DeliveryLog has the newest deliveries, at most a page of them.
	DeliveryLog []Delivery `json:"delivery_log" doc:"Up to 250 deliveries and about 4 MiB, with 256 bytes of each response_body; GET /deliveries?event= lists them all."`
}

func (s *server) eventOperations() []*operation {
	return []*operation{{
		id: "list-events", method: "GET", path: "/events", tag: "Events", scope: access.ScopeRead,
		summary:     "List events",
		description: "Newest first. A page may be short or empty and still have a next_cursor.",
		query:       append([]param{limitParam, cursorParam, typeParam, sinceParam, untilParam}, cloudParams...),
		success:     []success{{status: 200, doc: "A page of events.", model: reflect.TypeFor[list[Event]]()}},
		handle:      s.listEvents,
	}, {
		id: "get-event", method: "GET", path: "/events/{eventId}", tag: "Events", scope: access.ScopeRead,
		summary:  "Get an event with its deliveries",
		success:  []success{{status: 200, doc: "The event.", model: reflect.TypeFor[answer[WholeEvent]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getEvent,
	}}
}

func showEvent(e *posthorn.Event) Event {
	return Event{
		ID: e.Ref(), Type: e.Type, Timestamp: posthorn.FormatTime(e.OccurredAt), AcceptedAt: posthorn.FormatTime(e.AcceptedAt),
		DeliverAt: maybeTime(e.DeliverAt), Deliveries: e.Deliveries, Source: maybe(e.Source), Subject: maybe(e.Subject), SourceID: maybe(e.SourceID),
		PayloadErasedAt: maybeTime(e.ErasedAt), PayloadState: payloadState(e),
	}
}

func payloadState(e *posthorn.Event) string {
	switch {
	case e.Erasing:
		return "erasing"
	case !e.ErasedAt.IsZero():
		return "erased"
	}
	return "kept"
}

// maybe is null for the empty string.
func maybe(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// maybeTime is null for the zero time.
func maybeTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := posthorn.FormatTime(t)
	return &s
}

func (s *server) listEvents(q *request) (*reply, error) {
	page := store.Page{Limit: q.query.limit(defaultLimit), Before: posthorn.ID(s.placeID(q))}
	filter := store.EventFilter{
		Tenant: q.tenant.ID, Type: q.query.pattern("type"), Since: q.query.time("since"), Until: q.query.time("until"),
		Source: q.query.cloudText("source"), Subject: q.query.cloudText("subject"), SourceID: q.query.cloudText("source_id"),
	}
	if err := q.query.err(); err != nil {
		return nil, err
	}
	if ref := cloudEventRef(q.query); ref != "" {
		return s.namedEvent(q, filter, ref)
	}
	events, next, err := s.Store.Events(q.Context(), filter, page)
	if err != nil {
		return nil, err
	}
	shown := make([]Event, len(events))
	for i := range events {
		shown[i] = showEvent(&events[i])
	}
	return listReply(s, q, shown, int64(next))
}

// namedEvent is the list of the one event with an id, if the filter selects it.
func (s *server) namedEvent(q *request, f store.EventFilter, ref string) (*reply, error) {
	shown := []Event{}
	e, err := s.Store.EventByRef(q.Context(), q.tenant.ID, ref)
	if err != nil && !isMissing(err) {
		return nil, err
	}
	if err == nil && f.Selects(&e) {
		shown = append(shown, showEvent(&e))
	}
	return listReply(s, q, shown, 0)
}

func (s *server) getEvent(q *request) (*reply, error) {
	e, err := s.event(q)
	if err != nil {
		return nil, err
	}
	deliveries, _, err := s.Store.Deliveries(q.Context(), store.DeliveryFilter{Tenant: q.tenant.ID, Event: e.ID}, deliveriesPage(maxLimit, 0))
	if err != nil {
		return nil, err
	}
	head, err := encode(showEvent(&e))
	if err != nil {
		return nil, err
	}
	data := e.Data()
	if data == nil {
		data = []byte("null")
	}
	weight := int64(len(data))
	for i := range deliveries {
		weight += store.WeightOf(&deliveries[i])
	}
	return &reply{status: http.StatusOK, pieces: func(p *pieces) error {
		p.weight = func() int64 { return weight }
		// data is put in as it is: a JSON encoder would change spaces and escapes.
		if err := p.text(`{"data":`, string(head[:len(head)-1]), `,"data":`, string(data), `,"delivery_log":[`); err != nil {
			return err
		}
		for i := range deliveries {
			if i > 0 {
				p.buf.WriteByte(',')
			}
			if err := p.value(showDelivery(&deliveries[i])); err != nil {
				return err
			}
			if p.full() {
				break
			}
		}
		return p.text(`]}}`)
	}}, nil
}

func validEventRef(ref string) bool {
	return posthorn.ValidRefForm(ref)
}
