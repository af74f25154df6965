package sqlite

import (
	"context"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

const tokenColumns = `id, ref, tenant, name, hash, scopes, created_at, expires_at, last_used_at`

func scanToken(r scanner) (t store.Token, err error) {
	var hash []byte
	var scopes string
	var created, expires, used int64
	err = r.Scan(&t.ID, &t.Ref, &t.Tenant, &t.Name, &hash, &scopes, &created, &expires, &used)
	copy(t.Hash[:], hash)
	t.Scopes = strings.Fields(scopes)
	t.CreatedAt, t.ExpiresAt, t.LastUsedAt = fromNanos(created), fromNanos(expires), fromNanos(used)
	return t, err
}

// CreateToken implements [store.Tokens].
func (s *Store) CreateToken(ctx context.Context, c store.Change, t store.Token) (store.Token, error) {
	scopes := strings.Join(t.Scopes, " ")
	if err := store.CheckText(t.Ref, t.Name, scopes); err != nil {
		return store.Token{}, err
	}
	if t.CreatedAt.IsZero() {
		t.CreatedAt = c.At
	}
	err := s.change(ctx, c, func(tx *txn) error {
		if t.Tenant != 0 {
			if _, err := tx.tenant(t.Tenant); err != nil {
				return err
			}
		}
		var taken int64
		found, err := tx.row(`SELECT id FROM tokens WHERE ref = ? OR hash = ?`, []any{t.Ref, t.Hash[:]}, &taken)
		if err != nil {
			return err
		}
		if found {
			return refuse(store.ErrExists)
		}
		t.ID, err = tx.insert(`INSERT INTO tokens (ref, tenant, name, hash, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.Ref, t.Tenant, t.Name, t.Hash[:], scopes, nanos(t.CreatedAt), nanos(t.ExpiresAt))
		if err != nil {
			return err
		}
		return tx.audit(c, t.Tenant, store.Audit{Action: "token.create", Subject: t.Ref, After: store.AuditToken(&t)})
	})
	if err != nil {
		return store.Token{}, err
	}
	t.CreatedAt, t.ExpiresAt = t.CreatedAt.UTC(), t.ExpiresAt.UTC()
	return t, nil
}

// TokenByHash implements [store.Tokens].
func (s *Store) TokenByHash(ctx context.Context, hash [32]byte) (store.Token, error) {
	return one(ctx, s, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE hash = ?`, hash[:])
}

// Tokens implements [store.Tokens].
func (s *Store) Tokens(ctx context.Context, tenant, before int64, limit int) ([]store.Token, error) {
	if tenant < 0 {
		return all(ctx, s.readers, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE id < ? ORDER BY id DESC LIMIT ?`, below(before), limit)
	}
	return all(ctx, s.readers, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?`,
		tenant, below(before), limit)
}

// DeleteToken implements [store.Tokens].
func (s *Store) DeleteToken(ctx context.Context, c store.Change, tenant int64, ref string) error {
	return s.change(ctx, c, func(tx *txn) error {
		var t store.Token
		err := tx.rows(`SELECT `+tokenColumns+` FROM tokens WHERE ref = ?`, []any{ref}, func(r scanner) (err error) {
			t, err = scanToken(r)
			return err
		})
		if err != nil {
			return err
		}
		if t.ID == 0 || tenant >= 0 && tenant != t.Tenant {
			return refuse(store.ErrNotFound)
		}
		if err := tx.exec(`DELETE FROM tokens WHERE id = ?`, t.ID); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeToken})
		return tx.audit(c, t.Tenant, store.Audit{Action: "token.delete", Subject: ref, Before: store.AuditToken(&t)})
	})
}

// TouchTokens implements [store.Tokens].
func (s *Store) TouchTokens(ctx context.Context, used map[int64]time.Time) error {
	return s.writer.do(ctx, func(tx *txn) error {
		for id, at := range used {
			if err := tx.exec(`UPDATE tokens SET last_used_at = max(last_used_at, ?) WHERE id = ?`, nanos(at), id); err != nil {
				return err
			}
		}
		return nil
	})
}
