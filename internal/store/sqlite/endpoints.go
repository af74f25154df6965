package sqlite

import (
	"context"
	"database/sql"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const endpointColumns = `id, ref, tenant, url, description, events, status, paused_reason, paused_at, version, created_at, updated_at, deleted_at, settings, settings_version`

func scanEndpoint(r scanner) (e posthorn.Endpoint, err error) {
	var events, settings []byte
	var paused, created, updated, deleted int64
	if err := r.Scan(&e.ID, &e.Ref, &e.Tenant, &e.URL, &e.Description, &events, &e.Status, &e.PausedReason, &paused,
		&e.Version, &created, &updated, &deleted, &settings, &e.SettingsVersion); err != nil {
		return e, err
	}
	if err := json.Unmarshal(events, &e.Events); err != nil {
		return e, err
	}
	if e.Settings, err = store.DecodeSettings(settings); err != nil {
		return e, err
	}
	e.PausedAt, e.CreatedAt = fromNanos(paused), fromNanos(created)
	e.UpdatedAt, e.DeletedAt = fromNanos(updated), fromNanos(deleted)
	return e, nil
}

// documents encodes what of an endpoint is stored as JSON.
func documents(e *posthorn.Endpoint) (events, settings string, err error) {
	b, err := json.Marshal(e.Events)
	if err != nil {
		return "", "", err
	}
	settings, err = store.EncodeSettings(&e.Settings)
	return string(b), settings, err
}

// CreateEndpoint implements [store.Endpoints].
func (s *Store) CreateEndpoint(ctx context.Context, c store.Change, e posthorn.Endpoint, seal func(id int64) (store.Sealed, error), limit int) (posthorn.Endpoint, error) {
	if err := store.CheckEndpoint(&e); err != nil {
		return posthorn.Endpoint{}, err
	}
	store.SettleNew(&e, c.At)
	err := s.change(ctx, c, func(tx *txn) error {
		if err := tx.roomForEndpoint(e.Tenant, e.Ref, limit); err != nil {
			return err
		}
		if err := tx.roomAtURL(nil, &e); err != nil {
			return err
		}
		if err := tx.insertEndpoint(&e, seal); err != nil {
			return err
		}
		if err := tx.setOrdered(e.ID, e.Settings.Ordered); err != nil {
			return err
		}
		if err := tx.endpointChanged(e.Tenant, e.ID, store.Rematches(nil, &e)); err != nil {
			return err
		}
		return tx.audit(c, e.Tenant, store.Audit{Action: "endpoint.create", Subject: e.Ref, After: store.AuditEndpoint(&e)})
	})
	if err != nil {
		return posthorn.Endpoint{}, err
	}
	return e, nil
}

func (tx *txn) roomForEndpoint(tenant int64, ref string, limit int) error {
	if _, err := tx.tenant(tenant); err != nil {
		return err
	}
	var taken int64
	found, err := tx.row(`SELECT id FROM endpoints WHERE ref = ?`, []any{ref}, &taken)
	if err != nil {
		return err
	}
	if found {
		return refuse(store.ErrExists)
	}
	var n int
	if _, err := tx.row(`SELECT count(*) FROM endpoints WHERE tenant = ? AND deleted_at = 0`, []any{tenant}, &n); err != nil {
		return err
	}
	if limit > 0 && n >= limit {
		return refuse(store.ErrEndpointLimit)
	}
	return nil
}

// roomAtURL refuses a url that too many of the tenant's other endpoints have. The
// tenant's endpoints stay as they are until the transaction ends.
func (tx *txn) roomAtURL(old, e *posthorn.Endpoint) error {
	if !store.Relocates(old, e) {
		return nil
	}
	var others []string
	err := tx.rows(`SELECT url FROM endpoints WHERE tenant = ? AND deleted_at = 0 AND id <> ?`, []any{e.Tenant, e.ID}, func(r scanner) error {
		var url string
		err := r.Scan(&url)
		others = append(others, url)
		return err
	})
	if err == nil && posthorn.TooManyAt(e.URL, others) {
		err = refuse(store.ErrSameURL)
	}
	return err
}

func (tx *txn) insertEndpoint(e *posthorn.Endpoint, seal func(id int64) (store.Sealed, error)) error {
	events, settings, err := documents(e)
	if err != nil {
		return err
	}
	e.ID, err = tx.insert(`INSERT INTO endpoints (ref, tenant, url, description, events, status, paused_reason, paused_at, version, created_at, updated_at, settings, settings_version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.Ref, e.Tenant, e.URL, e.Description, events, string(e.Status), string(e.PausedReason), nanos(e.PausedAt),
		e.Version, nanos(e.CreatedAt), nanos(e.UpdatedAt), settings, e.SettingsVersion)
	if err != nil {
		return err
	}
	if seal == nil {
		return nil
	}
	secret, err := seal(e.ID)
	if err != nil {
		return err
	}
	if secret.CreatedAt.IsZero() {
		secret.CreatedAt = e.CreatedAt
	}
	return tx.insertSealed(e.ID, "signing", "", secret)
}

const endpointByRef = `SELECT ` + endpointColumns + ` FROM endpoints WHERE ref = ? AND tenant = ? AND deleted_at = 0`

// EndpointByRef implements [store.Endpoints].
func (s *Store) EndpointByRef(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error) {
	return one(ctx, s, scanEndpoint, endpointByRef, ref, tenant)
}

// endpoint refuses an unknown endpoint, and one of another version.
func (tx *txn) endpoint(tenant int64, ref string, version int64) (e posthorn.Endpoint, err error) {
	err = tx.rows(endpointByRef, []any{ref, tenant}, func(r scanner) (err error) {
		e, err = scanEndpoint(r)
		return err
	})
	switch {
	case err != nil:
		return e, err
	case e.ID == 0:
		return e, refuse(store.ErrNotFound)
	case version != 0 && version != e.Version:
		return e, refuse(store.ErrVersion)
	}
	return e, nil
}

// EndpointsOf implements [store.Endpoints].
func (s *Store) EndpointsOf(ctx context.Context, tenant int64, before string, limit int) ([]posthorn.Endpoint, error) {
	bound := below(0)
	if before != "" {
		var err error
		bound, err = one(ctx, s, scanInt,
			`SELECT id FROM endpoints WHERE ref = ? AND tenant = ?`, before, tenant)
		if err != nil {
			return nil, err
		}
	}
	if limit <= 0 {
		limit = -1
	}
	return all(ctx, s.reader(ctx), scanEndpoint, `SELECT `+endpointColumns+` FROM endpoints
		WHERE tenant = ? AND deleted_at = 0 AND id < ? ORDER BY id DESC LIMIT ?`, tenant, bound, limit)
}

// UpdateEndpoint implements [store.Endpoints].
func (s *Store) UpdateEndpoint(ctx context.Context, c store.Change, tenant int64, ref string, version int64, fn func(*posthorn.Endpoint) error) (e posthorn.Endpoint, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		old, err := tx.endpoint(tenant, ref, version)
		if err != nil {
			return err
		}
		if e, err = store.Edited(old, c.At, fn); err != nil {
			return refuse(err)
		}
		if store.SameToUsers(&old, &e) {
			e = old
			return nil
		}
		if err := tx.roomAtURL(&old, &e); err != nil {
			return err
		}
		return tx.updateEndpoint(c, &old, &e)
	})
	if err != nil {
		return posthorn.Endpoint{}, err
	}
	return e, nil
}

func (tx *txn) updateEndpoint(c store.Change, old, e *posthorn.Endpoint) error {
	e.Version++
	e.UpdatedAt = c.At.UTC()
	events, _, err := documents(e)
	if err != nil {
		return refuse(err)
	}
	if err := tx.exec(`UPDATE endpoints SET url = ?, description = ?, events = ?, status = ?, paused_reason = ?, paused_at = ?,
		version = ?, updated_at = ? WHERE id = ?`,
		e.URL, e.Description, events, string(e.Status), string(e.PausedReason), nanos(e.PausedAt),
		e.Version, nanos(e.UpdatedAt), e.ID); err != nil {
		return err
	}
	if e.SettingsVersion != old.SettingsVersion { // the headers went with the old origin
		if err := tx.writeSettings(e, nil); err != nil {
			return err
		}
		if err := tx.audit(c, e.Tenant, store.Audit{Action: "endpoint.settings.update", Subject: e.Ref, Before: store.AuditSettings(old, nil), After: store.AuditSettings(e, nil)}); err != nil {
			return err
		}
	}
	action := "endpoint.update"
	switch {
	case old.Status == e.Status:
	case e.Status == posthorn.StatusActive:
		action = "endpoint.resume"
		h, err := tx.healthOf(e.ID)
		if err != nil {
			return err
		}
		h.Health, h.dirty = h.Resumed(), true
	default:
		action = "endpoint.pause"
	}
	if err := tx.endpointChanged(e.Tenant, e.ID, store.Rematches(old, e)); err != nil {
		return err
	}
	return tx.audit(c, e.Tenant, store.Audit{Action: action, Subject: e.Ref, Before: store.AuditEndpoint(old), After: store.AuditEndpoint(e)})
}

// UpdateSettings implements [store.Endpoints].
func (s *Store) UpdateSettings(ctx context.Context, c store.Change, tenant int64, ref string, version int64, fn func(*posthorn.Settings) error, values ...store.SealedHeader) (e posthorn.Endpoint, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		old, err := tx.endpoint(tenant, ref, 0)
		if err != nil {
			return err
		}
		if version != 0 && version != old.SettingsVersion {
			return refuse(store.ErrVersion)
		}
		var changed bool
		if e, changed, err = store.EditedSettings(old, fn, values); err != nil {
			return refuse(err)
		}
		if !changed {
			return nil
		}
		if err := tx.writeSettings(&e, values); err != nil {
			return err
		}
		if err := tx.setOrdered(e.ID, e.Settings.Ordered); err != nil {
			return err
		}
		if err := tx.endpointChanged(tenant, e.ID, store.Rematches(&old, &e)); err != nil {
			return err
		}
		return tx.audit(c, tenant, store.Audit{Action: "endpoint.settings.update", Subject: ref, Before: store.AuditSettings(&old, nil), After: store.AuditSettings(&e, values)})
	})
	if err != nil {
		return posthorn.Endpoint{}, err
	}
	return e, nil
}

// DeleteEndpoint implements [store.Endpoints].
func (s *Store) DeleteEndpoint(ctx context.Context, c store.Change, tenant int64, ref string, version int64) error {
	return s.change(ctx, c, func(tx *txn) error {
		e, err := tx.endpoint(tenant, ref, version)
		if err != nil {
			return err
		}
		if err := tx.exec(`UPDATE endpoints SET deleted_at = ? WHERE id = ?`, nanos(c.At), e.ID); err != nil {
			return err
		}
		if err := tx.setOrdered(e.ID, false); err != nil {
			return err
		}
		if err := tx.endpointChanged(tenant, e.ID, store.Rematches(&e, nil)); err != nil {
			return err
		}
		return tx.audit(c, tenant, store.Audit{Action: "endpoint.delete", Subject: ref, Before: store.AuditEndpoint(&e)})
	})
}

// snapshot runs fn on one state of the database.
func (s *Store) snapshot(ctx context.Context, fn func(querier) error) error {
	tx, err := s.reader(ctx).BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return readError(ctx, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to keep
	if store.OfWalk(ctx) {
		return fn(tx) // what is prepared is of the readers' connections
	}
	return fn(s.prepared.within(tx))
}

const endpointsOfSet = `SELECT ` + endpointColumns + ` FROM endpoints WHERE tenant = ? AND deleted_at = 0 ORDER BY id`

// EndpointSet implements [store.Endpoints].
func (s *Store) EndpointSet(ctx context.Context, tenant int64) (set store.EndpointSet, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		versions, err := all(ctx, q, scanInt, `SELECT set_version FROM tenants WHERE id = ? AND deleted_at = 0`, tenant)
		if err != nil {
			return err
		}
		if len(versions) == 0 {
			return store.ErrNotFound
		}
		set.Version = versions[0]
		set.Endpoints, err = all(ctx, q, scanEndpoint, endpointsOfSet, tenant)
		return err
	})
	return set, err
}
