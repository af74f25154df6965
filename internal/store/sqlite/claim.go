package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const workColumns = `d.id, d.event, e.key, e.type, d.tenant, d.endpoint, e.kind, e.accepted_at, e.size,
	d.state, d.place, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.replay_id <> 0 AND d.extra = 0, b.body,
	` + aside

// aside tells that a delivery stands outside the line: see [store.Work].
const aside = `(d.extra <> 0 OR d.round > 0 OR d.late <> 0 OR d.replay_id <> 0 OR e.deliver_at <> 0 OR e.kind = 1)`

// claim is a row that may be taken over. gone tells that its endpoint or
// tenant was deleted.
type claim struct {
	work       store.Work
	place      place
	gone       bool
	tenantGone bool
}

func scanClaim(r scanner) (c claim, err error) {
	w := &c.work
	p := &w.Progress
	var accepted, next int64
	err = r.Scan((*int64)(&w.ID), (*int64)(&w.Event), &w.EventKey, &w.Type, &w.Tenant, &w.Endpoint, &w.Kind, &accepted, &w.Size,
		&p.State, &c.place, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &w.Replay, &w.Body, &w.Aside, &c.gone, &c.tenantGone)
	w.AcceptedAt, p.NextAt = fromNanos(accepted), nextAt(c.place, next)
	c.gone = c.gone || c.tenantGone
	if blank(w.Body) {
		w.Body = nil
	}
	return c, err
}

// Small bodies come with the claim: fetching each by itself took a fifth of the
// time of sending what was parked.
const (
	claimDue = `SELECT ` + workColumns + `, coalesce(p.deleted_at, 1) <> 0, coalesce(t.deleted_at, 1) <> 0
		FROM deliveries d INDEXED BY deliveries_due CROSS JOIN events e ON e.id = d.event
		LEFT JOIN payloads b ON b.event = d.event AND e.size <= 4096
		LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = d.tenant
		WHERE d.place IN (1, 2) AND d.next_at <= ? ORDER BY d.next_at LIMIT ?`

	claimParked = `SELECT ` + workColumns + `, coalesce(p.deleted_at, 1) <> 0, coalesce(t.deleted_at, 1) <> 0
		FROM deliveries d INDEXED BY deliveries_parked CROSS JOIN events e ON e.id = d.event
		LEFT JOIN payloads b ON b.event = d.event AND e.size <= 4096
		LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = d.tenant
		WHERE d.place = 3 AND d.endpoint = ? ORDER BY d.id LIMIT ?`

	// What was asked for by hand; of a line (?3) its head alone.
	claimByHand = `SELECT ` + workColumns + `, false, false
		FROM deliveries d INDEXED BY deliveries_by_hand CROSS JOIN events e ON e.id = d.event
		LEFT JOIN payloads b ON b.event = d.event AND e.size <= 4096
		WHERE d.place = 3 AND d.manual <> 0 AND d.endpoint = ?1 AND (NOT ?3 OR ` + aside + ` OR d.id = (
			SELECT d.id FROM deliveries d INDEXED BY deliveries_parked CROSS JOIN events e ON e.id = d.event
			WHERE d.place = 3 AND d.endpoint = ?1 AND NOT ` + aside + ` ORDER BY d.id LIMIT 1))
		ORDER BY d.id LIMIT ?2`
)

// ClaimDue implements [store.Queue]. Rows of deleted endpoints and tenants are
// canceled where they are met, so fewer may come back than there is room for;
// next then tells to call again at once.
func (s *Store) ClaimDue(ctx context.Context, now time.Time, limit int) (work []store.Work, next time.Time, err error) {
	if err := s.serving(); err != nil {
		return nil, time.Time{}, err
	}
	err = s.writer.doMuch(ctx, limit, func(tx *txn) error {
		work, next = nil, time.Time{}
		claims, err := tx.claims(claimDue, nanos(now), limit)
		if err != nil {
			return err
		}
		if work, err = tx.take(claims, now); err != nil {
			return err
		}
		var at int64
		_, err = tx.row(`SELECT next_at FROM deliveries INDEXED BY deliveries_due
			WHERE place IN (1, 2) AND next_at < ? ORDER BY next_at LIMIT 1`, []any{int64(ownedOffset)}, &at)
		next = fromNanos(at)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return work, next, nil
}

// ClaimParked implements [store.Queue].
func (s *Store) ClaimParked(ctx context.Context, endpoint int64, limit int) (work []store.Work, more bool, next time.Time, err error) {
	if err := s.serving(); err != nil {
		return nil, false, next, err
	}
	err = s.writer.doMuch(ctx, limit, func(tx *txn) (err error) {
		work, more, next, err = tx.claimParked(endpoint, limit)
		return err
	})
	if err != nil {
		return nil, false, time.Time{}, err
	}
	return work, more, next, nil
}

func (tx *txn) claimParked(endpoint int64, limit int) (work []store.Work, more bool, next time.Time, err error) {
	var gone, suspended, paused bool
	if _, err := tx.row(`SELECT p.deleted_at <> 0 OR t.deleted_at <> 0, t.suspended_at <> 0 OR p.status NOT IN ('active', 'paused'), p.status = 'paused'
		FROM endpoints p JOIN tenants t ON t.id = p.tenant WHERE p.id = ?`, []any{endpoint}, &gone, &suspended, &paused); err != nil {
		return nil, false, next, err
	}
	switch {
	case gone: // Sweep cancels them
		return nil, false, next, nil
	case suspended:
		more, err = tx.hasParked(endpoint)
		return nil, more, next, err
	}
	ordered, now := tx.ordered(endpoint), tx.w.now()
	look := limit + 1
	if ordered {
		look = max(look, store.LookAside)
	}
	var claims []claim
	if paused {
		claims, err = tx.claims(claimByHand, endpoint, look, ordered)
	} else {
		claims, err = tx.claims(claimParked, endpoint, look)
	}
	if err != nil {
		return nil, false, next, err
	}
	candidates := make([]store.ParkedRow, len(claims))
	for i := range claims {
		w := &claims[i].work
		candidates[i] = store.ParkedRow{Aside: w.Aside, Tries: w.Progress.Tries, NextAt: w.Progress.NextAt}
	}
	take, wait, more, next := store.LineUp(ordered, candidates, len(claims) == look, now, limit)
	if err := tx.letWait(claims, wait); err != nil {
		return nil, false, next, err
	}
	taken := make([]claim, len(take))
	for i, at := range take {
		taken[i] = claims[at]
	}
	if work, err = tx.take(taken, now); err == nil && paused {
		more, err = tx.hasParked(endpoint)
	}
	return work, more, next, err
}

func (tx *txn) hasParked(endpoint int64) (some bool, err error) {
	_, err = tx.row(`SELECT EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_parked WHERE place = 3 AND endpoint = ?)`, []any{endpoint}, &some)
	return some, err
}

// letWait gives parked rows their time back.
func (tx *txn) letWait(claims []claim, which []int) error {
	for _, i := range which {
		w := &claims[i].work
		if err := tx.exec(`UPDATE deliveries SET place = 2 WHERE id = ?`, int64(w.ID)); err != nil {
			return err
		}
		tx.move(w.Tenant, w.Endpoint, parked, waiting)
	}
	return nil
}

func (tx *txn) claims(query string, args ...any) (claims []claim, err error) {
	err = tx.rows(query, args, func(r scanner) error {
		c, err := scanClaim(r)
		claims = append(claims, c)
		return err
	})
	return claims, err
}

// take makes rows owned, and cancels those of the deleted.
func (tx *txn) take(claims []claim, now time.Time) (work []store.Work, err error) {
	for i := range claims {
		c := &claims[i]
		w := &c.work
		if c.gone {
			if _, err := tx.settle(openRow{w.ID, w.Tenant, w.Endpoint, c.place}, posthorn.Canceled, store.GoneReason(c.tenantGone), now); err != nil {
				return nil, err
			}
			continue
		}
		if err := tx.exec(`UPDATE deliveries SET place = 1, next_at = next_at + ? WHERE id = ?`, int64(ownedOffset), int64(w.ID)); err != nil {
			return nil, err
		}
		tx.move(w.Tenant, w.Endpoint, c.place, owned)
		work = append(work, *w)
	}
	return work, nil
}

// ParkedEndpoints implements [store.Queue]. It hops over the parked index from
// endpoint to endpoint.
func (s *Store) ParkedEndpoints(ctx context.Context, after int64, limit int) (found []int64, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		for len(found) < limit {
			var id int64
			var lively bool
			err := q.QueryRowContext(ctx, `SELECT d.endpoint, EXISTS (SELECT 1 FROM endpoints p JOIN tenants t ON t.id = p.tenant
				WHERE p.id = d.endpoint AND p.deleted_at = 0 AND t.deleted_at = 0 AND t.suspended_at = 0 AND (p.status = 'active' OR p.status = 'paused' AND EXISTS (
					SELECT 1 FROM deliveries h INDEXED BY deliveries_by_hand WHERE h.place = 3 AND h.manual <> 0 AND h.endpoint = p.id)))
				FROM deliveries d INDEXED BY deliveries_parked WHERE d.place = 3 AND d.endpoint > ? ORDER BY d.endpoint LIMIT 1`, after).
				Scan(&id, &lively)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return readError(ctx, err)
			}
			if lively {
				found = append(found, id)
			}
			after = id
		}
		return nil
	})
	return found, err
}

// MayAttempt implements [store.Queue]: no other process takes anything over.
func (s *Store) MayAttempt(context.Context, store.Hold) bool { return true }

// Forget implements [store.Queue]: what is owned is remembered by the engine alone.
func (s *Store) Forget(...store.Hold) {}

// Park implements [store.Queue].
func (s *Store) Park(ctx context.Context, holds []store.Hold) error {
	if err := s.serving(); err != nil {
		return err
	}
	if len(holds) == 0 {
		return nil
	}
	return s.writer.doMuch(ctx, len(holds), func(tx *txn) error {
		for _, h := range holds {
			var tenant, endpoint int64
			found, err := tx.row(`UPDATE deliveries SET place = 3, next_at = next_at - ? WHERE id = ? AND place = 1
				RETURNING tenant, endpoint`, []any{int64(ownedOffset), int64(h.ID)}, &tenant, &endpoint)
			if err != nil {
				return err
			}
			if found {
				tx.move(tenant, endpoint, owned, parked)
			}
		}
		return nil
	})
}

// Payload implements [store.Queue].
func (s *Store) Payload(ctx context.Context, event posthorn.ID) (body []byte, err error) {
	err = s.prepared[selectPayload].QueryRowContext(ctx, int64(event)).Scan(&body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, store.ErrNotFound
	case err != nil:
		return nil, readError(ctx, err)
	case blank(body):
		return nil, store.ErrNotFound
	}
	return body, nil
}
