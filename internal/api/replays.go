package api

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Replay sends again what an endpoint did not get.
type Replay struct {
	ID            string       `json:"id" doc:"rpl_ and a ULID." example:"rpl_01J1C6ZGQ6FQTH2X6M2VS3P0XW"`
	Endpoint      string       `json:"endpoint"`
	State         string       `json:"state" enum:"running,paused,completed,canceled" doc:"completed: all was handed over; what was may still be on its way."`
	Since         string       `json:"since" format:"date-time"`
	Until         *string      `json:"until" format:"date-time"`
	Types         []string     `json:"types"`
	States        []string     `json:"states" doc:"Empty with missing."`
	Missing       bool         `json:"missing"`
	RatePerSecond *float64     `json:"rate_per_second"`
	Counts        ReplayCounts `json:"counts"`
	CreatedAt     string       `json:"created_at" format:"date-time"`
	UpdatedAt     string       `json:"updated_at" format:"date-time"`
}

// ReplayCounts are for a progress bar: sent and skipped of total.
type ReplayCounts struct {
	Total     int `json:"total" doc:"Fixed when the replay was made."`
	Sent      int `json:"sent" doc:"Handed to the endpoint's line so far."`
	Skipped   int `json:"skipped" doc:"Could not be sent any more: the data was erased, or it was sent otherwise."`
	Succeeded int `json:"succeeded" doc:"Of those sent."`
	Failed    int `json:"failed" doc:"Of those sent: failed again, canceled or expired, and not succeeded since."`
	Waiting   int `json:"waiting" doc:"Of those sent, not finished yet."`
}

// ReplayPlan is the answer to a dry run.
type ReplayPlan struct {
	DryRun  bool           `json:"dry_run"`
	Total   int            `json:"total" doc:"Exactly what would be sent."`
	Samples []ReplaySample `json:"samples" doc:"The first and the last of them."`
}

// ReplaySample is one of what a replay would send.
type ReplaySample struct {
	Delivery   *string `json:"delivery" doc:"null for one that is missing."`
	Event      string  `json:"event"`
	EventType  string  `json:"event_type"`
	State      *string `json:"state"`
	AcceptedAt string  `json:"accepted_at" format:"date-time"`
}

// ReplayCreate is the body of POST /endpoints/{webhookId}/replays.
type ReplayCreate struct {
	Since         field[time.Time] `json:"since" doc:"Events accepted at this time or later."`
	Until         field[time.Time] `json:"until,omitempty" doc:"Events accepted before this time; all when left out."`
	Types         field[[]string]  `json:"types,omitempty" maxItems:"100" doc:"Event types or patterns; all when left out."`
	States        field[[]string]  `json:"states,omitempty" doc:"succeeded, failed, canceled, expired; failed and expired when left out."`
	Missing       field[bool]      `json:"missing,omitempty" doc:"Send what was never sent because the endpoint did not exist yet, by the event types that it wants now."`
	RatePerSecond field[float64]   `json:"rate_per_second,omitempty" minimum:"0.1" maximum:"1000" doc:"How many are handed over in a second at most."`
	DryRun        field[bool]      `json:"dry_run,omitempty" doc:"Only count, and show samples."`
}

func (s *server) replayOperations() []*operation {
	set := func(verb, past, summary string, to posthorn.ReplayState) *operation {
		return &operation{
			id: verb + "-replay", method: "POST", path: "/replays/{replayId}/" + verb, tag: "Replays", scope: access.ScopeWrite,
			summary: summary, body: noBody(),
			success:  []success{{status: 200, doc: "The replay, " + past + ".", model: reflect.TypeFor[answer[Replay]]()}},
			failures: []posthorn.Code{posthorn.NotFound, posthorn.Conflict},
			handle:   func(q *request) (*reply, error) { return s.setReplay(q, to) },
		}
	}
	return []*operation{{
		id: "create-replay", method: "POST", path: "/endpoints/{webhookId}/replays", tag: "Replays", scope: access.ScopeWrite,
		summary: "Send again what an endpoint did not get",
		description: "What is sent is fixed now; each delivery begins its schedule anew, with the same webhook-id, and new events go first. " +
			"An endpoint has one replay at a time. Test events are never sent again. With dry_run nothing is changed and the answer is 200 with the exact count; a delivery that changes while it counts may be counted as it was or as it is. " +
			"A tenant has one long read at a time, and up to eight that wait; one more is answered 429.",
		body: jsonBody[ReplayCreate](`{"since":"2026-04-29T09:00:00Z","until":"2026-04-29T12:00:00Z","types":["cases.*"],"rate_per_second":50}`),
		success: []success{{status: 201, doc: "The replay.", model: reflect.TypeFor[answer[Replay]](), headers: []string{"Location"}},
			{status: 200, doc: "The dry run.", model: reflect.TypeFor[answer[ReplayPlan]]()}},
		failures: []posthorn.Code{posthorn.NotFound, posthorn.Conflict}, handle: s.createReplay,
	}, {
		id: "list-replays", method: "GET", path: "/replays", tag: "Replays", scope: access.ScopeRead,
		summary: "List replays", description: "Newest first.",
		query:   []param{limitParam, cursorParam, {"endpoint", "An endpoint's id.", stringSchema()}},
		success: []success{{status: 200, doc: "A page of replays.", model: reflect.TypeFor[list[Replay]]()}},
		handle:  s.listReplays,
	}, {
		id: "get-replay", method: "GET", path: "/replays/{replayId}", tag: "Replays", scope: access.ScopeRead,
		summary:  "Get a replay with its counts",
		success:  []success{{status: 200, doc: "The replay.", model: reflect.TypeFor[answer[Replay]]()}},
		failures: []posthorn.Code{posthorn.NotFound}, handle: s.getReplay,
	},
		set("pause", "paused", "Let a replay rest", posthorn.ReplayPaused),
		set("resume", "running", "Let a replay go on", posthorn.ReplayRunning),
		set("cancel", "canceled", "End a replay; what was handed over stays", posthorn.ReplayCanceled),
	}
}

func showReplay(r *posthorn.Replay) Replay {
	shown := Replay{
		ID: r.Ref, Endpoint: r.EndpointRef, State: r.State.String(), Since: posthorn.FormatTime(r.Selection.Since), Until: maybeTime(r.Selection.Until),
		Types: []string{}, States: []string{}, Missing: r.Selection.Missing,
		Counts: ReplayCounts{Total: r.Total, Sent: r.Sent, Skipped: r.Skipped, Succeeded: r.Succeeded, Failed: r.Failed,
			Waiting: max(0, r.Sent-r.Succeeded-r.Failed)},
		CreatedAt: posthorn.FormatTime(r.CreatedAt), UpdatedAt: posthorn.FormatTime(r.UpdatedAt),
	}
	for _, p := range r.Selection.Types {
		shown.Types = append(shown.Types, string(p))
	}
	if !r.Selection.Missing {
		for _, state := range r.Selection.States {
			shown.States = append(shown.States, string(state))
		}
	}
	if rate := r.Selection.RatePerSecond; rate > 0 {
		shown.RatePerSecond = &rate
	}
	return shown
}

// checkStates judges the items of "states".
func checkStates(in *input, states []string, allowed ...string) {
	for i, state := range states {
		if !slices.Contains(allowed, state) {
			in.fault(fmt.Sprintf("/states/%d", i), "must be one of %s", strings.Join(allowed, ", "))
		}
	}
}

// maxTypes bounds the patterns of a selection.
const maxTypes = 100

// checkTypes judges the items of "types".
func checkTypes(in *input, types []string) (patterns []posthorn.Pattern) {
	if len(types) > maxTypes {
		in.fault("/types", "has %d items; at most %d are allowed", len(types), maxTypes)
		return nil
	}
	for i, t := range types {
		if p := posthorn.Pattern(t); p.Valid() {
			patterns = append(patterns, p)
		} else {
			in.fault(fmt.Sprintf("/types/%d", i), "must be an event type or a pattern, as cases.updated or cases.*")
		}
	}
	return patterns
}

func (s *server) readReplay(q *request) (sel posthorn.ReplaySelection, dryRun bool, err error) {
	var body ReplayCreate
	in, err := decode(q.body, &body)
	if err != nil {
		return sel, false, err
	}
	sel = posthorn.ReplaySelection{Since: body.Since.V, Until: body.Until.V, Types: checkTypes(in, body.Types.V), Missing: body.Missing.V, RatePerSecond: body.RatePerSecond.V}
	var names []string
	for _, state := range posthorn.ReplayableStates() {
		names = append(names, string(state))
	}
	checkStates(in, body.States.V, names...)
	for _, state := range body.States.V {
		sel.States = append(sel.States, posthorn.ShownState(state))
	}
	switch {
	case sel.Missing && body.States.Set:
		in.fault("/states", "cannot stand beside missing: what was never sent has no state")
	case !sel.Missing && len(sel.States) == 0:
		sel.States = posthorn.ReplayStates()
	}
	if body.Since.Set && body.Until.Set && in.sound("/since") && in.sound("/until") && !sel.Since.Before(sel.Until) {
		in.fault("/until", "must be after since")
	}
	if r := sel.RatePerSecond; body.RatePerSecond.Set && in.sound("/rate_per_second") && !(r >= 0.1 && r <= 1000) {
		in.fault("/rate_per_second", "must be from 0.1 to 1000")
	}
	return sel, body.DryRun.V, in.err()
}

func (s *server) createReplay(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	sel, dryRun, err := s.readReplay(q)
	if err != nil {
		return nil, err
	}
	plan, err := s.Store.PlanReplay(q.Context(), q.tenant.ID, e.ID, sel)
	if err != nil {
		return nil, missing(err, "endpoint")
	}
	if dryRun {
		return showPlan(&plan)
	}
	render := func(r posthorn.Replay) (*reply, error) {
		rep, err := ok(201, showReplay(&r))
		rep.location = "/replays/" + r.Ref
		return rep, err
	}
	answer := answering(s, q, render)
	r, err := s.Store.CreateReplay(q.Context(), q.change(), posthorn.Replay{
		Ref: posthorn.NewRef(posthorn.ReplayPrefix, q.at), Tenant: q.tenant.ID, Endpoint: e.ID, Selection: sel,
	}, plan, answer)
	if errors.Is(err, store.ErrReplaying) {
		return nil, posthorn.Errorf(posthorn.Conflict, "The endpoint has a replay that is not finished; wait for it, or cancel it (GET /replays?endpoint=%s).", e.Ref)
	}
	if err != nil {
		return nil, missing(err, "endpoint")
	}
	s.wakeReplays()
	return render(r)
}

func (s *server) wakeReplays() {
	if s.WakeReplays != nil {
		s.WakeReplays()
	}
}

func showPlan(plan *store.ReplayPlan) (*reply, error) {
	shown := ReplayPlan{DryRun: true, Total: plan.Total, Samples: make([]ReplaySample, len(plan.Samples))}
	for i, c := range plan.Samples {
		shown.Samples[i] = ReplaySample{Event: c.EventRef, EventType: c.Type, State: maybe(string(c.State)), AcceptedAt: posthorn.FormatTime(c.Accepted)}
		if c.Delivery != 0 {
			shown.Samples[i].Delivery = maybe(c.Delivery.Text(posthorn.DeliveryPrefix))
		}
	}
	return ok(200, shown)
}

func (s *server) listReplays(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	var endpoint int64
	if q.query.has("endpoint") {
		e, err := s.formerEndpoint(q)
		if err != nil {
			return nil, err
		}
		if endpoint = e.ID; endpoint == 0 {
			return listReply(s, q, []Replay{}, 0)
		}
	}
	replays, err := s.Store.Replays(q.Context(), q.tenant.ID, endpoint, before, limit+1)
	if err != nil {
		return nil, err
	}
	next := int64(0)
	if len(replays) > limit {
		replays = replays[:limit]
		next = replays[limit-1].ID
	}
	shown := make([]Replay, len(replays))
	for i := range replays {
		shown[i] = showReplay(&replays[i])
	}
	return listReply(s, q, shown, next)
}

func replayRef(q *request) (string, error) {
	ref := q.PathValue("replayId")
	if !posthorn.ValidRef(posthorn.ReplayPrefix, ref) {
		return "", missing(store.ErrNotFound, "replay")
	}
	return ref, nil
}

func (s *server) getReplay(q *request) (*reply, error) {
	ref, err := replayRef(q)
	if err != nil {
		return nil, err
	}
	r, err := s.Store.ReplayByRef(q.Context(), q.tenant.ID, ref)
	if err != nil {
		return nil, missing(err, "replay")
	}
	return ok(200, showReplay(&r))
}

func (s *server) setReplay(q *request, to posthorn.ReplayState) (*reply, error) {
	ref, err := replayRef(q)
	if err != nil {
		return nil, err
	}
	render := func(r posthorn.Replay) (*reply, error) { return ok(200, showReplay(&r)) }
	answer := answering(s, q, render)
	r, err := s.Store.SetReplay(q.Context(), q.change(), q.tenant.ID, ref, to, answer)
	if errors.Is(err, store.ErrFinal) {
		return nil, posthorn.Errorf(posthorn.Conflict, "The replay is finished already; make another one for what is left.")
	}
	if err != nil {
		return nil, missing(err, "replay")
	}
	s.wakeReplays()
	return render(r)
}
