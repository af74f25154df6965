package postgres

import (
	"github.com/posthorn/posthorn"
)

// What due.run says of a row that no run owns.
const (
	waiting = 0
	parked  = -1
)

// healthRow is an endpoint's health within a transaction.
type healthRow struct {
	posthorn.Health
	dirty bool

	since, success, failure, hold, warned int64
}

const healthColumns = `h.failing_since, h.failures, h.last_success, h.last_failure, h.hold_until, h.warned_at, h.last_error`

func (h *healthRow) dest() []any {
	return []any{&h.since, &h.Failures, &h.success, &h.failure, &h.hold, &h.warned, &h.LastError}
}

// load takes over what dest was scanned into.
func (h *healthRow) load() {
	h.FailingSince, h.LastSuccess, h.LastFailure = fromNanos(h.since), fromNanos(h.success), fromNanos(h.failure)
	h.HoldUntil, h.WarnedAt = fromNanos(h.hold), fromNanos(h.warned)
}

func (h *healthRow) values() []int64 {
	return []int64{nanos(h.FailingSince), int64(h.Failures), nanos(h.LastSuccess), nanos(h.LastFailure), nanos(h.HoldUntil), nanos(h.WarnedAt)}
}

func scanHealth(r scanner) (posthorn.Health, error) {
	var h healthRow
	err := r.Scan(h.dest()...)
	h.load()
	return h.Health, err
}

// healthOf reads and locks an endpoint's health. Where a transaction locks more
// of an endpoint, this comes first: health, endpoint, tenant.
func (tx *txn) healthOf(endpoint int64) (*healthRow, error) {
	h := &healthRow{}
	_, err := tx.row(`SELECT `+healthColumns+` FROM endpoint_health h WHERE endpoint = $1 FOR UPDATE`, []any{endpoint}, h.dest()...)
	h.load()
	return h, err
}

func (tx *txn) writeHealth(endpoint int64, h *healthRow) error {
	args := []any{endpoint}
	for _, v := range h.values() {
		args = append(args, v)
	}
	args = append(args, h.LastError)
	return tx.exec(`UPDATE endpoint_health SET failing_since = $2, failures = $3, last_success = $4, last_failure = $5, hold_until = $6, warned_at = $7, last_error = $8
		WHERE endpoint = $1`, args...)
}
