package sqlite

import (
	"context"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// sweepRows bounds what one slice of Sweep reads and changes.
const sweepRows = 1000

// sweeper is where the sweep goes on.
type sweeper struct {
	mu       sync.Mutex
	settled  posthorn.ID // open deliveries up to here were settled as expired
	statsFor int64       // statistics of endpoints up to here were looked at
}

// sweep is one slice in one transaction.
type sweep struct {
	tx        *txn
	now       time.Time
	keep      time.Duration
	keepAudit time.Duration
	budget    int
	store.Swept
	sweeper *sweeper // the state after the slice
}

// Sweep implements [store.Keeper]. A slice touches at most about a thousand
// rows and gives way to all other writes.
func (s *Store) Sweep(ctx context.Context, now time.Time, r store.Retention) (store.Swept, error) {
	if err := s.serving(); err != nil {
		return store.Swept{}, err
	}
	s.sweeper.mu.Lock()
	defer s.sweeper.mu.Unlock()
	var sw sweep
	var after sweeper
	err := s.writer.submit(&op{kind: opSweep, ctx: ctx, apply: func(tx *txn) error {
		after = sweeper{settled: s.sweeper.settled, statsFor: s.sweeper.statsFor}
		sw = sweep{tx: tx, now: now, keep: r.Events, keepAudit: r.Audit, budget: sweepRows, sweeper: &after}
		return sw.run()
	}})
	if err != nil {
		return store.Swept{}, err
	}
	s.sweeper.settled, s.sweeper.statsFor = after.settled, after.statsFor
	return sw.Swept, nil
}

func (sw *sweep) run() error {
	steps := []func() error{sw.cancelDeleted, sw.expire, sw.deleteOld, sw.eraseTenants, sw.eraseEndpoints, sw.dropExpired, sw.dropStats, sw.dropAudit}
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

// openRow is an open delivery that is to be settled.
type openRow struct {
	id               posthorn.ID
	tenant, endpoint int64
	place            place
}

func (sw *sweep) openRows(query string, args ...any) (list []openRow, err error) {
	err = sw.tx.rows(query, args, func(r scanner) error {
		var o openRow
		err := r.Scan((*int64)(&o.id), &o.tenant, &o.endpoint, &o.place)
		list = append(list, o)
		return err
	})
	return list, err
}

func (sw *sweep) settle(rows []openRow, state posthorn.State, reason posthorn.Reason) error {
	for _, o := range rows {
		if err := sw.tx.settle(o.id, o.tenant, o.endpoint, o.place, state, reason, sw.now); err != nil {
			return err
		}
	}
	if state == posthorn.Canceled {
		sw.Canceled += len(rows)
	} else {
		sw.Expired += len(rows)
	}
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
		rows, err := sw.openRows(`SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_parked
			WHERE place = 3 AND endpoint = ? ORDER BY id LIMIT ?`, endpoint, sw.budget)
		if err == nil {
			err = sw.settle(rows, posthorn.Canceled, reason)
		}
		if err != nil || sw.budget <= 0 {
			return false, err
		}
	}
	if open.due > 0 {
		rows, err := sw.openRows(`SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_due
			WHERE place IN (1, 2) AND endpoint = ? LIMIT ?`, endpoint, sw.budget)
		if err == nil {
			err = sw.settle(rows, posthorn.Canceled, reason)
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
	if sw.keep <= 0 {
		return nil
	}
	bound := posthorn.MakeID(sw.now.Add(-sw.keep), 0, 0)
	read := 0
	rows, err := sw.openRows(`SELECT id, tenant, endpoint, place FROM deliveries NOT INDEXED WHERE id > ? AND id < ? ORDER BY id LIMIT ?`,
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
	return sw.settle(open, posthorn.Expired, posthorn.ReasonRetention)
}

// deleteOld deletes events that are past the retention and the time for which
// an expired delivery is still shown.
func (sw *sweep) deleteOld() error {
	if sw.keep <= 0 {
		return nil
	}
	bound := posthorn.MakeID(sw.now.Add(-sw.keep-store.ExpiredShown), 0, 0)
	return sw.deleteEvents(`SELECT id, tenant, key, deliveries FROM events NOT INDEXED WHERE id < ? ORDER BY id LIMIT ?`, int64(bound))
}

type oldEvent struct {
	id         posthorn.ID
	tenant     int64
	key        string
	deliveries int
}

// deleteEvents deletes the events that the query finds, as far as the budget
// goes.
func (sw *sweep) deleteEvents(query string, arg int64) error {
	if sw.budget <= 0 {
		return nil
	}
	var events []oldEvent
	err := sw.tx.rows(query, []any{arg, sw.budget}, func(r scanner) error {
		var e oldEvent
		err := r.Scan((*int64)(&e.id), &e.tenant, &e.key, &e.deliveries)
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
	open, err := sw.openRows(`SELECT id, tenant, endpoint, place FROM deliveries NOT INDEXED WHERE id BETWEEN ? AND ? AND place <> 0 LIMIT ?`,
		first, last, sw.budget)
	if err != nil {
		return err
	}
	if len(open) > 0 {
		sw.budget = 0
		return sw.settle(open, posthorn.Expired, posthorn.ReasonRetention)
	}
	n, err := sw.tx.execCount(`DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries NOT INDEXED WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)`,
		first, last, sw.budget)
	if err != nil {
		return err
	}
	sw.Deliveries += n
	if sw.budget -= n; sw.budget <= 0 {
		return nil // perhaps not all
	}
	if e.key != "" {
		if err := sw.tx.exec(`DELETE FROM idempotency WHERE tenant = ? AND kind = 1 AND key = ?`, e.tenant, e.key); err != nil {
			return err
		}
	}
	if err := sw.tx.exec(`DELETE FROM payloads WHERE event = ?`, int64(e.id)); err != nil {
		return err
	}
	if err := sw.tx.exec(`DELETE FROM events WHERE id = ?`, int64(e.id)); err != nil {
		return err
	}
	sw.Events++
	sw.budget--
	return nil
}

// eraseTenants erases what deleted tenants left, once it is settled.
func (sw *sweep) eraseTenants() error {
	tenants, err := sw.tx.ids(`SELECT id FROM tenants INDEXED BY tenants_deleted WHERE deleted_at <> 0 ORDER BY id LIMIT 10`)
	if err != nil {
		return err
	}
	for _, id := range tenants {
		if err := sw.deleteEvents(`SELECT id, tenant, key, deliveries FROM events INDEXED BY events_tenant WHERE tenant = ? ORDER BY id LIMIT ?`, id); err != nil {
			return err
		}
		if sw.budget <= 0 {
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
		if err := sw.tx.exec(`DELETE FROM tenants WHERE id = ?`, id); err != nil {
			return err
		}
		sw.budget--
	}
	return nil
}

// eraseEndpoints erases deleted endpoints that no delivery names any more.
func (sw *sweep) eraseEndpoints() error {
	endpoints, err := sw.tx.ids(`SELECT p.id FROM endpoints p INDEXED BY endpoints_deleted WHERE p.deleted_at <> 0 AND p.settled = 1
		AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_endpoint WHERE d.endpoint = p.id) LIMIT ?`, min(sw.budget, 100))
	if err != nil {
		return err
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
	if len(endpoints) == 100 {
		sw.More = true
	}
	return nil
}

// dropExpired drops secrets whose overlap is over and idempotency keys.
func (sw *sweep) dropExpired() error {
	if err := sw.tx.exec(`DELETE FROM endpoint_secrets WHERE expires_at <> 0 AND expires_at <= ?`, nanos(sw.now)); err != nil {
		return err
	}
	n, err := sw.tx.execCount(`DELETE FROM idempotency WHERE (tenant, kind, key) IN
		(SELECT tenant, kind, key FROM idempotency INDEXED BY idempotency_expires WHERE expires <> 0 AND expires <= ? LIMIT ?)`,
		nanos(sw.now), sw.budget)
	sw.Keys += n
	sw.budget -= n
	return err
}

// dropStats drops hours past the retention, a few endpoints at a time.
func (sw *sweep) dropStats() error {
	if sw.keep <= 0 {
		return nil
	}
	endpoints, err := sw.tx.ids(`SELECT id FROM endpoints WHERE id > ? ORDER BY id LIMIT 50`, sw.sweeper.statsFor)
	if err != nil {
		return err
	}
	sw.sweeper.statsFor = 0
	for _, id := range endpoints {
		if err := sw.tx.exec(`DELETE FROM endpoint_stats WHERE endpoint = ? AND hour < ?`, id, sw.now.Add(-sw.keep).Unix()/3600); err != nil {
			return err
		}
		sw.sweeper.statsFor = id
	}
	return nil
}
