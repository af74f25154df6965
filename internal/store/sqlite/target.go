package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Target implements [store.Endpoints].
func (s *Store) Target(ctx context.Context, endpoint int64) (t store.Target, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		found, err := all(ctx, q, scanEndpoint, selectTarget, endpoint)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return store.ErrNotFound
		}
		t.Endpoint = found[0]
		t.Owned = t.Endpoint.Settings.OwnedLane(false)
		err = q.QueryRowContext(ctx, selectTargetState,
			t.Endpoint.Tenant, endpoint).Scan(&t.TenantSuspended, &t.Parked)
		if err != nil {
			return readError(ctx, err)
		}
		if t.Secrets, err = all(ctx, q, scanSecret, selectSigning, endpoint); err != nil {
			return err
		}
		if len(t.Endpoint.Settings.Headers) > 0 {
			if t.Headers, err = all(ctx, q, scanHeader, selectHeaders, endpoint); err != nil {
				return err
			}
		}
		t.Health, err = s.health(ctx, q, endpoint)
		return err
	})
	return t, err
}

func scanSecret(r scanner) (s store.Sealed, err error) {
	var created, expires int64
	err = r.Scan(&s.ID, &s.KeyID, &s.Box, &created, &expires)
	s.CreatedAt, s.ExpiresAt = fromNanos(created), fromNanos(expires)
	return s, err
}

func (s *Store) health(ctx context.Context, q querier, endpoint int64) (h posthorn.Health, err error) {
	rows, err := all(ctx, q, scanHealth, selectHealth, endpoint)
	if err != nil {
		return h, err
	}
	if len(rows) > 0 {
		h = rows[0]
	}
	return s.writer.memo.latest(endpoint, h), nil
}

// EndpointHealth implements [store.Endpoints]. The serving process has counted
// what is open; another one walks the indexes.
func (s *Store) EndpointHealth(ctx context.Context, endpoint int64, limit int) (h posthorn.Health, n int, next time.Time, err error) {
	open := s.writer.open.endpoint(endpoint)
	err = s.snapshot(ctx, func(q querier) error {
		var exists bool
		err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM endpoints WHERE id = ?)`, endpoint).Scan(&exists)
		if err != nil {
			return readError(ctx, err)
		}
		if !exists {
			return store.ErrNotFound
		}
		if h, err = s.health(ctx, q, endpoint); err != nil {
			return err
		}
		if s.role == Serve {
			n = min(open.due+open.parked, limit)
		} else if n, err = countOpen(ctx, q, endpoint, limit); err != nil {
			return err
		}
		if s.role == Serve && open.due == 0 {
			return nil // the due index, led by time, need not be walked
		}
		var at int64
		err = q.QueryRowContext(ctx, `SELECT coalesce(min(next_at), 0) FROM (SELECT next_at FROM deliveries INDEXED BY deliveries_due
			WHERE place IN (1, 2) AND endpoint = ? AND next_at < ? ORDER BY next_at LIMIT 1)`, endpoint, int64(ownedOffset)).Scan(&at)
		if err != nil {
			return readError(ctx, err)
		}
		next = fromNanos(at)
		return nil
	})
	return h, n, next, err
}

func countOpen(ctx context.Context, q querier, endpoint int64, limit int) (n int, err error) {
	err = q.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_parked WHERE place = 3 AND endpoint = ?1 LIMIT ?2)) +
		(SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE place IN (1, 2) AND endpoint = ?1 LIMIT ?2))`,
		endpoint, limit).Scan(&n)
	if err != nil {
		return 0, readError(ctx, err)
	}
	return min(n, limit), nil
}
