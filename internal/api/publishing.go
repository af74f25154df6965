package api

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/publish"
)

// Media types of publishing.
const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
)

// What a publishing request's body may measure. An event's own limit is publish's
// to keep; its envelope comes on top.
const (
	maxEventBody = publish.MaxEventSize + 16<<10
	maxBatchBody = publish.MaxBatchSize
)

const eventExample = `{"type": "cases.updated", "data": {"case_id": 590, "client_id": 77, "expat_id": 101}}`

// PublishEvent is the body of POST /events, for the document: events are read
// by package publish, without reflection.
type PublishEvent struct {
	Type      string     `json:"type" doc:"What happened; see GET /event-types."`
	Data      jsonObject `json:"data" doc:"About what; delivered as the bytes that came in."`
	ID        string     `json:"id,omitempty" pattern:"^[A-Za-z0-9_-]{1,128}$" doc:"Makes publishing idempotent: the same id again delivers nothing new. Not beginning with evt_."`
	Timestamp *string    `json:"timestamp,omitempty" format:"date-time" doc:"When it happened; now by default."`
	Tenant    string     `json:"tenant,omitempty" doc:"Whose event it is; for platform tokens."`
	DeliverAt *string    `json:"deliver_at,omitempty" format:"date-time" doc:"Deliver then, not at once; up to half the retention ahead; a past one sends now, one before 1970 is refused."`
	_         struct{}   `additionalProperties:"false"`
}

// PublishBatch is the body of POST /events/batch.
type PublishBatch struct {
	Events []PublishEvent `json:"events" minItems:"1" maxItems:"1000"`
}

// PublishedEvent is the answer for one event.
type PublishedEvent struct {
	ID         string `json:"id" doc:"The event's id, which receivers get as webhook-id."`
	Type       string `json:"type"`
	Timestamp  string `json:"timestamp" format:"date-time"`
	Deliveries int    `json:"deliveries" doc:"How many endpoints it goes to."`
}

// jsonObject is any JSON object.
type jsonObject struct{}

func (jsonObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", AdditionalProperties: true}
}

func (s *server) publishOperations() []*operation {
	failures := []posthorn.Code{posthorn.Conflict, posthorn.TooLarge}
	return []*operation{{
		id: "publish-event", method: "POST", path: "/events", tag: "Events", scope: access.ScopePublish, reach: ofPublisher, quiet: true,
		summary:     "Publish an event",
		description: "Answered once the event and its deliveries are durable. CloudEvents 1.0 are taken in the JSON format and in the binary mode of the HTTP binding (ce- headers).",
		body:        &bodyRule{types: []string{typeJSON, typeCloudEvent}, forms: cloudForms, limit: maxEventBody, model: reflect.TypeFor[PublishEvent](), example: eventExample},
		success:     []success{{status: 202, doc: "Accepted.", model: reflect.TypeFor[answer[PublishedEvent]]()}},
		headers:     []param{testParam},
		failures:    failures,
		handle:      s.publishOne,
	}, {
		id: "publish-batch", method: "POST", path: "/events/batch", tag: "Events", scope: access.ScopePublish, reach: ofPublisher, quiet: true,
		summary:     "Publish up to 1,000 events",
		description: "All of them or none. The events come as one JSON document or one per line (application/x-ndjson), or as a batch of CloudEvents 1.0; they belong to one tenant.",
		body:        &bodyRule{types: []string{typeJSON, typeNDJSON, typeCloudEvents}, forms: cloudForms, limit: maxBatchBody, model: reflect.TypeFor[PublishBatch](), example: `{"events": [` + eventExample + `]}`},
		success:     []success{{status: 202, doc: "Accepted.", model: reflect.TypeFor[answer[[]PublishedEvent]]()}},
		headers:     []param{testParam},
		failures:    failures,
		handle:      s.publishBatch,
	}}
}

func (s *server) publishOne(q *request) (*reply, error) {
	e, err := s.readEvent(q)
	if err != nil {
		return nil, err
	}
	return s.publish(q, []publish.Event{e}, nil, func(accepted []publish.Accepted) []byte {
		b := append(make([]byte, 0, 192), `{"data":`...)
		return append(appendAccepted(b, &accepted[0]), '}')
	})
}

func (s *server) publishBatch(q *request) (*reply, error) {
	parse, pointer := s.Publish.ParseBatch, publish.InBatch
	switch q.contentType {
	case typeNDJSON:
		parse = s.Publish.ParseNDJSON
	case typeCloudEvents:
		parse, pointer = s.Publish.ParseCloudEvents, publish.InCloudBatch
	}
	events, err := parse(q.body)
	if err != nil {
		return nil, err
	}
	return s.publish(q, events, pointer, func(accepted []publish.Accepted) []byte {
		b := append(make([]byte, 0, 160*len(accepted)+16), `{"data":[`...)
		for i := range accepted {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendAccepted(b, &accepted[i])
		}
		return append(b, "]}"...)
	})
}

// testHeader marks the events of a request as tests. It is a header because the
// documented body has no member for it.
const testHeader = "Posthorn-Test"

var testParam = param{testHeader, "true marks the events as tests: receivers get posthorn-test: true, and what comes of them changes neither health nor statistics.", stringSchema()}

// markTests does what the request's Posthorn-Test header asks for.
func markTests(q *request, events []publish.Event) error {
	values := q.Header[testHeader]
	switch {
	case len(values) == 0 || values[0] == "false":
		return nil
	case values[0] != "true":
		return posthorn.Errorf(posthorn.Malformed, "The header %s is true or false.", testHeader)
	}
	for i := range events {
		events[i].Test = true
	}
	return nil
}

// publish finds the tenant and hands the events over. render makes the answer;
// it is called in the commit when the request has an Idempotency-Key.
func (s *server) publish(q *request, events []publish.Event, pointer func(int) string, render func([]publish.Accepted) []byte) (*reply, error) {
	if err := markTests(q, events); err != nil {
		return nil, err
	}
	if err := s.publisher(q, events, pointer); err != nil {
		return nil, err
	}
	var answer func([]publish.Accepted) []byte
	var sealing error
	if q.once != nil {
		if q.once.Tenant != q.tenant.ID {
			q.once.Tenant = q.tenant.ID
			if err := s.Store.LookupOnce(q.Context(), *q.once, q.at); err != nil {
				return nil, err
			}
		}
		answer = func(accepted []publish.Accepted) []byte {
			sealed, err := s.sealAnswer(q.tenant.ID, &reply{status: http.StatusAccepted, body: render(accepted)})
			sealing = err
			return sealed
		}
	}
	accepted, err := s.Publish.Publish(q.Context(), q.tenant, events, pointer, q.once, answer)
	if err != nil {
		return nil, err
	}
	return &reply{status: http.StatusAccepted, body: render(accepted)}, sealing
}

// publisher settles whose events these are: a platform token's by the events'
// own member or the header, a tenant token's always by the token.
func (s *server) publisher(q *request, events []publish.Event, pointer func(int) string) error {
	var faults []posthorn.Fault
	fault := func(i int, detail string) {
		at := "/tenant"
		if pointer != nil {
			at = pointer(i) + at
		}
		faults = append(faults, posthorn.Fault{Pointer: at, Detail: detail})
	}
	name := q.tenant.Name
	for i := range events {
		named := events[i].Tenant
		switch {
		case named == "" && name == "":
			fault(i, "is required with a platform token (or name it by the header "+tenantHeader+")")
		case named == "" || named == name:
		case !q.principal.Platform:
			return posthorn.Errorf(posthorn.Forbidden, "The token belongs to another tenant than the event names.")
		case name == "" && i == 0:
			name = named
		case name == "":
			// The first event's fault is told already.
		default:
			fault(i, "is another tenant than before; the events of a request belong to one")
		}
	}
	if faults == nil && q.tenant.ID == 0 {
		t, err := s.tenantChosen(q, name)
		switch {
		case posthorn.ErrorCode(err) == posthorn.NotFound:
			fault(0, "is not known")
		case err != nil:
			return err
		}
		q.tenant = t
	}
	if faults != nil {
		return &posthorn.Error{Code: posthorn.Invalid, Message: invalidBody, Faults: faults}
	}
	return nil
}

// appendAccepted writes what became of an event. Ids and types hold nothing
// that JSON would escape.
func appendAccepted(b []byte, a *publish.Accepted) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, a.Ref...)
	b = append(b, `","type":"`...)
	b = append(b, a.Type...)
	b = append(b, `","timestamp":"`...)
	b = posthorn.AppendTime(b, a.Timestamp)
	b = append(b, `","deliveries":`...)
	b = strconv.AppendInt(b, int64(a.Deliveries), 10)
	return append(b, '}')
}
