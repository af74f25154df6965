package postgres

import (
	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// erasePayloads erases what is kept for a shorter time than its event. Everything
// open was settled before, but for what a user opened again since.
func (sw *sweep) erasePayloads() error {
	if sw.keep.Payloads <= 0 || sw.keep.Payloads >= sw.keep.Events && sw.keep.Events > 0 {
		return nil // they go with their events
	}
	var ids, deliveries []int64
	err := sw.tx.rows(`SELECT id, deliveries FROM events WHERE id > $1 AND id < $2 AND body IS NOT NULL ORDER BY id LIMIT $3`,
		[]any{sw.at.payloads, int64(sw.before(sw.keep.Payloads + store.ExpiredShown)), sw.budget}, func(r scanner) error {
			var id, n int64
			err := r.Scan(&id, &n)
			ids, deliveries = append(ids, id), append(deliveries, n)
			return err
		})
	if err != nil || len(ids) == 0 {
		return err
	}
	if err := sw.settle(`SELECT d.id FROM due d JOIN unnest($1::bigint[], $2::bigint[]) e (id, n)
		ON d.id > e.id AND d.id <= e.id + e.n OR d.late AND d.event = e.id ORDER BY d.id`, ids, deliveries); err != nil {
		return err
	}
	n := 0
	err = sw.tx.rows(`UPDATE events e SET body = NULL, erased_at = $2 WHERE id = ANY ($1)
		AND NOT EXISTS (SELECT 1 FROM due d WHERE d.id > e.id AND d.id <= e.id + e.deliveries)
		AND NOT EXISTS (SELECT 1 FROM due d WHERE d.late AND d.event = e.id) RETURNING id, tenant, size`, []any{ids, nanos(sw.now)}, func(r scanner) error {
		var id, tenant, size int64
		err := r.Scan(&id, &tenant, &size)
		sw.tx.keep(tenant, posthorn.ID(id), -size)
		n++
		return err
	})
	sw.Payloads += n
	sw.budget -= len(ids)
	if n == len(ids) { // else a result holds one locked
		sw.at.payloads = ids[len(ids)-1]
	}
	return err
}

// deleteDeliveries deletes what is finished and kept for a shorter time than its
// event.
func (sw *sweep) deleteDeliveries() error {
	if sw.budget <= 0 || sw.keep.Deliveries <= 0 || sw.keep.Deliveries >= sw.keep.Events && sw.keep.Events > 0 {
		return nil // they go with their events
	}
	var last int64
	n := 0
	err := sw.tx.rows(`DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE id < $1 AND `+notKept("deliveries.event")+` ORDER BY id LIMIT $2) RETURNING id`,
		[]any{int64(sw.before(sw.keep.Deliveries + store.ExpiredShown)), sw.budget}, func(r scanner) error {
			var id int64
			err := r.Scan(&id)
			n++
			last = max(last, id)
			return err
		})
	sw.Deliveries += n
	sw.budget -= n
	if err != nil || n == 0 {
		return err
	}
	return sw.keepLast(last)
}

// keepLast keeps the highest id from being forgotten with its row.
func (sw *sweep) keepLast(id int64) error {
	return sw.tx.exec(`INSERT INTO meta (key, value) VALUES ('last_id', $1)
		ON CONFLICT (key) DO UPDATE SET value = greatest(meta.value, excluded.value)`, id)
}

// eraseLogs erases attempts that are kept for a shorter time than their delivery.
func (sw *sweep) eraseLogs() error {
	if sw.budget <= 0 || sw.keep.Attempts <= 0 || sw.keep.Attempts >= sw.keep.Deliveries && sw.keep.Deliveries > 0 {
		return nil // they go with their deliveries
	}
	n := 0
	err := sw.tx.rows(`UPDATE deliveries SET log = NULL WHERE id IN (SELECT id FROM deliveries WHERE id > $1 AND id < $2 AND log IS NOT NULL ORDER BY id LIMIT $3)
		RETURNING id`, []any{sw.at.logs, int64(sw.older(sw.keep.Attempts + store.ExpiredShown)), sw.budget}, func(r scanner) error {
		var id int64
		err := r.Scan(&id)
		n++
		sw.at.logs = max(sw.at.logs, id)
		return err
	})
	sw.Logs += n
	sw.budget -= n
	return err
}
