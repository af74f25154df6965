package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// The line of an ordered endpoint: see [store.Queue]. Ids grow in the order of
// commits, so the line is in the order of ids.

// ordered reports whether the endpoint keeps publish order.
func (tx *txn) ordered(endpoint int64) bool {
	if on, ok := tx.lines[endpoint]; ok {
		return on
	}
	_, on := tx.w.lines[endpoint]
	return on
}

// setOrdered notes what the endpoint's settings say. What waits for its time
// joins the line, so that it holds what is younger.
func (tx *txn) setOrdered(endpoint int64, on bool) error {
	if on == tx.ordered(endpoint) {
		return nil
	}
	if tx.lines == nil {
		tx.lines = make(map[int64]bool)
	}
	tx.lines[endpoint] = on
	if !on {
		return nil
	}
	return tx.joinLine(endpoint)
}

func (tx *txn) joinLine(endpoint int64) error {
	return tx.rows(`UPDATE deliveries SET place = 3 WHERE id IN (
			SELECT d.id FROM deliveries d INDEXED BY deliveries_due CROSS JOIN events e ON e.id = d.event
			WHERE d.place IN (1, 2) AND d.next_at < ? AND d.endpoint = ? AND NOT `+aside+`)
		RETURNING tenant`, []any{int64(ownedOffset), endpoint}, func(r scanner) error {
		var tenant int64
		err := r.Scan(&tenant)
		tx.move(tenant, endpoint, waiting, parked)
		return err
	})
}

// stands reports whether a delivery that stays open is in its endpoint's line.
func (tx *txn) stands(d *deliveryRow, kind posthorn.EventKind) (bool, error) {
	if !tx.ordered(d.endpoint) || kind == posthorn.EventTest {
		return false, nil
	}
	var out bool
	_, err := tx.row(`SELECT `+aside+` FROM deliveries d JOIN events e ON e.id = d.event WHERE d.id = ?`, []any{int64(d.id)}, &out)
	return !out, err
}

// lineMoved tells an ordered endpoint's lane that something left its backlog other
// than by a claim: it may have been what the rest waits for.
func (tx *txn) lineMoved(tenant, endpoint int64, from, to place) {
	if from == parked && to != owned && tx.ordered(endpoint) {
		tx.notice(store.Notice{Kind: store.NoticeParked, Tenant: tenant, Endpoint: endpoint})
	}
}

// LineHead implements [store.Endpoints].
func (s *Store) LineHead(ctx context.Context, endpoint int64) (head posthorn.ID, next time.Time, err error) {
	var ids []int64
	candidates, err := all(ctx, s.readers, func(r scanner) (c store.ParkedRow, err error) {
		var id, at int64
		err = r.Scan(&id, &c.Tries, &at, &c.Aside)
		ids, c.NextAt = append(ids, id), fromNanos(at)
		return c, err
	}, `SELECT d.id, d.tries, d.next_at, `+aside+` FROM endpoints p CROSS JOIN deliveries d INDEXED BY deliveries_parked CROSS JOIN events e ON e.id = d.event
		WHERE p.id = ? AND p.settings ->> 'ordered' = 1 AND d.place = 3 AND d.endpoint = p.id ORDER BY d.id LIMIT ?`, endpoint, store.LookAside)
	if i := store.Blocks(candidates); err == nil && i >= 0 {
		head, next = posthorn.ID(ids[i]), candidates[i].NextAt
	}
	return head, next, err
}
