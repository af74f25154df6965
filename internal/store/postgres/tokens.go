package postgres

import (
	"context"
	"maps"
	"slices"
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
		found, err := tx.row(`SELECT id FROM tokens WHERE ref = $1 OR hash = $2`, []any{t.Ref, t.Hash[:]}, &taken)
		if err != nil {
			return err
		}
		if found {
			return store.ErrExists
		}
		if _, err := tx.row(`INSERT INTO tokens (ref, tenant, name, hash, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
			[]any{t.Ref, t.Tenant, t.Name, t.Hash[:], scopes, nanos(t.CreatedAt), nanos(t.ExpiresAt)}, &t.ID); err != nil {
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
	return one(ctx, s, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE hash = $1`, hash[:])
}

// Tokens implements [store.Tokens].
func (s *Store) Tokens(ctx context.Context, tenant, before int64, limit int) ([]store.Token, error) {
	if tenant < 0 {
		return all(ctx, s, s.other, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE id < $1 ORDER BY id DESC LIMIT $2`, below(before), limit)
	}
	return all(ctx, s, s.other, scanToken, `SELECT `+tokenColumns+` FROM tokens WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3`,
		tenant, below(before), limit)
}

// DeleteToken implements [store.Tokens].
func (s *Store) DeleteToken(ctx context.Context, c store.Change, tenant int64, ref string) error {
	return s.change(ctx, c, func(tx *txn) error {
		var t store.Token
		err := tx.rows(`SELECT `+tokenColumns+` FROM tokens WHERE ref = $1 FOR UPDATE`, []any{ref}, func(r scanner) (err error) {
			t, err = scanToken(r)
			return err
		})
		if err != nil {
			return err
		}
		if t.ID == 0 || tenant >= 0 && tenant != t.Tenant {
			return store.ErrNotFound
		}
		if err := tx.exec(`DELETE FROM tokens WHERE id = $1`, t.ID); err != nil {
			return err
		}
		tx.notice(store.Notice{Kind: store.NoticeToken})
		return tx.audit(c, t.Tenant, store.Audit{Action: "token.delete", Subject: ref, Before: store.AuditToken(&t)})
	})
}

// TouchTokens implements [store.Tokens].
func (s *Store) TouchTokens(ctx context.Context, used map[int64]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(used))
	times := make([]int64, len(ids))
	for i, id := range ids {
		times[i] = nanos(used[id])
	}
	return s.write(ctx, func(tx *txn) error {
		return tx.exec(`UPDATE tokens t SET last_used_at = u.at FROM unnest($1::bigint[], $2::bigint[]) u (id, at)
			WHERE t.id = u.id AND t.last_used_at < u.at`, ids, times)
	})
}
