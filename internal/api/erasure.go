package api

import (
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Deletion is what the deletion of a tenant has erased so far.
type Deletion struct {
	Tenant       string  `json:"tenant" doc:"Its name, which may belong to another tenant by now."`
	DeletedAt    string  `json:"deleted_at" format:"date-time"`
	CompletedAt  *string `json:"completed_at" format:"date-time" doc:"When nothing was left of it; null before."`
	Endpoints    int64   `json:"endpoints"`
	Secrets      int64   `json:"secrets" doc:"Of its endpoints."`
	Tokens       int64   `json:"tokens"`
	Events       int64   `json:"events" doc:"Erased so far."`
	PayloadBytes int64   `json:"payload_bytes" doc:"Of the events erased so far."`
	Deliveries   int64   `json:"deliveries" doc:"Erased so far, with their attempts."`
}

func (s *server) erasureOperations() []*operation {
	return []*operation{{
		id: "erase-event-payload", method: "DELETE", path: "/events/{eventId}/payload", tag: "Events", scope: access.ScopeWrite,
		summary: "Erase the payload of an event",
		description: "For good: its data is null from now on, what waits of it is canceled, and it cannot be sent again. " +
			"What receivers answered is erased too, as it may repeat the payload. The event and its deliveries stay in the log, and its id stays taken. " +
			"To erase it again changes nothing. The embedded store answers when no byte of it is in its file or log any more, " +
			"or, where somebody has read its file for five seconds (a backup does), by 202: the rest is erased when that ends, " +
			"which the event's payload_state says, and so does asking again.",
		headers:  []param{preferParam},
		success:  append(slices.Clone(deleted), success{status: 202, doc: "It is being erased: ask again after Retry-After.", model: reflect.TypeFor[answer[Event]](), headers: []string{"Retry-After"}}),
		failures: []posthorn.Code{posthorn.NotFound}, handle: s.erasePayload,
	}, {
		id: "list-deletions", method: "GET", path: "/deletions", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "List deleted tenants and what was erased of them",
		description: "A tenant is unknown as soon as it is deleted; the rest is erased in the background. The newest tenant comes first.",
		query:       []param{limitParam, cursorParam},
		success:     []success{{status: 200, doc: "A page of deletions.", model: reflect.TypeFor[list[Deletion]]()}},
		handle:      s.listDeletions,
	}}
}

func (s *server) erasePayload(q *request) (*reply, error) {
	ref := q.PathValue("eventId")
	if !validEventRef(ref) {
		return nil, missing(store.ErrNotFound, "event")
	}
	e, err := s.Store.ErasePayload(q.Context(), q.change(), q.tenant.ID, ref)
	if err != nil {
		return nil, missing(err, "event")
	}
	if e.Event.Erasing {
		rep, err := ok(http.StatusAccepted, showEvent(&e.Event))
		rep.retryAfter = erasingAgain
		return rep, err
	}
	return deletedReply(q)
}

// erasingAgain is when it is worth asking again whether a payload is erased.
const erasingAgain = 5 * time.Second

func (s *server) listDeletions(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	all, err := s.Store.Deletions(q.Context(), before, limit+1)
	if err != nil {
		return nil, err
	}
	var next int64
	if len(all) > limit {
		all = all[:limit]
		next = all[limit-1].Tenant
	}
	shown := make([]Deletion, len(all))
	for i := range all {
		d := &all[i]
		shown[i] = Deletion{
			Tenant: d.Name, DeletedAt: posthorn.FormatTime(d.DeletedAt), CompletedAt: maybeTime(d.CompletedAt),
			Endpoints: d.Endpoints, Secrets: d.Secrets, Tokens: d.Tokens,
			Events: d.Events, PayloadBytes: d.PayloadBytes, Deliveries: d.Deliveries,
		}
	}
	return listReply(s, q, shown, next)
}
