package sqlite

import (
	"context"
	"strings"

	"github.com/posthorn/posthorn/internal/store"
)

// keyMeta begins the keys of meta that hold fingerprints.
const keyMeta = "key/"

// NoteKeys implements [store.Sealing].
func (s *Store) NoteKeys(ctx context.Context, keys map[string]int64) error {
	for id := range keys {
		if err := store.CheckText(id); err != nil {
			return err
		}
	}
	return s.writer.do(ctx, func(tx *txn) error {
		if err := tx.exec(`DELETE FROM meta WHERE key >= 'key/' AND key < 'key0'`); err != nil { // 0 follows /
			return err
		}
		for id, fingerprint := range keys {
			if err := tx.setMeta(keyMeta+id, fingerprint); err != nil {
				return err
			}
		}
		return nil
	})
}

// NotedKeys implements [store.Sealing].
func (s *Store) NotedKeys(ctx context.Context) (map[string]int64, error) {
	keys := make(map[string]int64)
	_, err := all(ctx, s.readers, func(r scanner) (_ struct{}, err error) {
		var name string
		var fingerprint int64
		if err = r.Scan(&name, &fingerprint); err == nil {
			keys[strings.TrimPrefix(name, keyMeta)] = fingerprint
		}
		return struct{}{}, err
	}, `SELECT key, value FROM meta WHERE key >= 'key/' AND key < 'key0'`)
	return keys, err
}

// Boxes implements [store.Sealing]: the secrets by their rows, then the answers
// by the time of their end. Kept beside each other in a page they are not: the
// end of the secrets is found by a page that is not full.
func (s *Store) Boxes(ctx context.Context, after store.Box, limit int) (boxes []store.Box, err error) {
	if after.Kind != store.BoxAnswer {
		if boxes, err = all(ctx, s.readers, scanSecretBox, `SELECT s.id, s.endpoint, e.tenant, s.kind, s.key_id, s.box
			FROM endpoint_secrets s JOIN endpoints e ON e.id = s.endpoint WHERE s.id > ? ORDER BY s.id LIMIT ?`, after.Row, limit); err != nil {
			return nil, err
		}
		after = store.Box{}
	}
	if len(boxes) == limit {
		return boxes, nil
	}
	answers, err := all(ctx, s.readers, scanAnswerBox, `SELECT expires, tenant, key, answer FROM idempotency INDEXED BY idempotency_expires
		WHERE expires <> 0 AND kind = 2 AND length(answer) > 0 AND (expires, tenant, key) > (?, ?, ?)
		ORDER BY expires, tenant, key LIMIT ?`, after.Row, after.Tenant, after.Key, limit-len(boxes))
	return append(boxes, answers...), err
}

func scanSecretBox(r scanner) (b store.Box, err error) {
	var kind string
	err = r.Scan(&b.Row, &b.Endpoint, &b.Tenant, &kind, &b.KeyID, &b.Sealed)
	b.Kind = store.BoxSecret
	if kind == "header" {
		b.Kind = store.BoxHeader
	}
	return b, err
}

func scanAnswerBox(r scanner) (b store.Box, err error) {
	b.Kind = store.BoxAnswer
	return b, r.Scan(&b.Row, &b.Tenant, &b.Key, &b.Sealed)
}

// Reseal implements [store.Sealing].
func (s *Store) Reseal(ctx context.Context, c store.Change, boxes []store.Resealed) (n int, err error) {
	err = s.change(ctx, c, func(tx *txn) error {
		n = 0 // apply may run more than once
		for i := range boxes {
			changed, err := tx.reseal(&boxes[i])
			if err != nil {
				return err
			}
			n += changed
		}
		if n == 0 {
			return nil
		}
		return tx.audit(c, 0, store.Audit{Action: "key.rotate", After: map[string]int{"sealed_anew": n}})
	})
	return n, err
}

func (tx *txn) reseal(b *store.Resealed) (int, error) {
	if b.Kind == store.BoxAnswer {
		return tx.execCount(`UPDATE idempotency SET answer = ? WHERE tenant = ? AND kind = 2 AND key = ? AND expires = ? AND answer = ?`,
			b.NewSealed, b.Tenant, b.Key, b.Row, b.Sealed)
	}
	return tx.execCount(`UPDATE endpoint_secrets SET key_id = ?, box = ? WHERE id = ? AND key_id = ? AND box = ?`,
		b.NewKeyID, b.NewSealed, b.Row, b.KeyID, b.Sealed)
}
