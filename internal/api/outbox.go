package api

import (
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// OutboxEvent is an event in the outbox, without its data.
type OutboxEvent struct {
	ID        string  `json:"id" doc:"The number that posthorn.publish returned."`
	State     string  `json:"state" enum:"waiting,refused"`
	Tenant    *string `json:"tenant" doc:"null once the tenant is deleted."`
	EventID   *string `json:"event_id" doc:"The id that the publisher gave; null for none."`
	Type      string  `json:"type"`
	At        string  `json:"at" format:"date-time" doc:"When it was published."`
	DeliverAt *string `json:"deliver_at" format:"date-time"`
	RefusedAt *string `json:"refused_at" format:"date-time"`
	Reason    *string `json:"reason" doc:"Why it was refused."`
}

func (s *server) outboxOperations() []*operation {
	unknown := []posthorn.Code{posthorn.NotFound}
	return []*operation{{
		id: "list-outbox", method: "GET", path: "/outbox", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "List the outbox",
		description: "What programs published by the SQL function posthorn.publish and no node has taken yet, or what was refused. Only PostgreSQL has an outbox; on the embedded store it is empty.",
		query: []param{limitParam, cursorParam,
			{"state", "refused (when left out) or waiting.", &huma.Schema{Type: "string", Enum: []any{"refused", "waiting"}}}},
		success: []success{{status: 200, doc: "A page of events, newest first.", model: reflect.TypeFor[list[OutboxEvent]]()}},
		handle:  s.listOutbox,
	}, {
		id: "retry-outbox", method: "POST", path: "/outbox/{outboxId}/retry", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Publish a refused event again",
		description: "For when what it was refused for has been mended. One that waits is left as it is.",
		body:        noBody(),
		success:     []success{{status: 202, doc: "The event, which waits.", model: reflect.TypeFor[answer[OutboxEvent]]()}},
		failures:    unknown,
		handle:      s.retryOutbox,
	}, {
		id: "drop-outbox", method: "DELETE", path: "/outbox/{outboxId}", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Drop a refused event",
		description: "It is never published. One that waits cannot be dropped (409).",
		headers:     []param{preferParam},
		success:     deleted, failures: []posthorn.Code{posthorn.NotFound, posthorn.Conflict},
		handle: s.dropOutbox,
	}}
}

func showOutbox(o *store.OutboxRow) OutboxEvent {
	shown := OutboxEvent{
		ID: strconv.FormatInt(o.ID, 10), State: "waiting", Tenant: maybe(o.TenantName), EventID: maybe(o.Key),
		Type: o.Type, At: posthorn.FormatTime(o.At), DeliverAt: maybeTime(o.DeliverAt),
		RefusedAt: maybeTime(o.RefusedAt), Reason: maybe(o.Reason),
	}
	if !o.RefusedAt.IsZero() {
		shown.State = "refused"
	}
	return shown
}

func (s *server) listOutbox(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	state := q.query.text("state")
	if q.query.has("state") && state != "refused" && state != "waiting" {
		q.query.fault("state must be refused or waiting")
	}
	if err := q.query.err(); err != nil {
		return nil, err
	}
	var rows []store.OutboxRow
	if s.Outbox != nil {
		var err error
		if rows, err = s.Outbox.OutboxRows(q.Context(), state != "waiting", before, limit+1); err != nil {
			return nil, err
		}
	}
	var next int64
	if len(rows) > limit {
		rows = rows[:limit]
		next = rows[limit-1].ID
	}
	shown := make([]OutboxEvent, len(rows))
	for i := range rows {
		shown[i] = showOutbox(&rows[i])
	}
	return listReply(s, q, shown, next)
}

// outboxID reads the id in the path.
func (s *server) outboxID(q *request) (int64, error) {
	text := q.PathValue("outboxId")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 || strconv.FormatInt(id, 10) != text || s.Outbox == nil {
		return 0, missing(store.ErrNotFound, "event in the outbox")
	}
	return id, nil
}

func (s *server) retryOutbox(q *request) (*reply, error) {
	id, err := s.outboxID(q)
	if err != nil {
		return nil, err
	}
	row, err := s.Outbox.OutboxByID(q.Context(), id)
	if err != nil {
		return nil, missing(err, "event in the outbox")
	}
	row.RefusedAt, row.Reason = time.Time{}, ""
	rep, err := ok(http.StatusAccepted, showOutbox(&row))
	if err != nil {
		return nil, err
	}
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	if err := s.Outbox.OutboxRetry(q.Context(), q.change(), id); err != nil {
		return nil, missing(err, "event in the outbox")
	}
	return rep, nil
}

func (s *server) dropOutbox(q *request) (*reply, error) {
	id, err := s.outboxID(q)
	if err != nil {
		return nil, err
	}
	err = s.Outbox.OutboxDrop(q.Context(), q.change(), id)
	switch {
	case errors.Is(err, store.ErrExists):
		return nil, posthorn.Errorf(posthorn.Conflict, "The event waits to be published; only one that was refused can be dropped.")
	case err != nil:
		return nil, missing(err, "event in the outbox")
	}
	return deletedReply(q)
}
