package api

import (
	"context"
	"net/http"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/filter"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// FilterTest is the body of POST …/filter/test.
type FilterTest struct {
	Filter field[string] `json:"filter" maxLength:"4096" doc:"The CEL expression to try."`
}

// FilterTested is what an expression says of recent events.
type FilterTested struct {
	Matching int             `json:"matching" doc:"How many of the events it lets pass."`
	Failed   int             `json:"failed" doc:"On how many it fails: those are delivered too."`
	Events   []FilteredEvent `json:"events"`
}

// FilteredEvent is one event that a filter was tried on.
type FilteredEvent struct {
	ID      string  `json:"id"`
	Type    string  `json:"type"`
	Matches *bool   `json:"matches" doc:"null when the filter fails on it."`
	Error   *string `json:"error" doc:"Why it fails."`
}

const (
	// maxTried bounds the events that a filter is tried on, and maxLooked those
	// among which they are looked for.
	maxTried  = 50
	maxLooked = 1000
)

func (s *server) testFilter(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	var t FilterTest
	in, err := decode(q.body, &t)
	if err != nil {
		return nil, err
	}
	turn, err := s.Publish.TryFilters(q.Context(), q.tenant.ID)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	var f *filter.Filter
	if t.Filter.Set && in.sound("/filter") {
		if f, err = turn.Compile(t.Filter.V); err != nil {
			in.fault("/filter", "%s", err)
		}
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	end, err := s.Store.Walks().Begin(q.Context(), q.tenant.ID)
	if err != nil {
		return nil, err
	}
	defer end()
	events, err := s.recentEvents(q, &e)
	if err != nil {
		return nil, err
	}
	tested := FilterTested{Events: []FilteredEvent{}}
	for _, found := range events {
		// The list has no bodies.
		event, err := s.Store.EventByRef(q.Context(), q.tenant.ID, found.Ref())
		if isMissing(err) {
			continue // its time was over just now
		}
		if err != nil {
			return nil, err
		}
		tested.add(turn, f, &event)
	}
	rep, err := ok(http.StatusOK, tested)
	if err != nil || q.once == nil {
		return rep, err
	}
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	return rep, s.Store.Note(q.Context(), q.change(), q.tenant.ID, store.Audit{Action: "endpoint.filter.test", Subject: e.Ref})
}

func (t *FilterTested) add(turn *publish.FilterTurn, f *filter.Filter, event *posthorn.Event) {
	shown := FilteredEvent{ID: event.Ref(), Type: event.Type}
	data := event.Data()
	if data == nil {
		shown.Error = maybe("the event's data is not kept any more")
		t.Events = append(t.Events, shown)
		return
	}
	matches, err := turn.Match(f, event.Type, data)
	switch {
	case err != nil:
		shown.Error = maybe(err.Error())
		t.Failed++
	default:
		if shown.Matches = &matches; matches {
			t.Matching++
		}
	}
	t.Events = append(t.Events, shown)
}

// recentEvents are the newest events of the endpoint's types.
func (s *server) recentEvents(q *request, e *posthorn.Endpoint) (recent []posthorn.Event, err error) {
	page := store.Page{Limit: maxLimit}
	for range maxLooked / maxLimit {
		var events []posthorn.Event
		var next posthorn.ID
		if err := s.Store.Walks().Slice(q.Context(), q.tenant.ID, func(ctx context.Context) (err error) {
			events, next, err = s.Store.Events(ctx, store.EventFilter{Tenant: q.tenant.ID}, page)
			return err
		}); err != nil {
			return nil, err
		}
		for _, event := range events {
			if !e.Matches(event.Type) {
				continue
			}
			if recent = append(recent, event); len(recent) == maxTried {
				return recent, nil
			}
		}
		if next == 0 {
			return recent, nil
		}
		page.Before = next
	}
	return recent, nil
}
