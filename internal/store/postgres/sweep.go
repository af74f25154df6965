package postgres

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// sweepRows bounds what one slice of Sweep reads and changes.
const sweepRows = 1000

// upkeep is where this node's sweep goes on.
type upkeep struct {
	mu    sync.Mutex
	at    marks // how far the sweep has come
	aging store.Aging
	parts time.Time // when partitions were looked after
	late  bool      // those of the weeks to come could not be made
	tried time.Time // when that was found

	dropping atomic.Bool // old weeks, beside
}

// marks is how far a sweep has come. They are forgotten with the node.
type marks struct {
	statsFor int64 // statistics of endpoints up to here were looked at
	payloads int64 // those of events up to here were erased
	logs     int64 // attempts of deliveries up to here were erased

	refused   time.Time // when all tenants' refused rows of the outbox were looked at
	refusedOf int64     // those of tenants up to here were, since
}

// sweep is one slice in one transaction.
type sweep struct {
	tx     *txn
	now    time.Time
	keep   store.Retention
	budget int
	store.Swept
	bytes int64 // of payloads that were deleted
	at    marks
	// aging says what may go by its age; settled is a bound for it, 0 for none.
	aging   *store.Aging
	settled posthorn.ID
}

// sweepTurn is the row of whoever sweeps. A node up to schema version 1 does not look
// there and may sweep at the same time, which costs a wait: whatever finishes,
// deletes or counts a row has it locked.
const sweepTurn = `SELECT true FROM locks WHERE purpose = 'sweep' FOR NO KEY UPDATE SKIP LOCKED`

// noteSweep notes, now and then, that somebody sweeps; see [store.Upkeep].
const noteSweep = `UPDATE locks SET done_at = clock_timestamp() WHERE purpose = 'sweep' AND done_at NOT BETWEEN clock_timestamp() - interval '5 s' AND clock_timestamp()`

// Sweep implements [store.Keeper]. One node sweeps at a time; for the others, and
// for one whose clock is wrong, there is nothing to do. A slice touches about a thousand rows at most.
func (s *Store) Sweep(ctx context.Context, now time.Time, r store.Retention) (store.Swept, error) {
	if err := s.serving(); err != nil {
		return store.Swept{}, err
	}
	if !s.clocks.trusted() {
		return store.Swept{}, nil
	}
	s.upkeep.mu.Lock()
	defer s.upkeep.mu.Unlock()
	sure := s.upkeep.aging.Sure(r.Ran)
	var sw sweep
	err := s.transact(ctx, patience{limit: s.o.Deadlines.Walk}, func(tx *txn) error {
		sw = sweep{tx: tx, now: now, keep: r.Bounded(), budget: sweepRows, at: s.upkeep.at, aging: &s.upkeep.aging}
		var mine bool
		if _, err := tx.row(sweepTurn, nil, &mine); err != nil || !mine {
			return err
		}
		if err := tx.assign(); err != nil {
			return err
		}
		if err := sw.run(sure); err != nil {
			return err
		}
		if err := tx.exec(noteSweep); err != nil {
			return err
		}
		if err := tx.writeKept(); err != nil {
			return err
		}
		return tx.writeHours()
	})
	if err != nil {
		return store.Swept{}, err
	}
	s.upkeep.at = sw.at
	if sw.tx != nil {
		s.kept.recount.Leave(sw.tx.kept)
	}
	if sw.settled != 0 {
		s.upkeep.aging.Settled(sw.settled)
	}
	var gone posthorn.ID
	if sure && r.Events > 0 {
		gone = sw.before(r.Events + store.ExpiredShown)
	}
	s.keepPartitions(ctx, now, gone)
	if !sw.More {
		err = s.recount(ctx, now)
	}
	return sw.Swept, classify(err)
}

// run takes the steps; those that go by age only where the clock is sure.
func (sw *sweep) run(sure bool) error {
	steps := []func() error{sw.cancelDeleted, sw.eraseOutbox, sw.eraseTenants, sw.eraseEndpoints, sw.completeDeletions}
	if sure {
		steps = []func() error{sw.cancelDeleted, sw.expire, sw.deleteOld, sw.eraseOutbox, sw.erasePayloads, sw.deleteDeliveries, sw.eraseLogs,
			sw.eraseTenants, sw.eraseEndpoints, sw.completeDeletions, sw.dropExpired, sw.dropStats, sw.dropAudit}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		if sw.budget <= 0 {
			sw.More = true
			return nil
		}
	}
	return nil
}

// settle settles as expired what outlived its event's time, of the open deliveries that a
// query finds. An attempt of it may be under way: what was opened again may be of an
// event that would go at once. What others hold locked is left out.
func (sw *sweep) settle(query string, args ...any) error {
	rows, err := sw.tx.settle(posthorn.Expired, posthorn.ReasonRetention, sw.now, query+skipLocked, args...)
	if err != nil {
		return err
	}
	sw.tx.takeBack(rows)
	sw.Expired += len(rows)
	sw.budget -= len(rows)
	var reopened []int64
	for _, d := range rows {
		if d.reopened {
			reopened = append(reopened, d.event)
		}
	}
	if len(reopened) == 0 {
		return nil
	}
	return sw.tx.exec(`INSERT INTO spared (event, until) SELECT DISTINCT unnest($1::bigint[]), $2::bigint ON CONFLICT (event) DO UPDATE SET until = excluded.until`,
		reopened, nanos(sw.now.Add(store.ExpiredShown)))
}

// notKept leaves out what is of an event that stays for a while more.
func notKept(event string) string {
	return `NOT EXISTS (SELECT 1 FROM spared WHERE spared.event = ` + event + `)`
}

// cancelDeleted cancels what is open at deleted endpoints.
func (sw *sweep) cancelDeleted() error {
	for sw.budget > 0 {
		var endpoint int64
		var tenantGone, open bool
		found, err := sw.tx.row(`SELECT p.id, NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = p.tenant AND t.deleted_at = 0)
			FROM endpoints p WHERE p.deleted_at <> 0 AND NOT p.settled ORDER BY p.id LIMIT 1`, nil, &endpoint, &tenantGone)
		if err != nil || !found {
			return err
		}
		rows, err := sw.tx.settle(posthorn.Canceled, store.GoneReason(tenantGone), sw.now, `SELECT id FROM due WHERE endpoint = $1 ORDER BY id LIMIT $2`+skipLocked, endpoint, sw.budget)
		sw.Canceled += len(rows)
		if sw.budget -= len(rows); err != nil || sw.budget <= 0 {
			return err
		}
		sw.budget--
		// A result may have held one locked.
		if _, err := sw.tx.row(`SELECT EXISTS (SELECT 1 FROM due WHERE endpoint = $1)`, []any{endpoint}, &open); err != nil || open {
			return err
		}
		for _, query := range []string{
			`UPDATE endpoints SET settled = true WHERE id = $1`,
			`DELETE FROM endpoint_secrets WHERE endpoint = $1`,
		} {
			if err := sw.tx.exec(query, endpoint); err != nil {
				return err
			}
		}
	}
	return nil
}

// expire settles what is still open when its event's time is over.
func (sw *sweep) expire() error {
	if sw.keep.Open() <= 0 {
		return nil
	}
	bound := sw.older(sw.keep.Open())
	err := sw.settle(`SELECT id FROM due WHERE id < $1 ORDER BY id LIMIT $2`, int64(bound), sw.budget)
	if err != nil || sw.budget <= 0 || !sw.aging.Wants() {
		return err
	}
	if err := sw.settle(`SELECT id FROM due WHERE late AND event < $1 LIMIT $2`, int64(bound), sw.budget); err != nil || sw.budget <= 0 {
		return err
	}
	var open bool // a result may have held one locked
	if _, err := sw.tx.row(`SELECT EXISTS (SELECT 1 FROM due WHERE id < $1) OR EXISTS (SELECT 1 FROM due WHERE late AND event < $1)`, []any{int64(bound)}, &open); err != nil || open {
		return err
	}
	sw.settled = bound
	return nil
}

// deleteOld deletes events that are past the retention and the time for which
// an expired delivery is still shown.
func (sw *sweep) deleteOld() error {
	if sw.keep.Events <= 0 {
		return nil
	}
	bound := sw.before(sw.keep.Events + store.ExpiredShown)
	return sw.deleteEvents(`SELECT id, tenant, key, deliveries, CASE WHEN body IS NULL THEN 0 ELSE size END FROM events WHERE id < $1 AND `+notKept("events.id")+` ORDER BY id LIMIT $2`, int64(bound))
}

// older is the lowest id that an event accepted so long ago can have.
func (sw *sweep) older(age time.Duration) posthorn.ID {
	return posthorn.MakeID(sw.now.Add(-age), 0, 0)
}

// before is older, of what has had its final state for long enough to go.
func (sw *sweep) before(age time.Duration) posthorn.ID {
	return min(sw.older(age), sw.aging.Shown())
}

// oldEvents are events to be deleted, column by column.
type oldEvents struct {
	id, tenant []int64
	deliveries []int64
	bytes      int64 // of their payloads
	key        []string
}

// deleteEvents deletes the events that the query finds, as far as the budget
// goes.
func (sw *sweep) deleteEvents(query string, arg int64) error {
	if sw.budget <= 0 {
		return nil
	}
	var old oldEvents
	rows := 0
	err := sw.tx.rows(query, []any{arg, sw.budget}, func(r scanner) error {
		var id, tenant, deliveries, bytes int64
		var key string
		if err := r.Scan(&id, &tenant, &key, &deliveries, &bytes); err != nil {
			return err
		}
		if rows += 1 + int(deliveries); len(old.id) == 0 || rows <= sw.budget {
			old.id, old.tenant, old.deliveries, old.key = append(old.id, id), append(old.tenant, tenant), append(old.deliveries, deliveries), append(old.key, key)
			old.bytes += bytes
		}
		return nil
	})
	if err != nil || len(old.id) == 0 {
		return err
	}
	if rows > sw.budget { // not all were taken
		defer func() { sw.budget = min(sw.budget, 0) }()
	}
	// What is open gets its final state first and goes with the next slice.
	const within = ` e (id, n) ON d.id > e.id AND d.id <= e.id + e.n`
	var open bool
	if _, err := sw.tx.row(`SELECT EXISTS (SELECT 1 FROM due d JOIN unnest($1::bigint[], $2::bigint[])`+within+`)
		OR EXISTS (SELECT 1 FROM due d WHERE d.late AND d.event = ANY ($1))`, []any{old.id, old.deliveries}, &open); err != nil {
		return err
	}
	if open {
		err := sw.settle(`SELECT d.id FROM due d WHERE d.id IN (SELECT d.id FROM due d JOIN unnest($1::bigint[], $2::bigint[])`+within+`)
			OR d.late AND d.event = ANY ($1) ORDER BY d.id LIMIT $3`, old.id, old.deliveries, sw.budget)
		sw.budget = 0
		return err
	}
	return sw.erase(&old)
}

// erase deletes events with their deliveries, in slices when one event has more
// than the budget allows.
func (sw *sweep) erase(old *oldEvents) error {
	n, err := sw.tx.execCount(`DELETE FROM deliveries WHERE id IN (SELECT d.id FROM unnest($1::bigint[], $2::bigint[]) e (id, n)
		JOIN deliveries d ON d.id > e.id AND d.id <= e.id + e.n
		UNION ALL SELECT d.id FROM deliveries d WHERE d.late AND d.event = ANY ($1) LIMIT $3)`, old.id, old.deliveries, sw.budget)
	if err != nil {
		return err
	}
	sw.Deliveries += n
	if sw.budget -= n; sw.budget <= 0 {
		return nil // perhaps not all
	}
	if err := sw.tx.exec(`DELETE FROM idempotency i USING unnest($1::bigint[], $2::text[], $3::bigint[]) e (tenant, key, id)
		WHERE e.key <> '' AND i.tenant = e.tenant AND i.kind = 1 AND i.key = e.key AND i.event = e.id`, old.tenant, old.key, old.id); err != nil {
		return err
	}
	// The highest id must not be forgotten with its row.
	last := old.id[len(old.id)-1] + old.deliveries[len(old.deliveries)-1]
	if err := sw.keepLast(last); err != nil {
		return err
	}
	n = 0
	err = sw.tx.rows(`DELETE FROM events WHERE id = ANY ($1) RETURNING id, tenant, `+store.WeightColumn, []any{old.id}, func(r scanner) error {
		var id, tenant, weight int64
		err := r.Scan(&id, &tenant, &weight)
		sw.tx.keep(tenant, posthorn.ID(id), -weight)
		n++
		return err
	})
	sw.Events += n
	sw.bytes += old.bytes
	sw.budget -= n
	return err
}

// eraseTenants erases what deleted tenants left, once it is settled.
func (sw *sweep) eraseTenants() error {
	tenants, err := sw.tx.ids(`SELECT id FROM tenants WHERE deleted_at <> 0 ORDER BY id LIMIT 10`)
	if err != nil {
		return err
	}
	for _, id := range tenants {
		var left bool
		before := sw.Swept
		sw.bytes = 0
		if err := sw.deleteEvents(`SELECT id, tenant, key, deliveries, CASE WHEN body IS NULL THEN 0 ELSE size END FROM events WHERE tenant = $1 ORDER BY id LIMIT $2`, id); err != nil {
			return err
		}
		if err := sw.tx.exec(`UPDATE deletions SET events = events + $1, deliveries = deliveries + $2, payload_bytes = payload_bytes + $3 WHERE tenant = $4`,
			sw.Events-before.Events, sw.Deliveries-before.Deliveries, sw.bytes, id); err != nil {
			return err
		}
		if sw.budget <= 0 {
			return nil
		}
		n, err := sw.tx.execCount(`DELETE FROM idempotency WHERE tenant = $1 AND (kind, key) IN
			(SELECT kind, key FROM idempotency WHERE tenant = $1 LIMIT $2)`, id, sw.budget)
		if err != nil {
			return err
		}
		sw.Keys += n
		if sw.budget -= n; sw.budget <= 0 {
			return nil
		}
		if _, err := sw.tx.row(`SELECT EXISTS (SELECT 1 FROM events WHERE tenant = $1)`, []any{id}, &left); err != nil || left {
			return err
		}
		for _, query := range []string{`DELETE FROM replays WHERE tenant = $1`, `DELETE FROM exports WHERE tenant = $1`, `DELETE FROM outbox_grants WHERE tenant = $1`, `DELETE FROM tenants WHERE id = $1`} {
			if err := sw.tx.exec(query, id); err != nil {
				return err
			}
		}
		sw.budget--
	}
	return nil
}

// eraseEndpoints erases deleted endpoints that no delivery names any more.
func (sw *sweep) eraseEndpoints() error {
	endpoints, err := sw.tx.ids(`SELECT p.id FROM endpoints p WHERE p.deleted_at <> 0 AND p.settled
		AND NOT EXISTS (SELECT 1 FROM due d WHERE d.endpoint = p.id)
		AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.endpoint = p.id) LIMIT $1`, min(sw.budget, 100))
	if err != nil || len(endpoints) == 0 {
		return err
	}
	for _, query := range []string{
		`DELETE FROM endpoint_health WHERE endpoint = ANY ($1)`,
		`DELETE FROM endpoint_stats WHERE endpoint = ANY ($1)`,
		`DELETE FROM endpoint_secrets WHERE endpoint = ANY ($1)`,
		`DELETE FROM lanes WHERE endpoint = ANY ($1)`,
		`DELETE FROM lines WHERE endpoint = ANY ($1)`,
		`DELETE FROM endpoints WHERE id = ANY ($1)`,
	} {
		if err := sw.tx.exec(query, endpoints); err != nil {
			return err
		}
	}
	sw.budget -= len(endpoints)
	if len(endpoints) == 100 {
		sw.More = true
	}
	return nil
}

// keepCommits is how long a node may be cut off and still learn what became of
// its last commits.
const keepCommits = time.Hour

// dropExpired drops secrets whose overlap is over, notes older than all events,
// and idempotency keys.
func (sw *sweep) dropExpired() error {
	if err := sw.tx.exec(`DELETE FROM commits WHERE at < $1`, nanos(sw.now.Add(-keepCommits))); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM endpoint_secrets WHERE expires_at <> 0 AND expires_at <= $1`, nanos(sw.now)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM event_notes WHERE event IN
		(SELECT event FROM event_notes WHERE event < coalesce((SELECT min(id) FROM events), $1) ORDER BY event LIMIT 1000)`, int64(math.MaxInt64)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM spared WHERE until <= $1`, nanos(sw.now)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM exports WHERE expires_at <= $1`, nanos(sw.now)); err != nil {
		return err
	}
	n, err := sw.tx.execCount(`DELETE FROM idempotency WHERE (tenant, kind, key) IN
		(SELECT tenant, kind, key FROM idempotency WHERE expires <> 0 AND expires <= $1 LIMIT $2)`, nanos(sw.now), sw.budget)
	sw.Keys += n
	sw.budget -= n
	if err != nil || sw.keep.Events <= 0 {
		return err
	}
	return sw.tx.exec(`DELETE FROM replays WHERE id IN (SELECT id FROM replays ORDER BY id LIMIT 20) AND state >= 2 AND updated_at < $1`, nanos(sw.now.Add(-sw.keep.Events)))
}

// dropStats drops hours past the retention, a few endpoints at a time.
func (sw *sweep) dropStats() error {
	if sw.keep.Events <= 0 {
		return nil
	}
	endpoints, err := sw.tx.ids(`SELECT id FROM endpoints WHERE id > $1 ORDER BY id LIMIT 50`, sw.at.statsFor)
	if err != nil {
		return err
	}
	sw.at.statsFor = 0
	if len(endpoints) == 0 {
		return nil
	}
	sw.at.statsFor = endpoints[len(endpoints)-1]
	return sw.tx.exec(`DELETE FROM endpoint_stats WHERE endpoint = ANY ($1) AND hour < $2`, endpoints, sw.now.Add(-sw.keep.Events).Unix()/3600)
}
