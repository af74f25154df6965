package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// change runs an audited change in a transaction; apply is called unless the
// change's Once was seen before.
func (s *Store) change(ctx context.Context, c store.Change, apply func(*txn) error) error {
	texts := []string{c.Actor}
	if c.Once != nil {
		texts = append(texts, c.Once.Route, c.Once.Key)
	}
	if err := store.CheckText(texts...); err != nil {
		return err
	}
	return s.writer.do(ctx, func(tx *txn) error {
		if err := tx.checkOnce(c.Once, c.At); err != nil {
			return err
		}
		if err := apply(tx); err != nil {
			return err
		}
		if c.Once == nil {
			return nil
		}
		return tx.storeOnce(c.Once, c.Once.Answer)
	})
}

// tenantRow is what a transaction needs of a living tenant.
type tenantRow struct {
	name       string
	setVersion int64
}

// tenant refuses an unknown or deleted tenant.
func (tx *txn) tenant(id int64) (*tenantRow, error) {
	if t, ok := tx.tenants[id]; ok {
		return t, nil
	}
	t := &tenantRow{}
	found, err := tx.row(`SELECT name, set_version FROM tenants WHERE id = ? AND deleted_at = 0`, []any{id}, &t.name, &t.setVersion)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, refuse(store.ErrNotFound)
	}
	tx.tenants[id] = t
	return t, nil
}

// endpointChanged tells, and if the change asks for it makes publishes that matched
// before match again.
func (tx *txn) endpointChanged(tenant, endpoint int64, rematch bool) error {
	tx.notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: tenant, Endpoint: endpoint})
	if !rematch {
		return nil
	}
	delete(tx.tenants, tenant)
	return tx.exec(`UPDATE tenants SET set_version = set_version + 1 WHERE id = ?`, tenant)
}

const tenantColumns = `id, name, created_at, suspended_at`

func scanTenant(r scanner) (t posthorn.Tenant, err error) {
	var created, suspended int64
	err = r.Scan(&t.ID, &t.Name, &created, &suspended)
	t.CreatedAt, t.SuspendedAt = fromNanos(created), fromNanos(suspended)
	return t, err
}

// CreateTenant implements [store.Tenants].
func (s *Store) CreateTenant(ctx context.Context, c store.Change, name string) (t posthorn.Tenant, err error) {
	if err := store.CheckText(name); err != nil {
		return t, err
	}
	t = posthorn.Tenant{Name: name, CreatedAt: c.At.UTC()}
	err = s.change(ctx, c, func(tx *txn) error {
		var taken int64
		found, err := tx.row(`SELECT id FROM tenants WHERE name = ? AND deleted_at = 0`, []any{name}, &taken)
		if err != nil {
			return err
		}
		if found {
			return refuse(store.ErrExists)
		}
		t.ID, err = tx.insert(`INSERT INTO tenants (name, created_at) VALUES (?, ?)`, name, nanos(c.At))
		if err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeTenant, Tenant: t.ID})
		return tx.audit(c, t.ID, store.Audit{Action: "tenant.create", Subject: name, After: store.AuditTenant(t)})
	})
	if err != nil {
		return posthorn.Tenant{}, err
	}
	return t, nil
}

// TenantByName implements [store.Tenants].
func (s *Store) TenantByName(ctx context.Context, name string) (posthorn.Tenant, error) {
	return one(ctx, s, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE name = ? AND deleted_at = 0`, name)
}

// TenantByID implements [store.Tenants].
func (s *Store) TenantByID(ctx context.Context, id int64) (posthorn.Tenant, error) {
	return one(ctx, s, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE id = ? AND deleted_at = 0`, id)
}

// Tenants implements [store.Tenants].
func (s *Store) Tenants(ctx context.Context, before int64, limit int) ([]posthorn.Tenant, error) {
	return all(ctx, s.readers, scanTenant, `SELECT `+tenantColumns+` FROM tenants
		WHERE deleted_at = 0 AND id < ? ORDER BY id DESC LIMIT ?`, below(before), limit)
}

// livingTenant is tenant with all that users see.
func (tx *txn) livingTenant(id int64) (t posthorn.Tenant, err error) {
	err = tx.rows(`SELECT `+tenantColumns+` FROM tenants WHERE id = ? AND deleted_at = 0`, []any{id}, func(r scanner) (err error) {
		t, err = scanTenant(r)
		return err
	})
	if err == nil && t.ID == 0 {
		err = refuse(store.ErrNotFound)
	}
	return t, err
}

// SuspendTenant implements [store.Tenants].
func (s *Store) SuspendTenant(ctx context.Context, c store.Change, id int64, suspend bool) (t posthorn.Tenant, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		var err error
		if t, err = tx.livingTenant(id); err != nil {
			return err
		}
		if t.Suspended() == suspend {
			return nil
		}
		before, action := t, "tenant.resume"
		t.SuspendedAt = time.Time{}
		if suspend {
			action, t.SuspendedAt = "tenant.suspend", c.At.UTC()
		}
		if err := tx.exec(`UPDATE tenants SET suspended_at = ? WHERE id = ?`, nanos(t.SuspendedAt), id); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeTenant, Tenant: id})
		return tx.audit(c, id, store.Audit{Action: action, Subject: t.Name, Before: store.AuditTenant(before), After: store.AuditTenant(t)})
	})
	if err != nil {
		return posthorn.Tenant{}, err
	}
	return t, nil
}

// DeleteTenant implements [store.Tenants].
func (s *Store) DeleteTenant(ctx context.Context, c store.Change, id int64) error {
	return s.change(ctx, c, func(tx *txn) error {
		t, err := tx.livingTenant(id)
		if err != nil {
			return err
		}
		delete(tx.tenants, id)
		if err := tx.noteDeletion(id, t.Name, c.At); err != nil {
			return err
		}
		for _, query := range []string{
			`UPDATE tenants SET deleted_at = ?1 WHERE id = ?2`,
			`UPDATE endpoints SET deleted_at = ?1 WHERE tenant = ?2 AND deleted_at = 0`,
		} {
			if err := tx.exec(query, nanos(c.At), id); err != nil {
				return err
			}
		}
		if err := tx.exec(`DELETE FROM tokens WHERE tenant = ?`, id); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeTenant, Tenant: id})
		tx.notice(store.Notice{Kind: store.NoticeToken})
		return tx.audit(c, id, store.Audit{Action: "tenant.delete", Subject: t.Name, Before: store.AuditTenant(t)})
	})
}

// Sending implements [store.Tenants].
func (s *Store) Sending(ctx context.Context) (bool, error) {
	off, err := one(ctx, s, scanInt,
		`SELECT value FROM meta WHERE key = 'sending_off'`)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return off == 0, err
}

// SetSending implements [store.Tenants].
func (s *Store) SetSending(ctx context.Context, c store.Change, on bool) error {
	return s.change(ctx, c, func(tx *txn) error {
		was, err := tx.meta("sending_off", 0)
		if err != nil {
			return err
		}
		off, action := int64(0), "sending.resume"
		if !on {
			off, action = 1, "sending.pause"
		}
		if was == off {
			return nil
		}
		if err := tx.setMeta("sending_off", off); err != nil {
			return err
		}
		if err := tx.exec(`DELETE FROM meta WHERE key = 'restored_from'`); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeSending})
		return tx.audit(c, 0, store.Audit{Action: action, Before: store.AuditedSending{Sending: !on}, After: store.AuditedSending{Sending: on}})
	})
}

// querier is the readers' pool or a transaction of it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// one reads a row; none is ErrNotFound.
func one[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	v, err := scan(s.reader(ctx).QueryRowContext(ctx, query, args...))
	if err == nil {
		return v, nil
	}
	var none T
	if errors.Is(err, sql.ErrNoRows) {
		return none, store.ErrNotFound
	}
	return none, readError(ctx, err)
}

// all reads all rows of a query.
func all[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, readError(ctx, err)
	}
	var list []T
	err = eachRow(rows, func(r scanner) error {
		v, err := scan(r)
		list = append(list, v)
		return err
	})
	if err != nil {
		return nil, readError(ctx, err)
	}
	return list, nil
}

// scanInt reads a row of one number, for one and all.
func scanInt(r scanner) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

// below is the bound of a list that goes on before an id; 0 has none.
func below(before int64) int64 {
	if before == 0 {
		return 1<<63 - 1
	}
	return before
}
