package sqlite

import (
	"context"
	"errors"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// audit writes an entry in the commit of what it is about.
func (tx *txn) audit(c store.Change, tenant int64, a store.Audit) error {
	r, err := a.Render()
	if err != nil {
		return refuse(err)
	}
	return tx.exec(`INSERT INTO audit (at, tenant, tenant_name, actor, action, subject, before, after)
		VALUES (?1, ?2, coalesce((SELECT name FROM tenants WHERE id = ?2), ''), ?3, ?4, ?5, ?6, ?7)`,
		nanos(c.At), tenant, c.Actor, r.Action, r.Subject, r.Before, r.After)
}

// Note implements [store.Auditing].
func (s *Store) Note(ctx context.Context, c store.Change, tenant int64, a store.Audit) error {
	return s.change(ctx, c, func(tx *txn) error { return tx.audit(c, tenant, a) })
}

const auditColumns = `id, at, tenant, tenant_name, actor, action, subject, before, after`

func scanAudit(r scanner) (e store.AuditEntry, err error) {
	var at int64
	var before, after string
	err = r.Scan(&e.ID, &at, &e.Tenant, &e.TenantName, &e.Actor, &e.Action, &e.Subject, &before, &after)
	e.At = fromNanos(at)
	if before != "" {
		e.Before = []byte(before)
	}
	if after != "" {
		e.After = []byte(after)
	}
	return e, err
}

// auditWalk is the query of a list.
func auditWalk(f *store.AuditFilter, before int64) (query string, args []any) {
	if f.Tenant < 0 {
		return `SELECT ` + auditColumns + ` FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?`, []any{below(before), store.PageRows + 1}
	}
	return `SELECT ` + auditColumns + ` FROM audit WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?`, []any{f.Tenant, below(before), store.PageRows + 1}
}

// AuditEntries implements [store.Auditing].
func (s *Store) AuditEntries(ctx context.Context, f store.AuditFilter, before int64, limit int) ([]store.AuditEntry, int64, error) {
	query, args := auditWalk(&f, before)
	page := store.List[store.AuditEntry]{Limit: limit}
	rows, err := s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, 0, readError(ctx, err)
	}
	err = eachRow(rows, func(r scanner) error {
		e, err := scanAudit(r)
		switch {
		case err != nil:
			return err
		case f.Past(&e):
			return store.ErrPageFull
		}
		return page.Row(posthorn.ID(e.ID), e, f.Selects(&e))
	})
	if err != nil && !errors.Is(err, store.ErrPageFull) {
		return nil, 0, readError(ctx, err)
	}
	return page.Items, int64(page.Next), nil
}

// auditSlice bounds what one slice of Sweep looks at.
const auditSlice = 100

// dropAudit drops what of the audit is past its retention.
func (sw *sweep) dropAudit() error {
	if sw.keepAudit <= 0 {
		return nil
	}
	n, err := sw.tx.execCount(`DELETE FROM audit WHERE id IN (SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT ?) AS oldest WHERE at < ?)`,
		auditSlice, nanos(sw.now.Add(-sw.keepAudit)))
	sw.Audit += n
	if sw.budget -= n; n == auditSlice {
		sw.More = true
	}
	return err
}
