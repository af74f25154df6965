package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// note keeps a turning point until its owner was told, in the commit of what
// brought it about.
func (tx *txn) note(t store.Turn, tenant, endpoint int64, at time.Time) error {
	return tx.exec(`INSERT INTO turns (type, tenant, endpoint, ref, url, at, reason, failing_since, failures, last_error)
		SELECT ?, ?, id, ref, url, ?, ?, ?, ?, ? FROM endpoints WHERE id = ? AND deleted_at = 0`,
		t.Type, tenant, nanos(at), string(t.Reason), nanos(t.FailingSince), t.Failures, t.LastError, endpoint)
}

// WarningsDue implements [store.Endpoints].
func (s *Store) WarningsDue(ctx context.Context, since time.Time, limit int) ([]int64, error) {
	return all(ctx, s.readers, scanInt,
		`SELECT h.endpoint FROM endpoint_health h INDEXED BY endpoint_health_unwarned CROSS JOIN endpoints p ON p.id = h.endpoint
		WHERE h.warned_at = 0 AND h.last_error <> '' AND h.failing_since > 0 AND h.failing_since <= ?
		AND p.status = 'active' AND p.deleted_at = 0 ORDER BY h.failing_since LIMIT ?`, nanos(since), limit)
}

// MarkWarned implements [store.Endpoints].
func (s *Store) MarkWarned(ctx context.Context, endpoint int64, at time.Time) (marked bool, err error) {
	err = s.writer.do(ctx, func(tx *txn) error {
		marked = false
		h, err := tx.healthOf(endpoint)
		if err != nil || !h.WarningDue(at) {
			return err
		}
		var tenant int64
		found, err := tx.row(`SELECT tenant FROM endpoints WHERE id = ? AND deleted_at = 0`, []any{endpoint}, &tenant)
		if err != nil || !found {
			return err
		}
		h.WarnedAt, h.dirty, marked = at, true, true
		return tx.note(store.Turn{Type: posthorn.TypeEndpointFailing, FailingSince: h.FailingSince, Failures: h.Failures, LastError: h.LastError}, tenant, endpoint, at)
	})
	return marked && err == nil, err
}

// Turns implements [store.Endpoints].
func (s *Store) Turns(ctx context.Context, limit int) ([]store.Turn, error) {
	return all(ctx, s.readers, func(r scanner) (t store.Turn, err error) {
		var at, since int64
		err = r.Scan(&t.ID, &t.Type, &t.Tenant, &t.Endpoint, &t.Ref, &t.URL, &at, &t.Reason, &since, &t.Failures, &t.LastError)
		t.At, t.FailingSince = fromNanos(at), fromNanos(since)
		return t, err
	}, `SELECT id, type, tenant, endpoint, ref, url, at, reason, failing_since, failures, last_error FROM turns ORDER BY id LIMIT ?`, limit)
}

// ForgetTurn implements [store.Endpoints].
func (s *Store) ForgetTurn(ctx context.Context, id int64) error {
	return s.writer.do(ctx, func(tx *txn) error { return tx.exec(`DELETE FROM turns WHERE id = ?`, id) })
}
