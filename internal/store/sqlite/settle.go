package sqlite

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// openRow is an open delivery that is to be settled.
type openRow struct {
	id               posthorn.ID
	tenant, endpoint int64
	place            place
}

func (tx *txn) openRows(query string, args ...any) (list []openRow, err error) {
	err = tx.rows(query, args, func(r scanner) error {
		var o openRow
		err := r.Scan((*int64)(&o.id), &o.tenant, &o.endpoint, &o.place)
		list = append(list, o)
		return err
	})
	return list, err
}

// settledRow is what was found of a delivery that was settled.
type settledRow struct {
	store.Ended
	event    posthorn.ID
	reopened bool // see [store.Reopened]
}

// settle finishes an open delivery without an attempt, as [store.End] says.
func (tx *txn) settle(o openRow, state posthorn.State, reason posthorn.Reason, now time.Time) (s settledRow, err error) {
	var p posthorn.Progress
	var kind posthorn.EventKind
	var replay, counted int64
	var old posthorn.Reason
	var late bool
	if _, err := tx.row(`SELECT d.event, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.late, d.reason, d.replay_id, d.counted,
			coalesce((SELECT e.kind FROM events e WHERE e.id = d.event), 0) FROM deliveries d WHERE d.id = ?`, []any{int64(o.id)},
		(*int64)(&s.event), &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &late, &old, &replay, &counted, &kind); err != nil {
		return s, err
	}
	s.reopened = store.Reopened(p, late)
	s.Ended = store.End(p, state, old, reason)
	counted = tx.hours.Move(o.endpoint, kind, p, s.Progress, counted, now)
	tx.replays.Count(replay, p, s.Progress)
	tx.move(o.tenant, o.endpoint, o.place, nowhere)
	return s, tx.exec(`UPDATE deliveries SET state = ?, place = 0, next_at = 0, extra = 0, before = 0, manual = 0, reason = ?, counted = ? WHERE id = ?`,
		int64(s.State), string(s.Reason), counted, int64(o.id))
}

// takeBack settles deliveries, and tells the engine of those that it may have in
// memory. What is of deleted endpoints and of erased payloads, it was told of already.
func (tx *txn) takeBack(rows []openRow, state posthorn.State, reason posthorn.Reason, now time.Time) (list []settledRow, err error) {
	told := map[int64]bool{}
	for _, o := range rows {
		s, err := tx.settle(o, state, reason, now)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
		if o.place == owned && !told[o.endpoint] {
			told[o.endpoint] = true
			tx.notice(store.Notice{Kind: store.NoticeCanceled, Tenant: o.tenant, Endpoint: o.endpoint})
		}
	}
	return list, nil
}
