package postgres

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Target implements [store.Endpoints].
func (s *Store) Target(ctx context.Context, endpoint int64) (t store.Target, err error) {
	ctx, cancel := s.look(ctx)
	defer cancel()
	err = s.snapshot(ctx, func(q querier) error {
		found, err := all(ctx, s, q, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoints WHERE id = $1`, endpoint)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return store.ErrNotFound
		}
		t.Endpoint = found[0]
		t.Owned = t.Endpoint.Settings.OwnedLane(true)
		err = q.QueryRow(ctx, `SELECT
			EXISTS (SELECT 1 FROM tenants WHERE id = $1 AND suspended_at <> 0),
			EXISTS (SELECT 1 FROM due WHERE run = -1 AND endpoint = $2)`,
			t.Endpoint.Tenant, endpoint).Scan(&t.TenantSuspended, &t.Parked)
		if err != nil {
			return s.readError(ctx, err)
		}
		if t.Secrets, err = all(ctx, s, q, scanSecret, selectSigning, endpoint); err != nil {
			return err
		}
		if len(t.Endpoint.Settings.Headers) > 0 {
			if t.Headers, err = all(ctx, s, q, scanHeader, selectHeaders, endpoint); err != nil {
				return err
			}
		}
		t.Health, err = s.health(ctx, q, endpoint)
		return err
	})
	return t, err
}

const selectSigning = `SELECT id, key_id, box, created_at, expires_at FROM endpoint_secrets
	WHERE endpoint = $1 AND kind = 'signing' ORDER BY expires_at <> 0, id DESC`

func scanSecret(r scanner) (s store.Sealed, err error) {
	var created, expires int64
	err = r.Scan(&s.ID, &s.KeyID, &s.Box, &created, &expires)
	s.CreatedAt, s.ExpiresAt = fromNanos(created), fromNanos(expires)
	return s, err
}

func (s *Store) health(ctx context.Context, q querier, endpoint int64) (posthorn.Health, error) {
	rows, err := all(ctx, s, q, scanHealth, `SELECT `+healthColumns+` FROM endpoint_health h WHERE endpoint = $1`, endpoint)
	if err != nil || len(rows) == 0 {
		return posthorn.Health{}, err
	}
	return rows[0], nil
}

// nextRows bounds the open deliveries, oldest first, among which the earliest
// time is looked for.
const nextRows = 10_000

// EndpointHealth implements [store.Endpoints].
func (s *Store) EndpointHealth(ctx context.Context, endpoint int64, limit int) (h posthorn.Health, n int, next time.Time, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		var exists bool
		var at int64
		err := q.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM endpoints WHERE id = $1),
			(SELECT count(*) FROM (SELECT 1 FROM due WHERE endpoint = $1 LIMIT $2) d),
			coalesce((SELECT min(next_at) FROM (SELECT next_at, run FROM due WHERE endpoint = $1 ORDER BY id LIMIT $3) d WHERE run = 0), 0)`,
			endpoint, limit, nextRows).Scan(&exists, &n, &at)
		if err != nil {
			return s.readError(ctx, err)
		}
		if !exists {
			return store.ErrNotFound
		}
		next = fromNanos(at)
		h, err = s.health(ctx, q, endpoint)
		return err
	})
	return h, n, next, err
}
