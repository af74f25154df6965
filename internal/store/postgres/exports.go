package postgres

import (
	"context"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// CreateExport implements [store.Exports].
func (s *Store) CreateExport(ctx context.Context, c store.Change, e store.Export) error {
	if err := store.CheckText(e.Ref); err != nil {
		return err
	}
	return s.change(ctx, c, func(tx *txn) error {
		if _, err := tx.tenant(e.Tenant); err != nil {
			return err
		}
		if err := tx.exec(`INSERT INTO exports (tenant, ref, since, until, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			e.Tenant, e.Ref, nanos(e.Since), nanos(e.Until), nanos(e.CreatedAt), nanos(e.ExpiresAt)); err != nil {
			return err
		}
		return tx.audit(c, e.Tenant, store.Audit{Action: "export.create", Subject: e.Ref, After: store.AuditExport(e)})
	})
}

// ExportByRef implements [store.Exports].
func (s *Store) ExportByRef(ctx context.Context, tenant int64, ref string, now time.Time) (store.Export, error) {
	if store.CheckText(ref) != nil {
		return store.Export{}, store.ErrNotFound
	}
	return one(ctx, s, func(r scanner) (e store.Export, err error) {
		var since, until, created, expires int64
		err = r.Scan(&e.Ref, &e.Tenant, &since, &until, &created, &expires)
		e.Since, e.Until, e.CreatedAt, e.ExpiresAt = fromNanos(since), fromNanos(until), fromNanos(created), fromNanos(expires)
		return e, err
	}, `SELECT ref, tenant, since, until, created_at, expires_at FROM exports WHERE tenant = $1 AND ref = $2 AND expires_at > $3`, tenant, ref, nanos(now))
}
