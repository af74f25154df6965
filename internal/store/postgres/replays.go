package postgres

import (
	"context"
	"fmt"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	replayColumns = `r.id, r.ref, r.tenant, r.endpoint, coalesce(p.ref, ''), r.state, r.selection, r.total, r.sent, r.skipped, r.succeeded, r.failed,
		r.created_at, r.updated_at`
	fromReplays = ` FROM replays r LEFT JOIN endpoints p ON p.id = r.endpoint `
)

func scanReplay(r scanner) (p posthorn.Replay, err error) {
	return p, scanReplayInto(r, &p)
}

func scanReplayInto(r scanner, p *posthorn.Replay, more ...any) error {
	var selection string
	var created, updated int64
	err := r.Scan(append([]any{&p.ID, &p.Ref, &p.Tenant, &p.Endpoint, &p.EndpointRef, &p.State, &selection, &p.Total, &p.Sent, &p.Skipped, &p.Succeeded, &p.Failed,
		&created, &updated}, more...)...)
	if err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = fromNanos(created), fromNanos(updated)
	p.Selection, err = store.DecodeSelection(selection)
	return err
}

// sliceOf is where a slice of the list that a selection is looked for in ends: more is
// false where the list does, before bound.
func sliceOf(ctx context.Context, q querier, e *posthorn.Endpoint, sel *posthorn.ReplaySelection, after, bound posthorn.ID) (end posthorn.ID, more bool, err error) {
	list, owner := `deliveries WHERE endpoint = $1`, e.ID
	if sel.Missing {
		list, owner = `events WHERE tenant = $1`, e.Tenant
	}
	err = q.QueryRow(ctx, `SELECT coalesce(max(id), 0), count(*) = $4 FROM (SELECT id FROM `+list+` AND id > $2 AND id < $3 ORDER BY id LIMIT $4) l`,
		owner, int64(after), int64(bound), store.WalkSlice).Scan((*int64)(&end), &more)
	if !more {
		end = bound
	}
	return end, more, err
}

// walkCandidates calls meet for what the selection finds above after and below
// bound, in the order of a replay; at most limit rows are read. It returns the
// place of the last of those, or 0 when there were fewer. What lies between is a slice
// ([sliceOf]).
func walkCandidates(ctx context.Context, q querier, e *posthorn.Endpoint, sel *posthorn.ReplaySelection, after, bound posthorn.ID, limit int, log bool, meet func(*store.Candidate) error) (last posthorn.ID, err error) {
	until := below(0)
	if !sel.Until.IsZero() {
		until = nanos(sel.Until)
	}
	query := `SELECT d.id, d.event, e.key, e.type, d.state, e.accepted_at, CASE WHEN $7 THEN d.log END
		FROM deliveries d JOIN events e ON e.id = d.event
		WHERE d.endpoint = $1 AND d.id > $2 AND d.id < $3 AND (1 << d.state) & $6 <> 0
		AND e.kind <> 1 AND e.accepted_at >= $4 AND e.accepted_at < $5 ORDER BY d.id LIMIT $8`
	args := []any{e.ID, int64(after), int64(bound), nanos(sel.Since), until, store.SelectedStates(sel), log, limit}
	if sel.Missing {
		query = `SELECT 0::bigint, e.id, e.key, e.type, 0::smallint, e.accepted_at, NULL::bytea FROM events e
			WHERE e.tenant = $6 AND e.id > $2 AND e.id < $3 AND e.kind = 0 AND e.accepted_at >= $4 AND e.accepted_at < $5
			AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.endpoint = $1)
			AND NOT EXISTS (SELECT 1 FROM due d WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.endpoint = $1)
			AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.late AND d.event = e.id AND d.endpoint = $1)
			AND NOT EXISTS (SELECT 1 FROM due d WHERE d.late AND d.event = e.id AND d.endpoint = $1)
			ORDER BY e.id LIMIT $7`
		args = []any{e.ID, int64(after), int64(bound), nanos(sel.Since), min(until, nanos(e.CreatedAt)), e.Tenant, limit}
	}
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	read := 0
	err = eachRow(rows, func(r scanner) error {
		var c store.Candidate
		var event posthorn.Event
		var state posthorn.State
		var accepted int64
		if err := r.Scan((*int64)(&c.Delivery), (*int64)(&event.ID), &event.Key, &c.Type, &state, &accepted, &c.Log); err != nil {
			return err
		}
		c.Event, c.EventRef, c.Accepted = event.ID, event.Ref(), fromNanos(accepted)
		if read++; read == limit {
			last = c.Place()
		}
		if !sel.WantsType(c.Type) || sel.Missing && !e.Matches(c.Type) {
			return nil
		}
		if !sel.Missing {
			c.State = posthorn.ShownState(state.String())
		}
		return meet(&c)
	})
	return last, err
}

// livingEndpoint finds an endpoint that was not deleted.
func livingEndpoint(ctx context.Context, q querier, tenant, endpoint int64) (e posthorn.Endpoint, err error) {
	rows, err := q.Query(ctx, `SELECT `+endpointColumns+` FROM endpoints WHERE id = $1 AND tenant = $2 AND deleted_at = 0`, endpoint, tenant)
	if err != nil {
		return e, err
	}
	err = eachRow(rows, func(r scanner) (err error) {
		e, err = scanEndpoint(r)
		return err
	})
	if err == nil && e.ID == 0 {
		err = store.ErrNotFound
	}
	return e, err
}

// PlanReplay implements [store.Replays].
func (s *Store) PlanReplay(ctx context.Context, tenant, endpoint int64, sel posthorn.ReplaySelection) (plan store.ReplayPlan, err error) {
	end, err := s.walks.Begin(ctx, tenant)
	if err != nil {
		return plan, err
	}
	defer end()
	// Before anything is looked at: what ends later is none of the replay's.
	plan.At = s.now()
	var e posthorn.Endpoint
	var after posthorn.ID
	for first, more := true, true; more; first = false {
		err = s.walks.Slice(ctx, tenant, func(ctx context.Context) (err error) {
			q := s.reader(ctx)
			if first {
				if e, err = beginPlan(ctx, q, tenant, endpoint, &sel, &plan); err != nil {
					return err
				}
				after = plan.From
			}
			var last posthorn.ID
			if last, more, err = sliceOf(ctx, q, &e, &sel, after, plan.Bound); err != nil {
				return err
			}
			_, err = walkCandidates(ctx, q, &e, &sel, after, min(plan.Bound, last+1), noLimit, false, func(c *store.Candidate) error {
				plan.Plan(c)
				return nil
			})
			after = last
			return err
		})
		if err != nil {
			return store.ReplayPlan{}, fmt.Errorf("plan a replay: %w", s.planError(ctx, err))
		}
	}
	return plan, nil
}

// beginPlan fixes the bounds of a plan, and returns the endpoint.
func beginPlan(ctx context.Context, q querier, tenant, endpoint int64, sel *posthorn.ReplaySelection, plan *store.ReplayPlan) (posthorn.Endpoint, error) {
	e, err := livingEndpoint(ctx, q, tenant, endpoint)
	if err != nil {
		return e, err
	}
	var last int64
	if err := q.QueryRow(ctx, `SELECT greatest((SELECT max(id) FROM events), (SELECT max(id) FROM due), (SELECT max(id) FROM deliveries), 0)`).Scan(&last); err != nil {
		return e, err
	}
	plan.Bound = posthorn.ID(last) + 1
	if !sel.Since.IsZero() {
		plan.From = posthorn.MakeID(sel.Since, 0, 0) - 1
	}
	return e, nil
}

// planError leaves what the store means and names the rest.
func (s *Store) planError(ctx context.Context, err error) error {
	if err == nil || err == store.ErrNotFound {
		return err
	}
	return s.readError(ctx, err)
}

// CreateReplay implements [store.Replays]. Of two that are made at a time one meets
// a unique violation, is repeated, and finds the other.
func (s *Store) CreateReplay(ctx context.Context, c store.Change, r posthorn.Replay, plan store.ReplayPlan, answer func(posthorn.Replay) []byte) (posthorn.Replay, error) {
	selection, err := store.EncodeSelection(&r.Selection)
	if err != nil {
		return r, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		found, err := tx.row(`SELECT ref FROM endpoints WHERE id = $1 AND tenant = $2 AND deleted_at = 0`, []any{r.Endpoint, r.Tenant}, &r.EndpointRef)
		if err != nil {
			return err
		}
		if !found {
			return store.ErrNotFound
		}
		var running bool
		if _, err = tx.row(`SELECT EXISTS (SELECT 1 FROM replays WHERE endpoint = $1 AND state < 2)`, []any{r.Endpoint}, &running); err != nil {
			return err
		}
		if running {
			return store.ErrReplaying
		}
		r.State, r.Total, r.CreatedAt, r.UpdatedAt = posthorn.ReplayRunning, plan.Total, plan.At.UTC(), plan.At.UTC()
		if plan.Total == 0 {
			r.State = posthorn.ReplayCompleted
		}
		if _, err = tx.row(`INSERT INTO replays (tenant, endpoint, ref, state, selection, bound, cursor, total, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id`, []any{r.Tenant, r.Endpoint, r.Ref, int64(r.State), selection, int64(plan.Bound), int64(plan.From),
			plan.Total, nanos(r.CreatedAt), nanos(r.UpdatedAt)}, &r.ID); err != nil {
			return err
		}
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(r)
		}
		return tx.audit(c, r.Tenant, store.AuditReplay(&r))
	})
	return r, err
}

// ReplayByRef implements [store.Replays].
func (s *Store) ReplayByRef(ctx context.Context, tenant int64, ref string) (posthorn.Replay, error) {
	return one(ctx, s, scanReplay, `SELECT `+replayColumns+fromReplays+`WHERE r.ref = $1 AND r.tenant = $2`, ref, tenant)
}

// Replays implements [store.Replays].
func (s *Store) Replays(ctx context.Context, tenant, endpoint, before int64, limit int) ([]posthorn.Replay, error) {
	return all(ctx, s, s.other, scanReplay, `SELECT `+replayColumns+fromReplays+`WHERE r.tenant = $1 AND r.id < $2 AND ($3 = 0 OR r.endpoint = $3) ORDER BY r.id DESC LIMIT $4`,
		tenant, below(before), endpoint, limit)
}

// RunningReplays implements [store.Replays]. Those of paused endpoints and
// suspended tenants are left out, and those that another living run works on, or
// whose endpoint's lane it has.
func (s *Store) RunningReplays(ctx context.Context, after int64, limit int) ([]posthorn.Replay, error) {
	run, _, err := s.lease.working()
	if err != nil {
		return nil, nil // nothing can be done between two runs
	}
	return all(ctx, s, s.other, scanReplay, `SELECT `+replayColumns+fromReplays+`LEFT JOIN tenants t ON t.id = r.tenant
		WHERE r.state = 0 AND r.state < 2 AND r.id > $1 AND coalesce(p.status, 'active') = 'active' AND coalesce(t.suspended_at, 0) = 0
		AND NOT EXISTS (SELECT 1 FROM runs u WHERE u.id = coalesce((SELECT l.run FROM lanes l WHERE l.endpoint = r.endpoint), r.run)
			AND u.id <> $3 AND u.taken_at = 0) ORDER BY r.id LIMIT $2`, after, limit, run)
}

// SetReplay implements [store.Replays].
func (s *Store) SetReplay(ctx context.Context, c store.Change, tenant int64, ref string, state posthorn.ReplayState, answer func(posthorn.Replay) []byte) (r posthorn.Replay, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		r = posthorn.Replay{}
		if err := tx.rows(`SELECT `+replayColumns+fromReplays+`WHERE r.ref = $1 AND r.tenant = $2 FOR UPDATE OF r`, []any{ref, tenant}, func(row scanner) (err error) {
			r, err = scanReplay(row)
			return err
		}); err != nil {
			return err
		}
		if r.ID == 0 {
			return store.ErrNotFound
		}
		changed, err := store.NextReplayState(r.State, state)
		if err != nil {
			return err
		}
		if changed {
			before := r.State
			r.State, r.UpdatedAt = state, c.At.UTC()
			if err := tx.exec(`UPDATE replays SET state = $2, updated_at = $3 WHERE id = $1`, r.ID, int64(state), nanos(c.At)); err != nil {
				return err
			}
			if err := tx.audit(c, tenant, store.AuditReplayState(ref, before, state)); err != nil {
				return err
			}
		}
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(r)
		}
		return nil
	})
	return r, err
}
