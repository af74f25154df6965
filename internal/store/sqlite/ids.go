package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
)

// errTooMany: an event and its deliveries take their ids from one millisecond.
var errTooMany = fmt.Errorf("sqlite: an event can have at most %d deliveries", posthorn.MaxSequence-1)

// allocate gives out n contiguous ids of one millisecond, above all before
// and not before at.
func (tx *txn) allocate(at time.Time, n int) (posthorn.ID, error) {
	if n > posthorn.MaxSequence {
		return 0, errTooMany
	}
	if now := tx.w.now(); now.After(at) {
		at = now
	}
	first := posthorn.MakeID(at, tx.w.node, 0)
	if last := tx.last; first.Time().Compare(last.Time()) <= 0 {
		// The clock has not moved on, or stepped back.
		next := int(last.Sequence()) + 1
		if last.Node() == tx.w.node && next+n <= posthorn.MaxSequence {
			first = posthorn.MakeID(last.Time(), tx.w.node, uint16(next))
		} else {
			first = posthorn.MakeID(last.Time().Add(time.Millisecond), tx.w.node, 0)
		}
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

var errNUL = errors.New("sqlite: text holds a NUL byte")

func checkText(texts ...string) error {
	for _, s := range texts {
		if strings.IndexByte(s, 0) >= 0 {
			return errNUL
		}
	}
	return nil
}
