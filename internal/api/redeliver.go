package api

import (
	"errors"
	"reflect"
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Lanes is the engine's part in sending again: what waits in its memory is let go
// of before the store moves it.
type Lanes interface {
	// Recall lets go of a delivery that waits in memory and reports whether there
	// was one.
	Recall(endpoint int64, id posthorn.ID) (store.Hold, bool)
	// GiveBack undoes a Recall.
	GiveBack(endpoint int64, h store.Hold)
	// Wake has what is due looked for at once.
	Wake()
}

// EventResend is the body of POST /events/{eventId}/resend.
type EventResend struct {
	Endpoint field[string] `json:"endpoint,omitempty" doc:"Resend to this endpoint only." example:"wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW"`
}

// Resent is what became of a resend.
type Resent struct {
	ID         string           `json:"id" doc:"The event's id."`
	Queued     int              `json:"queued" doc:"How many deliveries will be attempted now."`
	Deliveries []ResentDelivery `json:"deliveries"`
}

// ResentDelivery is one delivery of an event that was resent.
type ResentDelivery struct {
	ID      string  `json:"id"`
	Queued  bool    `json:"queued"`
	Refused *string `json:"refused" doc:"Why it is not attempted now."`
}

// EventCanceled is what became of the cancellation of an event.
type EventCanceled struct {
	ID       string `json:"id"`
	Canceled int    `json:"canceled" doc:"How many deliveries were waiting and are canceled now."`
}

func (s *server) redeliveryOperations() []*operation {
	conflict := []posthorn.Code{posthorn.NotFound, posthorn.Conflict}
	return []*operation{{
		id: "retry-delivery", method: "POST", path: "/deliveries/{deliveryId}/retry", tag: "Deliveries", scope: access.ScopeWrite,
		summary: "Attempt a delivery once more, now",
		description: "Works in any state, with the same webhook-id. A success makes it succeeded; a failure leaves a final state as it is. " +
			"Of a waiting delivery the next attempt is moved to now, of a paused endpoint too; of an ordered endpoint it is made when its turn comes. " +
			"The answer means queued, not delivered.",
		body:     noBody(),
		success:  []success{{status: 202, doc: "The delivery, queued.", model: reflect.TypeFor[answer[Delivery]]()}},
		failures: conflict, handle: s.retryDelivery,
	}, {
		id: "cancel-delivery", method: "POST", path: "/deliveries/{deliveryId}/cancel", tag: "Deliveries", scope: access.ScopeWrite,
		summary: "Cancel a delivery that waits",
		description: "No new attempt begins. One that is being made ends; if the receiver acknowledges it, the delivery is succeeded. " +
			"One that had ended, and was to be attempted once more by hand, is again what it was.",
		body:     noBody(),
		success:  []success{{status: 200, doc: "The delivery as it is now: canceled, or as it was before a retry.", model: reflect.TypeFor[answer[Delivery]]()}},
		failures: conflict, handle: s.cancelDelivery,
	}, {
		id: "resend-event", method: "POST", path: "/events/{eventId}/resend", tag: "Events", scope: access.ScopeWrite,
		summary:     "Attempt the deliveries of an event once more, now",
		description: "To one endpoint or to all that it went to, as POST /deliveries/{deliveryId}/retry does.",
		body:        optional(jsonBody[EventResend](`{}`)),
		success:     []success{{status: 202, doc: "What was queued.", model: reflect.TypeFor[answer[Resent]]()}},
		failures:    conflict, handle: s.resendEvent,
	}, {
		id: "cancel-event", method: "POST", path: "/events/{eventId}/cancel", tag: "Events", scope: access.ScopeWrite,
		summary:  "Cancel all deliveries of an event that wait",
		body:     noBody(),
		success:  []success{{status: 200, doc: "How many were canceled.", model: reflect.TypeFor[answer[EventCanceled]]()}},
		failures: []posthorn.Code{posthorn.NotFound}, handle: s.cancelEvent,
	}}
}

// refusal says why a delivery is not sent again or not canceled, and what to do.
func refusal(err error) string {
	switch {
	case errors.Is(err, store.ErrInFlight):
		return "An attempt is being made, or is about to be; wait for it and look again."
	case errors.Is(err, store.ErrSuspended):
		return "The tenant is suspended and nothing is sent for it; repeat this when an operator has resumed it."
	case errors.Is(err, store.ErrGone):
		return "The endpoint was deleted; nothing can be sent to it any more."
	case errors.Is(err, store.ErrErased):
		return "The event's data is not kept any more, so it cannot be sent again."
	case errors.Is(err, store.ErrFinal):
		return "The delivery is finished already, so there is nothing to cancel."
	}
	return ""
}

// conflictOr makes a refusal a 409.
func conflictOr(err error, what string) error {
	if text := refusal(err); text != "" {
		return posthorn.Errorf(posthorn.Conflict, "%s", text)
	}
	return missing(err, what)
}

// recalled is a delivery that the engine let go of.
type recalled struct {
	endpoint int64
	hold     store.Hold
}

// recall has the engine let go of those that wait in its memory.
func (s *server) recall(pending []posthorn.Delivery) (held []recalled) {
	if s.Lanes == nil {
		return nil
	}
	for _, d := range pending {
		if d.Progress.State != posthorn.Pending {
			continue
		}
		if h, ok := s.Lanes.Recall(d.Endpoint, d.ID); ok {
			held = append(held, recalled{d.Endpoint, h})
		}
	}
	return held
}

// retry has the store open what the order names. What the engine let go of is given
// back unless the store has moved it, or will when it knows what became of its
// commit.
func (s *server) retry(q *request, o store.RetryOrder, known []posthorn.Delivery, answer func([]store.Retried) []byte) ([]store.Retried, error) {
	held := s.recall(known)
	for _, r := range held {
		o.Held = append(o.Held, r.hold)
	}
	list, err := s.Store.Retry(q.Context(), q.change(), o, answer)
	for _, r := range held {
		moved := slices.ContainsFunc(list, func(d store.Retried) bool { return d.ID == r.hold.ID && d.Refused == nil })
		if !moved && !errors.Is(err, store.ErrUnsettled) {
			s.Lanes.GiveBack(r.endpoint, r.hold)
		}
	}
	if err == nil && s.Lanes != nil {
		s.Lanes.Wake()
	}
	return list, err
}

func (s *server) delivery(q *request) (posthorn.Delivery, error) {
	id, valid := posthorn.ParseID(posthorn.DeliveryPrefix, q.PathValue("deliveryId"))
	if !valid {
		return posthorn.Delivery{}, missing(store.ErrNotFound, "delivery")
	}
	d, err := s.Store.DeliveryByID(q.Context(), q.tenant.ID, id)
	return d, missing(err, "delivery")
}

// answering makes the function that the store calls with what it did, before the
// commit: it renders the reply and seals it to be remembered. What cannot be
// rendered is not remembered; the handler renders it again and fails.
func answering[T any](s *server, q *request, render func(T) (*reply, error)) func(T) []byte {
	return func(v T) []byte {
		rep, err := render(v)
		if err != nil || q.once == nil {
			return nil
		}
		sealed, err := s.sealAnswer(q.once.Tenant, rep)
		if err != nil {
			return nil
		}
		return sealed
	}
}

func (s *server) retryDelivery(q *request) (*reply, error) {
	d, err := s.delivery(q)
	if err != nil {
		return nil, err
	}
	render := func(list []store.Retried) (*reply, error) {
		d := d
		d.Progress, d.Held, d.Reason = list[0].Progress, false, ""
		return ok(202, showDelivery(&d))
	}
	answer := answering(s, q, render)
	list, err := s.retry(q, store.RetryOrder{Tenant: q.tenant.ID, Delivery: d.ID}, []posthorn.Delivery{d}, answer)
	if err != nil {
		return nil, conflictOr(err, "delivery")
	}
	return render(list)
}

func (s *server) cancelDelivery(q *request) (*reply, error) {
	d, err := s.delivery(q)
	if err != nil {
		return nil, err
	}
	render := func(e store.Ended) (*reply, error) {
		d := d
		d.Progress, d.Held, d.Reason = e.Progress, false, e.Reason
		return ok(200, showDelivery(&d))
	}
	answer := answering(s, q, render)
	e, err := s.Store.CancelDelivery(q.Context(), q.change(), q.tenant.ID, d.ID, answer)
	if errors.Is(err, store.ErrFinal) && d.Progress.State == posthorn.Canceled {
		return ok(200, showDelivery(&d)) // it is so already
	}
	if err != nil {
		return nil, conflictOr(err, "delivery")
	}
	return render(e)
}

// event finds the event that the path names.
func (s *server) event(q *request) (posthorn.Event, error) {
	ref := q.PathValue("eventId")
	if !validEventRef(ref) {
		return posthorn.Event{}, missing(store.ErrNotFound, "event")
	}
	e, err := s.Store.EventByRef(q.Context(), q.tenant.ID, ref)
	return e, missing(err, "event")
}

func (s *server) resendEvent(q *request) (*reply, error) {
	e, err := s.event(q)
	if err != nil {
		return nil, err
	}
	order := store.RetryOrder{Tenant: q.tenant.ID, Event: e.ID}
	if order.Endpoint, err = s.resendTo(q); err != nil {
		return nil, err
	}
	known, _, err := s.Store.Deliveries(q.Context(), store.DeliveryFilter{Tenant: q.tenant.ID, Event: e.ID, Endpoint: order.Endpoint}, store.Page{Limit: store.PageRows, Snippet: 1})
	if err != nil {
		return nil, err
	}
	render := func(list []store.Retried) (*reply, error) {
		shown := Resent{ID: e.Ref(), Deliveries: make([]ResentDelivery, len(list))}
		for i, r := range list {
			shown.Deliveries[i] = ResentDelivery{ID: r.ID.Text(posthorn.DeliveryPrefix), Queued: r.Refused == nil, Refused: maybe(refusal(r.Refused))}
			if r.Refused == nil {
				shown.Queued++
			}
		}
		return ok(202, shown)
	}
	answer := answering(s, q, render)
	list, err := s.retry(q, order, known, answer)
	if isMissing(err) {
		return nil, posthorn.Errorf(posthorn.Conflict, "The event was not sent there: no endpoint that it went to is left, or it did not match this one. "+
			"For an endpoint that did not exist yet, POST /endpoints/{webhookId}/replays with \"missing\": true.")
	}
	if err != nil {
		return nil, conflictOr(err, "event")
	}
	return render(list)
}

// resendTo is the endpoint that the body names, 0 for all.
func (s *server) resendTo(q *request) (int64, error) {
	var body EventResend
	if len(q.body) == 0 {
		return 0, nil
	}
	in, err := decode(q.body, &body)
	if err != nil {
		return 0, err
	}
	var e posthorn.Endpoint
	if body.Endpoint.Set && in.sound("/endpoint") {
		if e, err = s.Store.EndpointByRef(q.Context(), q.tenant.ID, body.Endpoint.V); isMissing(err) {
			in.fault("/endpoint", "is no endpoint of the tenant")
		} else if err != nil {
			return 0, err
		}
	}
	return e.ID, in.err()
}

func (s *server) cancelEvent(q *request) (*reply, error) {
	e, err := s.event(q)
	if err != nil {
		return nil, err
	}
	render := func(n int) (*reply, error) { return ok(200, EventCanceled{ID: e.Ref(), Canceled: n}) }
	answer := answering(s, q, render)
	n, err := s.Store.CancelEvent(q.Context(), q.change(), q.tenant.ID, e.ID, answer)
	if err != nil {
		return nil, missing(err, "event")
	}
	return render(n)
}
