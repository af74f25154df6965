package postgres

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// settledRow is a delivery that was finished without an attempt.
type settledRow struct {
	store.Ended
	event, tenant, endpoint int64
	run                     int64 // that owned it
	reopened                bool  // see [store.Reopened]
}

// selectEnds reads deliveries that are locked: a statement of its own, as one that locks
// a row sees it as it was when the statement began.
const selectEnds = `SELECT d.id, d.event, d.tenant, d.endpoint, d.run, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.late, d.reason, d.replay_id, d.counted,
	coalesce((SELECT e.kind FROM events e WHERE e.id = d.event), 0) FROM due d WHERE d.id = ANY ($1)`

// moveEnds moves them into the history.
const moveEnds = `WITH g AS (
	DELETE FROM due d WHERE d.id = ANY ($1) RETURNING d.*
) INSERT INTO deliveries (id, event, tenant, endpoint, replay_id, tries, attempts, waits, round, state, late, reason, counted, log)
	SELECT g.id, g.event, g.tenant, g.endpoint, g.replay_id, g.tries, g.attempts, g.waits, g.round, u.state, g.late, u.reason, u.counted, g.log
	FROM g JOIN unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) u (id, state, reason, counted) USING (id)`

// settle finishes the open deliveries that a query finds and locks, without an attempt,
// as [store.End] says of each.
func (tx *txn) settle(state posthorn.State, reason posthorn.Reason, now time.Time, query string, args ...any) (list []settledRow, err error) {
	locked, err := tx.ids(query, args...)
	if err != nil || len(locked) == 0 {
		return nil, err
	}
	var ids, states, counts []int64
	var reasons []string
	err = tx.rows(selectEnds, []any{locked}, func(r scanner) error {
		var d settledRow
		var p posthorn.Progress
		var id, replay, counted int64
		var kind posthorn.EventKind
		var old posthorn.Reason
		var late bool
		if err := r.Scan(&id, &d.event, &d.tenant, &d.endpoint, &d.run, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &late, &old, &replay, &counted, &kind); err != nil {
			return err
		}
		d.Ended = store.End(p, state, old, reason)
		d.reopened = store.Reopened(p, late)
		counted = tx.hours.Move(d.endpoint, kind, p, d.Progress, counted, now)
		tx.replays.Count(replay, p, d.Progress)
		tx.moved[d.tenant]--
		list = append(list, d)
		ids, states, reasons, counts = append(ids, id), append(states, int64(d.State)), append(reasons, string(d.Reason)), append(counts, counted)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, tx.exec(moveEnds, ids, states, reasons, counts)
}

// takeBack tells the engines of deliveries that were settled and that they may have in
// memory. What is of deleted endpoints and of erased payloads, they were told of already.
func (tx *txn) takeBack(rows []settledRow) {
	told := map[int64]bool{}
	for _, d := range rows {
		if d.run > 0 && !told[d.endpoint] {
			told[d.endpoint] = true
			tx.notice(store.Notice{Kind: store.NoticeCanceled, Tenant: d.tenant, Endpoint: d.endpoint})
		}
	}
}

// skipLocked ends a query that locks what others do not.
const skipLocked = ` FOR UPDATE SKIP LOCKED`
