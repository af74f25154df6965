package sqlite

import (
	"context"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// sweepRows bounds what one slice of Sweep reads and changes.
const sweepRows = 1000

// sweeper is what is known from one slice to the next.
type sweeper struct {
	mu sync.Mutex // held for a slice
	sweepState
	aging store.Aging

	whole     sync.Mutex // held for a slice and what follows it
	stale     bool       // the log may hold payloads that were deleted
	emptiedAt time.Time

	recount   store.Recount
	recounted time.Time // when a pass was last looked for
}

// sweepState is where the sweep goes on.
type sweepState struct {
	settled   posthorn.ID // open deliveries up to here were settled as expired
	statsFor  int64       // statistics of endpoints up to here were looked at
	logsFor   posthorn.ID // attempts of deliveries up to here were erased
	erasedFor int64       // deleted endpoints up to here were looked at

	payloadsFor posthorn.ID // those of events up to here were erased
	blanked     int         // bodies since freePayloads last ran
	begun       bool        // freePayloads has run since the file was opened

	lists compaction
}

// reopened has what was opened again looked at once more: it may be past its time.
func (s *Store) reopened(id posthorn.ID) {
	s.sweeper.mu.Lock()
	defer s.sweeper.mu.Unlock()
	s.sweeper.settled = min(s.sweeper.settled, id-1)
}

// emptyLogEvery is how often the log is emptied of what retention deleted.
const emptyLogEvery = time.Minute

// sweep is one slice in one transaction.
type sweep struct {
	tx     *txn
	now    time.Time
	keep   store.Retention
	budget int
	store.Swept
	bytes   int64 // of payloads that were deleted
	taken   store.Keeps
	sweeper sweepState // after the slice
	// aging says what may go by its age; known is a bound for it, 0 for none.
	aging *store.Aging
	known posthorn.ID
}

// Sweep implements [store.Keeper]. A slice touches at most about a thousand
// rows and gives way to all other writes.
func (s *Store) Sweep(ctx context.Context, now time.Time, r store.Retention) (store.Swept, error) {
	if err := s.serving(); err != nil {
		return store.Swept{}, err
	}
	s.sweeper.whole.Lock()
	defer s.sweeper.whole.Unlock()
	swept, err := s.slice(ctx, now, r)
	if err != nil || swept.More {
		return swept, err
	}
	if err := s.completeDeletions(ctx, now); err != nil {
		return swept, err
	}
	if err := s.recount(ctx, now); err != nil {
		return swept, err
	}
	if since := now.Sub(s.sweeper.emptiedAt); s.sweeper.stale && (since < 0 || since >= emptyLogEvery) {
		s.sweeper.stale, s.sweeper.emptiedAt = !s.emptyLog(ctx, 0), now
	}
	return swept, nil
}

// slice sweeps once.
func (s *Store) slice(ctx context.Context, now time.Time, r store.Retention) (store.Swept, error) {
	s.sweeper.mu.Lock()
	defer s.sweeper.mu.Unlock()
	sure := s.sweeper.aging.Sure(r.Ran)
	var sw sweep
	err := s.writer.submit(&op{kind: opSweep, ctx: ctx, apply: func(tx *txn) error {
		sw = sweep{tx: tx, now: now, keep: r.Bounded(), budget: sweepRows, sweeper: s.sweeper.sweepState, aging: &s.sweeper.aging}
		err := sw.run(sure)
		sw.taken = maps.Clone(tx.kept) // of this alone: a sweep has a transaction of its own
		return err
	}})
	if err != nil {
		return store.Swept{}, err
	}
	s.sweeper.sweepState = sw.sweeper
	s.sweeper.recount.Leave(sw.taken)
	if sw.known != 0 {
		s.sweeper.aging.Settled(sw.known)
	}
	if sw.Events+sw.Payloads+sw.Logs > 0 {
		s.sweeper.stale = true
	}
	return sw.Swept, nil
}

// run takes the steps; those that go by age only where the clock is sure.
func (sw *sweep) run(sure bool) error {
	steps := []func() error{sw.cancelDeleted, sw.eraseTenants, sw.eraseEndpoints, sw.freePayloads}
	if sure {
		steps = []func() error{sw.cancelDeleted, sw.expire, sw.deleteOld, sw.erasePayloads, sw.deleteDeliveries, sw.eraseLogs,
			sw.eraseTenants, sw.eraseEndpoints, sw.compactLists, sw.freePayloads, sw.dropExpired, sw.dropStats, sw.dropAudit}
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

// cancel cancels what is open at a deleted endpoint, of which the engine was told.
func (sw *sweep) cancel(rows []openRow, reason posthorn.Reason) error {
	for _, o := range rows {
		if _, err := sw.tx.settle(o, posthorn.Canceled, reason, sw.now); err != nil {
			return err
		}
	}
	sw.Canceled += len(rows)
	sw.budget -= len(rows)
	return nil
}

// settle settles as expired what outlived its event's time. An attempt of it may be
// under way: what was opened again may be of an event that would go at once.
func (sw *sweep) settle(rows []openRow) error {
	list, err := sw.tx.takeBack(rows, posthorn.Expired, posthorn.ReasonRetention, sw.now)
	if err != nil {
		return err
	}
	for _, s := range list {
		if !s.reopened {
			continue
		}
		if err := sw.tx.exec(`INSERT INTO spared (event, until) VALUES (?, ?) ON CONFLICT (event) DO UPDATE SET until = excluded.until`,
			int64(s.event), nanos(sw.now.Add(store.ExpiredShown))); err != nil {
			return err
		}
	}
	sw.Expired += len(rows)
	sw.budget -= len(rows)
	return nil
}

// cancelDeleted cancels what is open at deleted endpoints.
func (sw *sweep) cancelDeleted() error {
	for sw.budget > 0 {
		var endpoint int64
		var tenantGone bool
		found, err := sw.tx.row(`SELECT p.id, NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = p.tenant AND t.deleted_at = 0)
			FROM endpoints p INDEXED BY endpoints_deleted WHERE p.deleted_at <> 0 AND p.settled = 0 ORDER BY p.id LIMIT 1`, nil, &endpoint, &tenantGone)
		if err != nil || !found {
			return err
		}
		sw.budget--
		if done, err := sw.cancelOf(endpoint, store.GoneReason(tenantGone)); err != nil || !done {
			return err
		}
		if err := sw.tx.exec(`UPDATE endpoints SET settled = 1 WHERE id = ?`, endpoint); err != nil {
			return err
		}
		if err := sw.tx.exec(`DELETE FROM endpoint_secrets WHERE endpoint = ?`, endpoint); err != nil {
			return err
		}
	}
	return nil
}

// cancelOf reports whether nothing is open at the endpoint any more.
func (sw *sweep) cancelOf(endpoint int64, reason posthorn.Reason) (done bool, err error) {
	open := sw.tx.w.open.endpoint(endpoint)
	if open.parked > 0 {
		rows, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_parked
			WHERE place = 3 AND endpoint = ? ORDER BY id LIMIT ?`, endpoint, sw.budget)
		if err == nil {
			err = sw.cancel(rows, reason)
		}
		if err != nil || sw.budget <= 0 {
			return false, err
		}
	}
	if open.due > 0 {
		rows, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_due
			WHERE place IN (1, 2) AND endpoint = ? LIMIT ?`, endpoint, sw.budget)
		if err == nil {
			err = sw.cancel(rows, reason)
		}
		if err != nil || sw.budget <= 0 {
			return false, err
		}
	}
	return true, nil
}

// expire settles what is still open when its event's time is over. It reads
// the deliveries in the order of their ids, each once.
func (sw *sweep) expire() error {
	if sw.keep.Open() <= 0 {
		return nil
	}
	bound := sw.older(sw.keep.Open())
	read := 0
	rows, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries NOT INDEXED WHERE id > ? AND id < ? ORDER BY id LIMIT ?`,
		int64(sw.sweeper.settled), int64(bound), sw.budget)
	if err != nil {
		return err
	}
	open := rows[:0]
	for _, o := range rows {
		read++
		sw.sweeper.settled = o.id
		if o.place != nowhere {
			open = append(open, o)
		}
	}
	sw.budget -= read - len(open)
	if err := sw.settle(open); err != nil || sw.budget <= 0 || !sw.aging.Wants() {
		return err
	}
	late, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_late_event WHERE late = 1 AND event < ? AND place <> 0 LIMIT ?`,
		int64(bound), sw.budget)
	if err == nil {
		err = sw.settle(late)
	}
	if err == nil && sw.budget > 0 {
		sw.known = bound
	}
	return err
}

// deleteOld deletes events that are past the retention and the time for which
// an expired delivery is still shown.
func (sw *sweep) deleteOld() error {
	if sw.keep.Events <= 0 {
		return nil
	}
	bound := sw.before(sw.keep.Events + store.ExpiredShown)
	return sw.deleteEvents(`SELECT `+oldEventColumns+` FROM events NOT INDEXED WHERE id < ? AND `+notKept("id")+` ORDER BY id LIMIT ?`, int64(bound))
}

// notKept leaves out what is of an event that stays for a while more.
func notKept(event string) string {
	return `NOT EXISTS (SELECT 1 FROM spared WHERE spared.event = ` + event + `)`
}

// older is the lowest id that an event accepted so long ago can have.
func (sw *sweep) older(age time.Duration) posthorn.ID {
	return posthorn.MakeID(sw.now.Add(-age), 0, 0)
}

// before is older, of what has had its final state for long enough to go.
func (sw *sweep) before(age time.Duration) posthorn.ID {
	return min(sw.older(age), sw.aging.Shown())
}

type oldEvent struct {
	id         posthorn.ID
	tenant     int64
	key        string
	deliveries int
	bytes      int64 // of its payload; 0 when that is gone
}

const oldEventColumns = `id, tenant, key, deliveries, CASE erased_at WHEN 0 THEN size ELSE 0 END`

// deleteEvents deletes the events that the query finds, as far as the budget
// goes.
func (sw *sweep) deleteEvents(query string, arg any) error {
	if sw.budget <= 0 {
		return nil
	}
	var events []oldEvent
	err := sw.tx.rows(query, []any{arg, sw.budget}, func(r scanner) error {
		var e oldEvent
		err := r.Scan((*int64)(&e.id), &e.tenant, &e.key, &e.deliveries, &e.bytes)
		events = append(events, e)
		return err
	})
	if err != nil {
		return err
	}
	if len(events) > 0 {
		// The highest id must not be forgotten with its row.
		if err := sw.tx.setMeta("last_id", int64(sw.tx.last)); err != nil {
			return err
		}
	}
	for _, e := range events {
		if sw.budget <= 0 {
			return nil
		}
		if err := sw.deleteEvent(e); err != nil {
			return err
		}
	}
	return nil
}

// deleteEvent deletes an event with its deliveries. What is open gets its final
// state first and goes with the next slice.
func (sw *sweep) deleteEvent(e oldEvent) error {
	first, last := int64(e.id)+1, int64(e.id)+int64(e.deliveries)
	const late = ` UNION ALL SELECT id FROM deliveries INDEXED BY deliveries_late_event WHERE late = 1 AND event = ?`
	open, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries WHERE id IN
		(SELECT id FROM deliveries NOT INDEXED WHERE id BETWEEN ? AND ? AND place <> 0`+late+`) AND place <> 0 LIMIT ?`,
		first, last, int64(e.id), sw.budget)
	if err != nil {
		return err
	}
	if len(open) > 0 {
		sw.budget = 0
		return sw.settle(open)
	}
	n, err := sw.tx.execCount(`DELETE FROM deliveries WHERE id IN (SELECT id FROM (SELECT id FROM deliveries NOT INDEXED WHERE id BETWEEN ? AND ?`+late+`) LIMIT ?)`,
		first, last, int64(e.id), sw.budget)
	if err != nil {
		return err
	}
	sw.deleted(n)
	if sw.budget <= 0 {
		return nil // perhaps not all
	}
	if e.key != "" {
		if err := sw.tx.exec(`DELETE FROM idempotency WHERE tenant = ? AND kind = 1 AND key = ?`, e.tenant, e.key); err != nil {
			return err
		}
	}
	if err := sw.tx.blankPayload(e.id); err != nil {
		return err
	}
	sw.sweeper.blanked++
	if err := sw.tx.exec(`DELETE FROM events WHERE id = ?`, int64(e.id)); err != nil {
		return err
	}
	sw.tx.keep(e.tenant, e.id, -store.Weight(int(e.bytes), e.deliveries))
	sw.Events++
	sw.bytes += e.bytes
	sw.deleted(0)
	sw.budget--
	return nil
}

// deleted counts deleted deliveries. The lists still have what was deleted.
func (sw *sweep) deleted(deliveries int) {
	sw.Deliveries += deliveries
	sw.budget -= deliveries
	sw.sweeper.lists.due = true
}

// eraseTenants erases what deleted tenants left, once it is settled.
func (sw *sweep) eraseTenants() error {
	tenants, err := sw.tx.ids(`SELECT id FROM tenants INDEXED BY tenants_deleted WHERE deleted_at <> 0 ORDER BY id LIMIT 10`)
	if err != nil {
		return err
	}
	for _, id := range tenants {
		before := sw.Swept
		sw.bytes = 0
		gone, err := sw.eraseEvents(id)
		if err != nil {
			return err
		}
		if err := sw.tx.exec(`UPDATE deletions SET events = events + ?, deliveries = deliveries + ?, payload_bytes = payload_bytes + ? WHERE tenant = ?`,
			sw.Events-before.Events, sw.Deliveries-before.Deliveries, sw.bytes, id); err != nil {
			return err
		}
		if !gone {
			sw.budget = 0
			return nil
		}
		n, err := sw.tx.execCount(`DELETE FROM idempotency WHERE tenant = ?1 AND (kind, key) IN
			(SELECT kind, key FROM idempotency WHERE tenant = ?1 LIMIT ?2)`, id, sw.budget)
		if err != nil {
			return err
		}
		sw.Keys += n
		if sw.budget -= n; sw.budget <= 0 {
			return nil
		}
		if err := sw.tx.exec(`DELETE FROM replays WHERE tenant = ?`, id); err != nil {
			return err
		}
		if err := sw.tx.exec(`DELETE FROM exports WHERE tenant = ?`, id); err != nil {
			return err
		}
		if err := sw.tx.exec(`DELETE FROM tenants WHERE id = ?`, id); err != nil {
			return err
		}
		sw.budget--
	}
	return nil
}

// eraseEndpoints erases deleted endpoints that no delivery names any more.
func (sw *sweep) eraseEndpoints() error {
	const most = 100
	settled, err := sw.tx.ids(`SELECT id FROM endpoints INDEXED BY endpoints_deleted WHERE deleted_at <> 0 AND settled = 1 AND id > ? ORDER BY id LIMIT ?`,
		sw.sweeper.erasedFor, most)
	if err != nil {
		return err
	}
	sw.sweeper.erasedFor = 0
	if len(settled) == most {
		sw.sweeper.erasedFor, sw.More = settled[most-1], true
	}
	var endpoints []int64
	for _, id := range settled {
		named, err := sw.tx.anyOf(deliveriesOf(id))
		if err != nil {
			return err
		}
		if !named {
			endpoints = append(endpoints, id)
		}
	}
	if len(endpoints) > 0 { // so that none of theirs is added later
		if err := sw.tx.mergeStats(0); err != nil {
			return err
		}
	}
	for _, id := range endpoints {
		for _, query := range []string{
			`DELETE FROM endpoint_health WHERE endpoint = ?`,
			`DELETE FROM endpoint_stats WHERE endpoint = ?`,
			`DELETE FROM endpoint_secrets WHERE endpoint = ?`,
			`DELETE FROM endpoints WHERE id = ?`,
		} {
			if err := sw.tx.exec(query, id); err != nil {
				return err
			}
		}
		sw.tx.health[id] = &healthRow{gone: true}
		sw.budget--
	}
	return nil
}

// dropExpired drops secrets whose overlap is over, notes older than all events,
// and idempotency keys.
func (sw *sweep) dropExpired() error {
	if err := sw.tx.exec(`DELETE FROM endpoint_secrets WHERE expires_at <> 0 AND expires_at <= ?`, nanos(sw.now)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM event_notes WHERE event IN
		(SELECT event FROM event_notes WHERE event < coalesce((SELECT min(id) FROM events), ?) ORDER BY event LIMIT 1000)`, int64(math.MaxInt64)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM spared WHERE until <= ?`, nanos(sw.now)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM exports WHERE expires_at <= ?`, nanos(sw.now)); err != nil {
		return err
	}
	n, err := sw.tx.execCount(`DELETE FROM idempotency WHERE (tenant, kind, key) IN
		(SELECT tenant, kind, key FROM idempotency INDEXED BY idempotency_expires WHERE expires <> 0 AND expires <= ? LIMIT ?)`,
		nanos(sw.now), sw.budget)
	sw.Keys += n
	sw.budget -= n
	if err != nil || sw.keep.Events <= 0 {
		return err
	}
	return sw.tx.exec(`DELETE FROM replays WHERE id IN (SELECT id FROM replays ORDER BY id LIMIT 20) AND state >= 2 AND updated_at < ?`, nanos(sw.now.Add(-sw.keep.Events)))
}

// dropStats drops hours past the retention, a few endpoints at a time.
func (sw *sweep) dropStats() error {
	if sw.keep.Events <= 0 {
		return nil
	}
	endpoints, err := sw.tx.ids(`SELECT id FROM endpoints WHERE id > ? ORDER BY id LIMIT 50`, sw.sweeper.statsFor)
	if err != nil {
		return err
	}
	sw.sweeper.statsFor = 0
	for _, id := range endpoints {
		if err := sw.tx.exec(`DELETE FROM endpoint_stats WHERE endpoint = ? AND hour < ?`, id, sw.now.Add(-sw.keep.Events).Unix()/3600); err != nil {
			return err
		}
		sw.sweeper.statsFor = id
	}
	return nil
}
