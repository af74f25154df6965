package api

import (
	"reflect"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// PendingCancel is the body of POST /endpoints/{webhookId}/cancel-pending.
type PendingCancel struct {
	States field[[]string]  `json:"states,omitempty" doc:"pending, held or both; both when left out." example:"[\"held\"]"`
	Types  field[[]string]  `json:"types,omitempty" maxItems:"100" doc:"Event types or patterns; all when left out."`
	Until  field[time.Time] `json:"until,omitempty" doc:"Only what was accepted before; now when left out."`
	DryRun field[bool]      `json:"dry_run,omitempty" doc:"Only count."`
}

// PendingCanceled is what became of a cancellation.
type PendingCanceled struct {
	Canceled int    `json:"canceled" doc:"How many are canceled now; with dry_run how many would be."`
	More     bool   `json:"more" doc:"There are more: send the same request again, with until as it is here."`
	Until    string `json:"until" format:"date-time"`
	DryRun   bool   `json:"dry_run"`
}

const (
	// cancelSlice is what one commit cancels, cancelRequest what one request does.
	cancelSlice   = 1000
	cancelRequest = 20_000
)

func (s *server) cancelPendingOperation() *operation {
	return &operation{
		id: "cancel-pending", method: "POST", path: "/endpoints/{webhookId}/cancel-pending", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Cancel what waits for an endpoint",
		description: "Cancels at most 20,000 deliveries; more tells that the same request is to be sent again. dry_run counts exactly; what changes while it counts may be counted as it was or as it is.",
		body:        optional(jsonBody[PendingCancel](`{"types":["cases.*"],"dry_run":true}`)),
		success:     []success{{status: 200, doc: "How many were canceled.", model: reflect.TypeFor[answer[PendingCanceled]]()}},
		failures:    []posthorn.Code{posthorn.NotFound}, handle: s.cancelPending,
	}
}

func (s *server) cancelPending(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	f, body, err := s.readPending(q, &e)
	if err != nil {
		return nil, err
	}
	shown := PendingCanceled{Until: posthorn.FormatTime(f.Until), DryRun: body.DryRun.V}
	held := !e.Active() || !q.tenant.SuspendedAt.IsZero()
	if n := len(body.States.V); n > 0 && !slices.Contains(body.States.V, map[bool]string{true: "held", false: "pending"}[held]) {
		return ok(200, shown) // nothing is in that state
	}
	if shown.DryRun {
		if shown.Canceled, err = s.Store.CountPending(q.Context(), f); err != nil {
			return nil, err
		}
		return ok(200, shown)
	}
	for {
		change := q.change()
		change.Once = nil
		n, more, err := s.Store.CancelPending(q.Context(), change, f, cancelSlice, nil)
		if err != nil {
			return nil, err
		}
		shown.Canceled, shown.More = shown.Canceled+n, more
		if !more || shown.Canceled >= cancelRequest {
			return s.rememberPending(q, f, shown)
		}
	}
}

// rememberPending commits the answer for a request with an Idempotency-Key, which
// may have taken several commits: repeated after a crash it goes on.
func (s *server) rememberPending(q *request, f store.CancelFilter, shown PendingCanceled) (*reply, error) {
	rep, err := ok(200, shown)
	if err != nil || q.once == nil {
		return rep, err
	}
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	_, _, err = s.Store.CancelPending(q.Context(), q.change(), f, 0, nil)
	return rep, err
}

func (s *server) readPending(q *request, e *posthorn.Endpoint) (store.CancelFilter, *PendingCancel, error) {
	f := store.CancelFilter{Tenant: q.tenant.ID, Endpoint: e.ID, Until: q.at}
	var body PendingCancel
	if len(q.body) == 0 {
		return f, &body, nil
	}
	in, err := decode(q.body, &body)
	if err != nil {
		return f, nil, err
	}
	checkStates(in, body.States.V, "pending", "held")
	f.Types = checkTypes(in, body.Types.V)
	if body.Until.Set {
		f.Until = body.Until.V
	}
	return f, &body, in.err()
}
