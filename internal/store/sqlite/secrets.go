package sqlite

import (
	"context"
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// RevealSecrets implements [store.Endpoints].
func (s *Store) RevealSecrets(ctx context.Context, c store.Change, tenant int64, ref string) (e posthorn.Endpoint, valid []store.Sealed, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		if e, err = tx.endpoint(tenant, ref, 0); err != nil {
			return err
		}
		all, err := tx.secrets(e.ID)
		if err != nil {
			return err
		}
		valid = store.Valid(all, c.At)
		return tx.audit(c, tenant, store.Audit{Action: "endpoint.secret.reveal", Subject: ref, After: store.AuditSecrets(valid)})
	})
	if err != nil {
		return posthorn.Endpoint{}, nil, err
	}
	return e, valid, nil
}

// ChangeSecrets implements [store.Endpoints].
func (s *Store) ChangeSecrets(ctx context.Context, c store.Change, tenant int64, ref string, fn func(e posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error)) error {
	return s.change(ctx, c, func(tx *txn) error {
		e, err := tx.endpoint(tenant, ref, 0)
		if err != nil {
			return err
		}
		all, err := tx.secrets(e.ID)
		if err != nil {
			return err
		}
		valid := store.Valid(all, c.At)
		want, err := fn(e, slices.Clone(valid))
		if err != nil {
			return refuse(err)
		}
		edit, err := store.EditSecrets(all, want)
		if err != nil {
			return refuse(err)
		}
		for _, id := range edit.Delete {
			if err := tx.exec(`DELETE FROM endpoint_secrets WHERE id = ?`, id); err != nil {
				return err
			}
		}
		for i := range edit.Expire {
			if err := tx.exec(`UPDATE endpoint_secrets SET expires_at = ? WHERE id = ?`, nanos(edit.Expire[i].ExpiresAt), edit.Expire[i].ID); err != nil {
				return err
			}
		}
		for i := range edit.Insert {
			if err := tx.insertSealed(e.ID, "signing", "", edit.Insert[i]); err != nil {
				return err
			}
		}
		if err := tx.endpointChanged(tenant, e.ID, false); err != nil {
			return err
		}
		return tx.audit(c, tenant, store.Audit{Action: "endpoint.secret.rotate", Subject: ref, Before: store.AuditSecrets(valid), After: store.AuditSecrets(want)})
	})
}

// secrets are all that the endpoint has, current first, expired ones too.
func (tx *txn) secrets(endpoint int64) (all []store.Sealed, err error) {
	err = tx.rows(selectSigning, []any{endpoint}, func(r scanner) error {
		secret, err := scanSecret(r)
		all = append(all, secret)
		return err
	})
	return all, err
}

func (tx *txn) insertSealed(endpoint int64, kind, name string, s store.Sealed) error {
	return tx.exec(`INSERT INTO endpoint_secrets (endpoint, kind, name, key_id, box, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		endpoint, kind, name, s.KeyID, append([]byte{}, s.Box...), nanos(s.CreatedAt), nanos(s.ExpiresAt))
}
