package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func onceKey(o *store.Once) string { return o.Route + "\n" + o.Key }

const selectOnce = `SELECT hash, answer FROM idempotency WHERE tenant = ? AND kind = 2 AND key = ? AND expires > ?`

// onceError says what a stored request means for one that comes now.
func onceError(o *store.Once, hash, answer []byte) error {
	if bytes.Equal(hash, o.Hash[:]) {
		return &store.ErrRepeated{Answer: answer}
	}
	return store.ErrOnceReused
}

// LookupOnce implements [store.Log].
func (s *Store) LookupOnce(ctx context.Context, o store.Once, now time.Time) error {
	var hash, answer []byte
	err := s.readers.QueryRowContext(ctx, selectOnce, o.Tenant, onceKey(&o), nanos(now)).Scan(&hash, &answer)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return readError(ctx, err)
	}
	return onceError(&o, hash, answer)
}

// checkOnce refuses a request that was seen before.
func (tx *txn) checkOnce(o *store.Once, now time.Time) error {
	if o == nil {
		return nil
	}
	var hash, answer []byte
	found, err := tx.row(selectOnce, []any{o.Tenant, onceKey(o), nanos(now)}, &hash, &answer)
	if err != nil || !found {
		return err
	}
	return refuse(onceError(o, hash, answer))
}

func (tx *txn) storeOnce(o *store.Once, answer []byte) error {
	if o == nil {
		return nil
	}
	return tx.exec(`INSERT OR REPLACE INTO idempotency (tenant, kind, key, hash, event, answer, expires) VALUES (?, 2, ?, ?, 0, ?, ?)`,
		o.Tenant, onceKey(o), o.Hash[:], answer, nanos(o.Expires))
}

// eventByKey finds the event that a publisher's own id named before.
func (tx *txn) eventByKey(tenant int64, key string) (id posthorn.ID, hash []byte, err error) {
	_, err = tx.row(`SELECT event, hash FROM idempotency WHERE tenant = ? AND kind = 1 AND key = ?`, []any{tenant, key}, (*int64)(&id), &hash)
	return id, hash, err
}
