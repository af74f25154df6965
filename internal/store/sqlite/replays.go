package sqlite

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

// candidateList is the list that a selection is looked for in.
func (s *Store) candidateList(tenant, endpoint int64, sel *posthorn.ReplaySelection) *listing {
	if sel.Missing {
		return s.listing(eventsOf(tenant))
	}
	return s.listing(deliveriesOf(endpoint))
}

// walkCandidates calls meet for what the selection finds above after and below
// bound, in the order of a replay, until meet returns store.ErrPageFull. It looks at a
// slice of the list: left is not 0 where that ended first, and nothing above left was
// looked at.
func (l *listing) walkCandidates(ctx context.Context, q querier, e *posthorn.Endpoint, sel *posthorn.ReplaySelection, after, bound posthorn.ID, log bool, meet func(*store.Candidate) error) (left posthorn.ID, err error) {
	until := below(0)
	if !sel.Until.IsZero() {
		until = nanos(sel.Until)
	}
	query := `SELECT d.id, d.event, e.key, e.type, d.state, e.accepted_at, CASE WHEN ?5 THEN d.log END
		FROM deliveries d CROSS JOIN events e ON e.id = d.event
		WHERE d.id IN ` + listed + ` AND d.place = 0 AND (1 << d.state) & ?4 <> 0
		AND e.kind <> 1 AND e.accepted_at >= ?2 AND e.accepted_at < ?3 ORDER BY d.id LIMIT ?6`
	args := []any{nanos(sel.Since), until, store.SelectedStates(sel), log, listSliceMost}
	if sel.Missing {
		query = `SELECT 0, e.id, e.key, e.type, 0, e.accepted_at, NULL FROM events e
			WHERE e.id IN ` + listed + ` AND e.kind = 0 AND e.accepted_at >= ?2 AND e.accepted_at < ?3
			AND NOT EXISTS (SELECT 1 FROM deliveries d NOT INDEXED WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.endpoint = ?4)
			AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_late_event WHERE d.late = 1 AND d.event = e.id AND d.endpoint = ?4)
			ORDER BY e.id LIMIT ?5`
		args = []any{nanos(sel.Since), min(until, nanos(e.CreatedAt)), e.ID, listSliceMost}
	}
	scan := func(r scanner) error {
		var c store.Candidate
		var event posthorn.Event
		var state posthorn.State
		var accepted int64
		if err := r.Scan((*int64)(&c.Delivery), (*int64)(&event.ID), &event.Key, &c.Type, &state, &accepted, &c.Log); err != nil {
			return err
		}
		if !sel.WantsType(c.Type) || sel.Missing && !e.Matches(c.Type) {
			return nil
		}
		c.Event, c.EventRef, c.Accepted = event.ID, event.Ref(), fromNanos(accepted)
		if !sel.Missing {
			c.State = posthorn.ShownState(state.String())
		}
		return meet(&c)
	}
	looked := 0
	err = l.oldest(ctx, q, int64(after), int64(bound), func(ids []int64) error {
		if looked >= store.WalkSlice {
			return errLookedEnough
		}
		looked += len(ids)
		left = posthorn.ID(ids[len(ids)-1])
		return fill(ctx, q, query, append([]any{encodeIDs(ids)}, args...), scan)
	})
	if err == errLookedEnough {
		return left, nil
	}
	return 0, pageEnd(err)
}

// livingEndpoint finds an endpoint that was not deleted.
func livingEndpoint(ctx context.Context, q querier, tenant, endpoint int64) (e posthorn.Endpoint, err error) {
	found, err := all(ctx, q, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoints WHERE id = ? AND tenant = ? AND deleted_at = 0`, endpoint, tenant)
	if err == nil && len(found) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return e, err
	}
	return found[0], nil
}

// PlanReplay implements [store.Replays].
func (s *Store) PlanReplay(ctx context.Context, tenant, endpoint int64, sel posthorn.ReplaySelection) (plan store.ReplayPlan, err error) {
	end, err := s.walks.Begin(ctx, tenant)
	if err != nil {
		return plan, err
	}
	defer end()
	// Before anything is looked at: what ends later is none of the replay's.
	plan.At = s.writer.now()
	var e posthorn.Endpoint
	after := posthorn.ID(0)
	for first := true; first || after != 0; first = false {
		err = s.walks.Slice(ctx, tenant, func(ctx context.Context) error {
			list := s.candidateList(tenant, endpoint, &sel)
			return s.snapshot(ctx, func(q querier) (err error) {
				if first {
					if e, err = beginPlan(ctx, q, tenant, endpoint, &sel, &plan); err != nil {
						return err
					}
					after = plan.From
				}
				after, err = list.walkCandidates(ctx, q, &e, &sel, after, plan.Bound, false, func(c *store.Candidate) error {
					plan.Plan(c)
					return nil
				})
				return err
			})
		})
		if err != nil {
			return store.ReplayPlan{}, fmt.Errorf("plan a replay: %w", err)
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
	if err := q.QueryRowContext(ctx, `SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(id) FROM deliveries), 0))`).Scan(&last); err != nil {
		return e, readError(ctx, err)
	}
	plan.Bound = posthorn.ID(last) + 1
	if !sel.Since.IsZero() {
		plan.From = posthorn.MakeID(sel.Since, 0, 0) - 1
	}
	return e, nil
}

// CreateReplay implements [store.Replays].
func (s *Store) CreateReplay(ctx context.Context, c store.Change, r posthorn.Replay, plan store.ReplayPlan, answer func(posthorn.Replay) []byte) (posthorn.Replay, error) {
	selection, err := store.EncodeSelection(&r.Selection)
	if err != nil {
		return r, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		found, err := tx.row(`SELECT ref FROM endpoints WHERE id = ? AND tenant = ? AND deleted_at = 0`, []any{r.Endpoint, r.Tenant}, &r.EndpointRef)
		if err != nil {
			return err
		}
		if !found {
			return refuse(store.ErrNotFound)
		}
		var running int64
		if found, err = tx.row(`SELECT id FROM replays INDEXED BY replays_open WHERE endpoint = ? AND state < 2`, []any{r.Endpoint}, &running); err != nil {
			return err
		}
		if found {
			return refuse(store.ErrReplaying)
		}
		r.State, r.Total, r.CreatedAt, r.UpdatedAt = posthorn.ReplayRunning, plan.Total, plan.At.UTC(), plan.At.UTC()
		if plan.Total == 0 {
			r.State = posthorn.ReplayCompleted
		}
		if r.ID, err = tx.insert(`INSERT INTO replays (tenant, endpoint, ref, state, selection, bound, cursor, total, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, r.Tenant, r.Endpoint, r.Ref, int64(r.State), selection, int64(plan.Bound), int64(plan.From), plan.Total,
			nanos(r.CreatedAt), nanos(r.UpdatedAt)); err != nil {
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
	return one(ctx, s, scanReplay, `SELECT `+replayColumns+fromReplays+`WHERE r.ref = ? AND r.tenant = ?`, ref, tenant)
}

// Replays implements [store.Replays].
func (s *Store) Replays(ctx context.Context, tenant, endpoint, before int64, limit int) ([]posthorn.Replay, error) {
	return all(ctx, s.readers, scanReplay, `SELECT `+replayColumns+fromReplays+`WHERE r.tenant = ? AND r.id < ? AND ?3 IN (0, r.endpoint) ORDER BY r.id DESC LIMIT ?4`,
		tenant, below(before), endpoint, limit)
}

// RunningReplays implements [store.Replays]. Those of paused endpoints and
// suspended tenants are left out.
func (s *Store) RunningReplays(ctx context.Context, after int64, limit int) ([]posthorn.Replay, error) {
	return all(ctx, s.readers, scanReplay, `SELECT `+replayColumns+` FROM replays r INDEXED BY replays_open
		LEFT JOIN endpoints p ON p.id = r.endpoint LEFT JOIN tenants t ON t.id = r.tenant
		WHERE r.state = 0 AND r.state < 2 AND r.id > ? AND coalesce(p.status, 'active') = 'active' AND coalesce(t.suspended_at, 0) = 0 ORDER BY r.id LIMIT ?`, after, limit)
}

// SetReplay implements [store.Replays].
func (s *Store) SetReplay(ctx context.Context, c store.Change, tenant int64, ref string, state posthorn.ReplayState, answer func(posthorn.Replay) []byte) (r posthorn.Replay, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		r = posthorn.Replay{}
		if err := tx.rows(`SELECT `+replayColumns+fromReplays+`WHERE r.ref = ? AND r.tenant = ?`, []any{ref, tenant}, func(row scanner) (err error) {
			r, err = scanReplay(row)
			return err
		}); err != nil {
			return err
		}
		if r.ID == 0 {
			return refuse(store.ErrNotFound)
		}
		changed, err := store.NextReplayState(r.State, state)
		if err != nil {
			return refuse(err)
		}
		if changed {
			before := r.State
			r.State, r.UpdatedAt = state, c.At.UTC()
			if err := tx.exec(`UPDATE replays SET state = ?, updated_at = ? WHERE id = ?`, int64(state), nanos(c.At), r.ID); err != nil {
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

// writeReplays adds to the counts of replays.
func (tx *txn) writeReplays() error {
	for id, n := range tx.replays {
		if err := tx.exec(`UPDATE replays SET succeeded = succeeded + ?, failed = failed + ? WHERE id = ?`, n.Succeeded, n.Failed, id); err != nil {
			return err
		}
	}
	return nil
}
