package sqlite

import (
	"time"

	"github.com/posthorn/posthorn"
)

// healthRow is an endpoint's health within a transaction.
type healthRow struct {
	posthorn.Health
	stored time.Time // the last success that the row has
	stale  bool      // but for LastSuccess: the row is to be read
	dirty  bool
	gone   bool // the endpoint was erased
}

const healthColumns = `failing_since, failures, last_success, last_failure, hold_until, warned_at, last_error`

func scanHealth(r scanner) (h posthorn.Health, err error) {
	var since, success, failure, hold, warned int64
	err = r.Scan(&since, &h.Failures, &success, &failure, &hold, &warned, &h.LastError)
	h.FailingSince, h.LastSuccess, h.LastFailure = fromNanos(since), fromNanos(success), fromNanos(failure)
	h.HoldUntil, h.WarnedAt = fromNanos(hold), fromNanos(warned)
	return h, err
}

func (tx *txn) healthOf(endpoint int64) (*healthRow, error) {
	if h, ok := tx.health[endpoint]; ok {
		return h, nil
	}
	known, ok := tx.w.memo.of(endpoint)
	if ok && !known.stale {
		tx.health[endpoint] = &known
		return &known, nil
	}
	h := &healthRow{}
	err := tx.rows(selectHealth, []any{endpoint}, func(r scanner) (err error) {
		h.Health, err = scanHealth(r)
		h.stored = h.LastSuccess
		return err
	})
	if err != nil {
		return nil, err
	}
	h.Health = tx.w.memo.latest(endpoint, h.Health)
	tx.health[endpoint] = h
	return h, nil
}

func (tx *txn) writeHealth() error {
	if err := tx.writeSuccesses(tx.w.memo.excess()); err != nil {
		return err
	}
	for endpoint, h := range tx.health {
		if !h.dirty || h.gone {
			continue
		}
		h.stored, h.dirty = h.LastSuccess, false
		if err := tx.exec(`INSERT OR REPLACE INTO endpoint_health (endpoint, `+healthColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			endpoint, nanos(h.FailingSince), h.Failures, nanos(h.LastSuccess), nanos(h.LastFailure), nanos(h.HoldUntil), nanos(h.WarnedAt), h.LastError); err != nil {
			return err
		}
	}
	return nil
}
