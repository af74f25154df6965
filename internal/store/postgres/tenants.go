package postgres

import (
	"context"
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
	return s.write(ctx, func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		if err := tx.checkOnce(c.Once, c.At); err != nil {
			return err
		}
		if err := apply(tx); err != nil {
			return err
		}
		return tx.storeOnce(c.Once)
	})
}

// tenant locks a living tenant and returns its name.
func (tx *txn) tenant(id int64) (name string, err error) {
	found, err := tx.row(`SELECT name FROM tenants WHERE id = $1 AND deleted_at = 0 FOR UPDATE`, []any{id}, &name)
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return name, err
}

// endpointChanged tells, and if the change asks for it makes publishes that matched
// before match again.
func (tx *txn) endpointChanged(tenant, endpoint int64, rematch bool) error {
	tx.notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: tenant, Endpoint: endpoint})
	if !rematch {
		return nil
	}
	return tx.exec(`UPDATE tenants SET set_version = set_version + 1 WHERE id = $1`, tenant)
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
		var taken bool
		if _, err := tx.row(`SELECT EXISTS (SELECT 1 FROM tenants WHERE name = $1 AND deleted_at = 0)`, []any{name}, &taken); err != nil {
			return err
		}
		if taken {
			return store.ErrExists
		}
		if _, err := tx.row(`INSERT INTO tenants (name, created_at) VALUES ($1, $2) RETURNING id`, []any{name, nanos(c.At)}, &t.ID); err != nil {
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
	if store.CheckText(name) != nil {
		return posthorn.Tenant{}, store.ErrNotFound
	}
	return one(ctx, s, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE name = $1 AND deleted_at = 0`, name)
}

// TenantByID implements [store.Tenants].
func (s *Store) TenantByID(ctx context.Context, id int64) (posthorn.Tenant, error) {
	return one(ctx, s, scanTenant, `SELECT `+tenantColumns+` FROM tenants WHERE id = $1 AND deleted_at = 0`, id)
}

// Tenants implements [store.Tenants].
func (s *Store) Tenants(ctx context.Context, before int64, limit int) ([]posthorn.Tenant, error) {
	return all(ctx, s, s.other, scanTenant, `SELECT `+tenantColumns+` FROM tenants
		WHERE deleted_at = 0 AND id < $1 ORDER BY id DESC LIMIT $2`, below(before), limit)
}

// SuspendTenant implements [store.Tenants].
func (s *Store) SuspendTenant(ctx context.Context, c store.Change, id int64, suspend bool) (t posthorn.Tenant, err error) {
	err = s.change(ctx, c, func(tx *txn) (err error) {
		if _, err = tx.tenant(id); err != nil {
			return err
		}
		if t, err = scanTenant(tx.c.QueryRow(tx.ctx, `SELECT `+tenantColumns+` FROM tenants WHERE id = $1`, id)); err != nil {
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
		if err := tx.exec(`UPDATE tenants SET suspended_at = $1 WHERE id = $2`, nanos(t.SuspendedAt), id); err != nil {
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
		// Endpoints are locked before their tenant, as everywhere.
		if err := tx.exec(`SELECT FROM endpoints WHERE tenant = $1 AND deleted_at = 0 ORDER BY id FOR UPDATE`, id); err != nil {
			return err
		}
		if _, err := tx.tenant(id); err != nil {
			return err
		}
		t, err := scanTenant(tx.c.QueryRow(tx.ctx, `SELECT `+tenantColumns+` FROM tenants WHERE id = $1`, id))
		if err != nil {
			return err
		}
		if err := tx.noteDeletion(id, t.Name, c.At); err != nil {
			return err
		}
		for _, query := range []string{
			`UPDATE tenants SET deleted_at = $1 WHERE id = $2`,
			`UPDATE endpoints SET deleted_at = $1 WHERE tenant = $2 AND deleted_at = 0`,
		} {
			if err := tx.exec(query, nanos(c.At), id); err != nil {
				return err
			}
		}
		if err := tx.exec(`DELETE FROM tokens WHERE tenant = $1`, id); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeTenant, Tenant: id})
		tx.notice(store.Notice{Kind: store.NoticeToken})
		return tx.audit(c, id, store.Audit{Action: "tenant.delete", Subject: t.Name, Before: store.AuditTenant(t)})
	})
}

// Sending implements [store.Tenants].
func (s *Store) Sending(ctx context.Context) (bool, error) {
	ctx, cancel := s.look(ctx)
	defer cancel()
	off, err := one(ctx, s, func(r scanner) (n int64, err error) { return n, r.Scan(&n) },
		`SELECT value FROM meta WHERE key = 'sending_off'`)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return off == 0, err
}

// SetSending implements [store.Tenants].
func (s *Store) SetSending(ctx context.Context, c store.Change, on bool) error {
	return s.change(ctx, c, func(tx *txn) error {
		if err := tx.exec(`INSERT INTO meta (key, value) VALUES ('sending_off', 0) ON CONFLICT (key) DO NOTHING`); err != nil {
			return err
		}
		var was int64
		if _, err := tx.row(`SELECT value FROM meta WHERE key = 'sending_off' FOR UPDATE`, nil, &was); err != nil {
			return err
		}
		off, action := int64(0), "sending.resume"
		if !on {
			off, action = 1, "sending.pause"
		}
		if was == off {
			return nil
		}
		if err := tx.exec(`UPDATE meta SET value = $1 WHERE key = 'sending_off'`, off); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeSending})
		return tx.audit(c, 0, store.Audit{Action: action, Before: store.AuditedSending{Sending: !on}, After: store.AuditedSending{Sending: on}})
	})
}
