package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store"
)

// moveResults moves what is finished into the history, lets the rest wait, and
// writes the endpoints' health and statistics.
const moveResults = `WITH gone AS (
	DELETE FROM due d USING unnest($1::bigint[]) u (id) WHERE d.id = u.id
	RETURNING d.id, d.event, d.tenant, d.endpoint, d.replay_id, d.round, d.late, d.reason, d.extra, d.before
), done AS (
	INSERT INTO deliveries (id, event, tenant, endpoint, replay_id, tries, attempts, waits, round, state, late, reason, counted, log)
	SELECT g.id, g.event, g.tenant, g.endpoint, g.replay_id, u.tries, u.attempts, u.waits, g.round, u.state, g.late,
		CASE WHEN g.extra AND u.state = g.before AND u.state <> 1 THEN g.reason ELSE '' END, u.counted, u.log
	FROM gone g JOIN unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $44::bigint[]) u (id, tries, attempts, waits, state, log, counted) USING (id)
), wait AS (
	-- in the line of an ordered endpoint it stays parked
	UPDATE due d SET run = CASE WHEN EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = d.endpoint AND l.ordered)
			THEN CASE WHEN u.extra OR d.round > 0 OR d.late OR d.replay_id <> 0
				OR EXISTS (SELECT 1 FROM events e WHERE e.id = d.event AND (e.deliver_at <> 0 OR e.kind = 1)) THEN 0 ELSE -1 END
			ELSE 0 END,
		next_at = u.next_at, tries = u.tries, attempts = u.attempts, waits = u.waits, extra = u.extra, before = u.before,
		manual = d.manual AND u.attempts = d.attempts, log = u.log
	FROM unnest($7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[], $13::bigint[], $14::bytea[])
		u (id, next_at, tries, attempts, waits, extra, before, log) WHERE d.id = u.id
	RETURNING d.id, d.run
), health AS (
	UPDATE endpoint_health h SET failing_since = u.failing_since, failures = u.failures, last_success = u.last_success,
		last_failure = u.last_failure, hold_until = u.hold_until, warned_at = u.warned_at, last_error = u.last_error
	FROM unnest($15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[])
		u (endpoint, failing_since, failures, last_success, last_failure, hold_until, warned_at, last_error) WHERE h.endpoint = u.endpoint
), mark AS (
	INSERT INTO commits (key, value, at) VALUES ($23, $24, $25) ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at
)`

// insertHours adds to the statistics; its 18 parameters begin at first.
func insertHours(first int) string {
	arrays := make([]string, 18)
	for i := range arrays {
		arrays[i] = fmt.Sprintf("$%d::int[]", first+i)
		if i < 2 {
			arrays[i] = fmt.Sprintf("$%d::bigint[]", first+i)
		}
	}
	return `
INSERT INTO endpoint_stats AS s (endpoint, hour, ok, failed, succeeded, exhausted, canceled, expired, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9)
SELECT * FROM unnest(` + strings.Join(arrays, ", ") + `)
ON CONFLICT (endpoint, hour) DO UPDATE SET ok = s.ok + excluded.ok, failed = s.failed + excluded.failed,
	succeeded = s.succeeded + excluded.succeeded, exhausted = s.exhausted + excluded.exhausted,
	canceled = s.canceled + excluded.canceled, expired = s.expired + excluded.expired,
	b0 = s.b0 + excluded.b0, b1 = s.b1 + excluded.b1, b2 = s.b2 + excluded.b2, b3 = s.b3 + excluded.b3, b4 = s.b4 + excluded.b4,
	b5 = s.b5 + excluded.b5, b6 = s.b6 + excluded.b6, b7 = s.b7 + excluded.b7, b8 = s.b8 + excluded.b8, b9 = s.b9 + excluded.b9`
}

var (
	writeResults = moveResults + `, hours AS (` + insertHours(26) + `) SELECT id FROM wait WHERE run = -1`
	writeHours   = insertHours(1)
)

// write writes all that changed and commits. When it fails and the connection broke,
// the commit may have taken place.
func (set *resultSet) write(s *Store) error {
	tx := set.tx
	var b pgx.Batch
	mark := []any{tx.mark.key, tx.mark.value, nanos(s.now())}
	args, some := set.columns(mark)
	if len(tx.replays) > 0 { // all lock them before statistics
		b.Queue(writeReplays, replayColumnsOf(tx.replays)...)
	}
	if some {
		b.Queue(writeResults, args...)
	}
	for id, d := range set.rows { // rare: results for what was settled meanwhile
		if d.settled && d.dirty {
			b.Queue(`UPDATE deliveries SET state = $2, tries = $3, attempts = $4, reason = $5, log = $6, counted = $7 WHERE id = $1`,
				int64(id), int64(d.progress.State), d.progress.Tries, d.progress.Attempts, string(d.reason), d.log, d.counted)
		}
	}
	switch {
	case b.Len() == 0:
		tx.unmark() // nothing to prove
	case !some:
		b.Queue(writeMark, mark...)
	}
	b.Queue("COMMIT")
	answers := tx.c.SendBatch(tx.ctx, &b)
	var err error
	var last string
	rest := b.Len()
	if len(tx.replays) > 0 {
		_, err = answers.Exec()
		rest--
	}
	if some {
		rows, e := answers.Query()
		parked, e := collect(rows, e)
		if err = errors.Join(err, e); err == nil {
			set.parked = parked
		}
		rest--
	}
	for range rest {
		tag, e := answers.Exec()
		err, last = errors.Join(err, e), tag.String()
	}
	if err = errors.Join(err, answers.Close()); err == nil && last != "COMMIT" {
		err = errors.New("postgres: the commit ended as " + last)
	}
	return err
}

// columns are the parameters of writeResults, those of its mark among them; some
// tells that there is something to write.
func (set *resultSet) columns(mark []any) (args []any, some bool) {
	var done struct {
		id, tries, attempts, waits, state, counted []int64
		log                                        [][]byte
	}
	var wait struct {
		id, next, tries, attempts, waits, before []int64
		extra                                    []bool
		log                                      [][]byte
	}
	for _, id := range slices.Sorted(maps.Keys(set.rows)) {
		d := set.rows[id]
		p := &d.progress
		switch {
		case !d.dirty || d.settled:
		case p.State.Final():
			set.tx.moved[d.tenant]--
			done.id, done.tries, done.attempts = append(done.id, int64(id)), append(done.tries, int64(p.Tries)), append(done.attempts, int64(p.Attempts))
			done.waits, done.state, done.log = append(done.waits, int64(p.Waits)), append(done.state, int64(p.State)), append(done.log, d.log)
			done.counted = append(done.counted, d.counted)
		default:
			next := nanos(p.NextAt)
			if set.lowest == 0 || next < set.lowest {
				set.lowest = next
			}
			wait.id, wait.next, wait.tries = append(wait.id, int64(id)), append(wait.next, next), append(wait.tries, int64(p.Tries))
			wait.attempts, wait.waits = append(wait.attempts, int64(p.Attempts)), append(wait.waits, int64(p.Waits))
			wait.extra, wait.before, wait.log = append(wait.extra, p.Extra), append(wait.before, int64(p.Before)), append(wait.log, d.log)
		}
	}
	var health [7][]int64
	var lastErrors []string
	for _, endpoint := range slices.Sorted(maps.Keys(set.health)) {
		h := set.health[endpoint]
		if !h.dirty {
			continue
		}
		for i, v := range append([]int64{endpoint}, h.values()...) {
			health[i] = append(health[i], v)
		}
		lastErrors = append(lastErrors, h.LastError)
	}
	args = append(args, done.id, done.tries, done.attempts, done.waits, done.state, done.log,
		wait.id, wait.next, wait.tries, wait.attempts, wait.waits, wait.extra, wait.before, wait.log)
	for _, column := range health {
		args = append(args, column)
	}
	args = append(args, lastErrors)
	some = len(done.id)+len(wait.id)+len(health[0])+len(set.tx.hours) > 0
	return append(append(append(args, mark...), hourColumns(set.tx.hours)...), done.counted), some
}

// hourColumns are the parameters of insertHours, in the order in which all lock.
func hourColumns(hours store.Hours) []any {
	keys := slices.SortedFunc(maps.Keys(hours), func(a, b store.HourKey) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Hour, b.Hour))
	})
	var endpoints, at []int64
	columns := make([][]int32, 16)
	for _, k := range keys {
		h := hours[k]
		endpoints, at = append(endpoints, k.Endpoint), append(at, k.Hour)
		values := append([]int{h.OK, h.Failed, h.Succeeded, h.Exhausted, h.Canceled, h.Expired}, h.Buckets[:]...)
		for i, v := range values {
			columns[i] = append(columns[i], int32(v))
		}
	}
	args := []any{endpoints, at}
	for _, c := range columns {
		args = append(args, c)
	}
	return args
}
