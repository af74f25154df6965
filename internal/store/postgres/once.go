package postgres

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// What a row of idempotency is for.
const (
	keyOfEvent = 1
	keyOfOnce  = 2
)

func onceKey(o *store.Once) string { return o.Route + "\n" + o.Key }

const selectOnce = `SELECT hash, answer FROM idempotency WHERE tenant = $1 AND kind = 2 AND key = $2 AND expires > $3`

// onceError says what a stored request means for one that comes now.
func onceError(o *store.Once, hash, answer []byte) error {
	if bytes.Equal(hash, o.Hash[:]) {
		return &store.ErrRepeated{Answer: answer}
	}
	return store.ErrOnceReused
}

type onceRow struct{ hash, answer []byte }

// LookupOnce implements [store.Log].
func (s *Store) LookupOnce(ctx context.Context, o store.Once, now time.Time) error {
	row, err := one(ctx, s, func(r scanner) (o onceRow, err error) { return o, r.Scan(&o.hash, &o.answer) },
		selectOnce, o.Tenant, onceKey(&o), nanos(now))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return onceError(&o, row.hash, row.answer)
}

// checkOnce refuses a request that was seen before.
func (tx *txn) checkOnce(o *store.Once, now time.Time) error {
	if o == nil {
		return nil
	}
	var row onceRow
	found, err := tx.row(selectOnce, []any{o.Tenant, onceKey(o), nanos(now)}, &row.hash, &row.answer)
	if err != nil {
		return err
	}
	if found {
		return onceError(o, row.hash, row.answer)
	}
	// What is over must not stand in the way of the new one.
	return tx.exec(`DELETE FROM idempotency WHERE tenant = $1 AND kind = 2 AND key = $2 AND expires <= $3`, o.Tenant, onceKey(o), nanos(now))
}

// storeOnce keeps the answer. Of two that do it at a time one meets a unique
// violation, is repeated, and finds the other's.
func (tx *txn) storeOnce(o *store.Once) error {
	if o == nil {
		return nil
	}
	return tx.exec(`INSERT INTO idempotency (tenant, kind, key, hash, event, answer, expires) VALUES ($1, 2, $2, $3, 0, $4, $5)`,
		o.Tenant, onceKey(o), o.Hash[:], o.Answer, nanos(o.Expires))
}
