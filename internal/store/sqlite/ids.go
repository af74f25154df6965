package sqlite

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// allocate gives out n contiguous ids of one millisecond, above all before
// and not before at.
func (tx *txn) allocate(at time.Time, n int) (posthorn.ID, error) {
	if now := tx.w.now(); now.After(at) {
		at = now
	}
	first, err := store.NextIDs(tx.last, tx.w.node, at, n)
	if err != nil {
		return 0, err
	}
	tx.last = first + posthorn.ID(n-1)
	return first, nil
}

// minLead is how far an id may be ahead of its event's acceptance before that
// is written down.
const minLead = time.Minute

// noteLead remembers how far ids run ahead of the acceptance of their events,
// because lists turn times into bounds of ids.
func (tx *txn) noteLead(id posthorn.ID, accepted time.Time) error {
	lead := id.Time().Sub(accepted)
	if lead <= tx.lead {
		return nil
	}
	tx.lead = 2 * lead
	return tx.setMeta("lead", int64(tx.lead))
}

func (tx *txn) setMeta(key string, value int64) error {
	return tx.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
}

// meta returns a stored figure, or missing when there is none.
func (tx *txn) meta(key string, missing int64) (int64, error) {
	_, err := tx.row(`SELECT value FROM meta WHERE key = ?`, []any{key}, &missing)
	return missing, err
}
