package api

import (
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Delivery is one event on its way to one endpoint.
type Delivery struct {
	ID            string    `json:"id"`
	Event         string    `json:"event"`
	EventType     string    `json:"event_type"`
	Endpoint      string    `json:"endpoint"`
	State         string    `json:"state" enum:"pending,held,succeeded,failed,canceled,expired"`
	Reason        *string   `json:"reason" doc:"Why it is canceled or expired."`
	Note          *string   `json:"note" doc:"How it came to be, where that is remarkable: the endpoint's filter failed on the event, say."`
	AttemptsMade  int       `json:"attempts_made" doc:"Attempts so far, without those that failed by a fault of our own."`
	NextAttemptAt *string   `json:"next_attempt_at" format:"date-time" doc:"The earliest time of the next attempt."`
	CreatedAt     string    `json:"created_at" format:"date-time"`
	Attempts      []Attempt `json:"attempts" doc:"The first 10 and the last 40."`
}

// Attempt is one HTTP request and what came of it.
type Attempt struct {
	Number           int               `json:"number"`
	At               string            `json:"at" format:"date-time"`
	DurationMS       float64           `json:"duration_ms" doc:"From the start to the answer's headers or the failure."`
	Timings          Timings           `json:"timings"`
	Status           *int              `json:"status" doc:"HTTP status; null when no answer came."`
	Class            string            `json:"class" doc:"What kind of end it took."`
	Explanation      string            `json:"explanation" doc:"Why it ended so, and what to do."`
	ResponseHeaders  map[string]string `json:"response_headers"`
	ResponseBody     string            `json:"response_body" doc:"The beginning of the answer's body: of a failure up to 4 KiB, of a success up to 256 bytes; 256 bytes where deliveries are listed."`
	ResponseBodyNote *string           `json:"response_body_note" doc:"truncated, timeout or error when there was more."`
	Manual           bool              `json:"manual" doc:"A user asked for it."`
}

// Timings split an attempt; null where a phase did not take place.
type Timings struct {
	DNS       *float64 `json:"dns_ms"`
	Connect   *float64 `json:"connect_ms"`
	TLS       *float64 `json:"tls_ms"`
	FirstByte *float64 `json:"first_byte_ms"`
}

func (s *server) deliveryOperations() []*operation {
	var states []any
	for _, state := range posthorn.ShownStates() {
		states = append(states, string(state))
	}
	return []*operation{{
		id: "list-deliveries", method: "GET", path: "/deliveries", tag: "Deliveries", scope: access.ScopeRead,
		summary:     "List deliveries with their attempts",
		description: "Newest first. A page may be short or empty and still have a next_cursor: it ends at about 4 MiB. Of each attempt's response_body it has 256 bytes; GET /deliveries/{deliveryId} has all.",
		query: []param{limitParam, cursorParam,
			{"endpoint", "An endpoint's id.", stringSchema()},
			{"event", "An event's id.", stringSchema()},
			typeParam,
			{"state", "A state.", &huma.Schema{Type: "string", Enum: states}},
			sinceParam, untilParam,
		},
		success: []success{{status: 200, doc: "A page of deliveries.", model: reflect.TypeFor[list[Delivery]]()}},
		handle:  s.listDeliveries,
	}, {
		id: "get-delivery", method: "GET", path: "/deliveries/{deliveryId}", tag: "Deliveries", scope: access.ScopeRead,
		summary:  "Get a delivery with its attempts",
		success:  []success{{status: 200, doc: "The delivery.", model: reflect.TypeFor[answer[Delivery]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getDelivery,
	}, {
		id: "get-endpoint-health", method: "GET", path: "/endpoints/{webhookId}/health", tag: "Endpoints", scope: access.ScopeRead,
		summary:  "Tell how an endpoint does",
		success:  []success{{status: 200, doc: "Its health.", model: reflect.TypeFor[answer[Health]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getHealth,
	}}
}

func showDelivery(d *posthorn.Delivery) Delivery {
	shown := Delivery{
		ID: d.ID.Text(posthorn.DeliveryPrefix), Event: d.EventRef, EventType: d.Type, Endpoint: d.EndpointRef,
		State: string(d.Shown()), Reason: maybe(string(d.Reason)), Note: maybe(d.Note), AttemptsMade: d.Progress.Attempts,
		CreatedAt: posthorn.FormatTime(d.CreatedAt), Attempts: make([]Attempt, len(d.Attempts)),
	}
	if !d.Progress.State.Final() && !d.Held { // a held one has no time: it waits for a user
		shown.NextAttemptAt = maybeTime(d.Progress.NextAt)
	}
	for i := range d.Attempts {
		shown.Attempts[i] = showAttempt(&d.Attempts[i])
	}
	return shown
}

func showAttempt(a *posthorn.Attempt) Attempt {
	shown := Attempt{
		Number: a.Number, At: posthorn.FormatTime(a.At), DurationMS: milliseconds(a.Duration),
		Timings: Timings{phase(a.Timings.DNS), phase(a.Timings.Connect), phase(a.Timings.TLS), phase(a.Timings.FirstByte)},
		Class:   a.Class.String(), Explanation: a.Explain(),
		ResponseHeaders: make(map[string]string, len(a.Headers)),
		// Receivers answer with whatever they like; JSON is UTF-8.
		ResponseBody: strings.ToValidUTF8(string(a.Snippet), "\uFFFD"), ResponseBodyNote: maybe(a.BodyNote), Manual: a.Manual,
	}
	if a.Status != 0 {
		shown.Status = &a.Status
	}
	for _, h := range a.Headers {
		value := strings.ToValidUTF8(h.Value, "\uFFFD")
		if earlier, ok := shown.ResponseHeaders[h.Name]; ok {
			value = earlier + ", " + value
		}
		shown.ResponseHeaders[h.Name] = value
	}
	return shown
}

// milliseconds has three decimals: microseconds are as fine as it gets.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }

func phase(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	ms := milliseconds(d)
	return &ms
}

func (s *server) listDeliveries(q *request) (*reply, error) {
	page := deliveriesPage(q.query.limit(defaultLimit), s.placeID(q))
	filter := store.DeliveryFilter{
		Tenant: q.tenant.ID, Type: q.query.pattern("type"), State: q.query.state("state"),
		Since: q.query.time("since"), Until: q.query.time("until"),
	}
	if err := q.query.err(); err != nil {
		return nil, err
	}
	known, err := s.resolveFilter(q, &filter)
	if err != nil {
		return nil, err
	}
	if !known {
		return listReply(s, q, []Delivery{}, 0)
	}
	deliveries, next, err := s.Store.Deliveries(q.Context(), filter, page)
	if err != nil {
		return nil, err
	}
	return pageReply(s, q, deliveries, showDelivery, func(d *posthorn.Delivery) int64 { return int64(d.ID) }, int64(next))
}

// resolveFilter turns the ids that users see into the store's. It reports false
// when one is unknown: then nothing matches.
func (s *server) resolveFilter(q *request, f *store.DeliveryFilter) (known bool, err error) {
	if q.query.has("endpoint") {
		e, err := s.formerEndpoint(q)
		if f.Endpoint = e.ID; err != nil || e.ID == 0 {
			return false, err
		}
	}
	if q.query.has("event") {
		ref := q.query.text("event")
		if id, ok := posthorn.ParseID(posthorn.EventPrefix, ref); ok {
			f.Event = id
			return true, nil
		}
		if !posthorn.ValidRefForm(ref) {
			return false, nil
		}
		e, err := s.Store.EventByRef(q.Context(), q.tenant.ID, ref)
		if err != nil {
			return false, ignoreMissing(err)
		}
		f.Event = e.ID
	}
	return true, nil
}

// formerEndpoint finds the endpoint that the query names, a deleted one too; the
// zero one if there is none.
func (s *server) formerEndpoint(q *request) (posthorn.Endpoint, error) {
	ref := q.query.text("endpoint")
	if !posthorn.ValidRef(posthorn.EndpointPrefix, ref) {
		return posthorn.Endpoint{}, nil
	}
	e, err := s.Store.FormerEndpoint(q.Context(), q.tenant.ID, ref)
	if err != nil {
		return posthorn.Endpoint{}, ignoreMissing(err)
	}
	return e, nil
}

func ignoreMissing(err error) error {
	if isMissing(err) {
		return nil
	}
	return err
}

func (s *server) getDelivery(q *request) (*reply, error) {
	d, err := s.delivery(q)
	if err != nil {
		return nil, err
	}
	return ok(200, showDelivery(&d))
}
