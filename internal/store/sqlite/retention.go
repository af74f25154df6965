package sqlite

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
	var events []oldEvent
	err := sw.tx.rows(`SELECT e.id, e.tenant, e.key, e.deliveries, e.size FROM events e NOT INDEXED
		WHERE e.id > ? AND e.id < ? AND e.erased_at = 0 ORDER BY e.id LIMIT ?`, []any{int64(sw.sweeper.payloadsFor), int64(sw.before(sw.keep.Payloads + store.ExpiredShown)), sw.budget}, func(r scanner) error {
		var e oldEvent
		err := r.Scan((*int64)(&e.id), &e.tenant, &e.key, &e.deliveries, &e.bytes)
		events = append(events, e)
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range events {
		if sw.budget <= 0 {
			return nil
		}
		open, err := sw.tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries NOT INDEXED WHERE id > ?1 AND id <= ?1 + ?2 AND place <> 0
			UNION ALL SELECT id, tenant, endpoint, place FROM deliveries INDEXED BY deliveries_late
			WHERE late = 1 AND tenant = ?3 AND event = ?1 AND place <> 0`, int64(e.id), e.deliveries, e.tenant)
		if err != nil {
			return err
		}
		if err := sw.settle(open); err != nil {
			return err
		}
		if err := sw.tx.dropPayload(e.id, sw.now); err != nil {
			return err
		}
		sw.tx.keep(e.tenant, e.id, -e.bytes)
		sw.sweeper.payloadsFor = e.id
		sw.sweeper.blanked++
		sw.Payloads++
		sw.budget--
	}
	return nil
}

// deleteDeliveries deletes what is finished and kept for a shorter time than its
// event.
func (sw *sweep) deleteDeliveries() error {
	if sw.budget <= 0 || sw.keep.Deliveries <= 0 || sw.keep.Deliveries >= sw.keep.Events && sw.keep.Events > 0 {
		return nil // they go with their events
	}
	n, err := sw.tx.execCount(`DELETE FROM deliveries WHERE id IN
		(SELECT id FROM deliveries NOT INDEXED WHERE id < ? AND place = 0 AND `+notKept("deliveries.event")+` ORDER BY id LIMIT ?)`,
		int64(sw.before(sw.keep.Deliveries+store.ExpiredShown)), sw.budget)
	if err != nil || n == 0 {
		return err
	}
	sw.deleted(n)
	return sw.tx.setMeta("last_id", int64(sw.tx.last)) // the highest id must not be forgotten with its row
}

// eraseLogs erases attempts that are kept for a shorter time than their delivery.
// It reads the deliveries in the order of their ids, each once.
func (sw *sweep) eraseLogs() error {
	if sw.budget <= 0 || sw.keep.Attempts <= 0 || sw.keep.Attempts >= sw.keep.Deliveries && sw.keep.Deliveries > 0 {
		return nil // they go with their deliveries
	}
	type row struct {
		id  int64
		has bool
	}
	var list []row
	err := sw.tx.rows(`SELECT id, log IS NOT NULL AND place = 0 FROM deliveries NOT INDEXED WHERE id > ? AND id < ? ORDER BY id LIMIT ?`,
		[]any{int64(sw.sweeper.logsFor), int64(sw.older(sw.keep.Attempts + store.ExpiredShown)), sw.budget}, func(r scanner) error {
			var d row
			err := r.Scan(&d.id, &d.has)
			list = append(list, d)
			return err
		})
	if err != nil {
		return err
	}
	for _, d := range list {
		sw.sweeper.logsFor = posthorn.ID(d.id)
		if !d.has {
			continue
		}
		if err := sw.tx.exec(`UPDATE deliveries SET log = NULL WHERE id = ?`, d.id); err != nil {
			return err
		}
		sw.Logs++
	}
	sw.budget -= len(list)
	return nil
}

// keptBlank is how many blank bodies stay before the first that is not: more
// than the pages that SQLite moves rows between when one runs empty.
const keptBlank = 1000

// freePayloads deletes the rows of blank bodies, oldest first, up to the first
// that is not blank. So the room of what was erased out of turn comes back when
// its time would have been over.
func (sw *sweep) freePayloads() error {
	if sw.budget <= 0 || sw.sweeper.begun && sw.sweeper.blanked < keptBlank {
		return nil
	}
	var ids []int64
	live := false
	err := sw.tx.rows(`SELECT p.event, EXISTS (SELECT 1 FROM events e WHERE e.id = p.event AND e.erased_at = 0) FROM payloads p ORDER BY p.event LIMIT ?`,
		[]any{keptBlank + sw.budget}, func(r scanner) error {
			var id int64
			var lives bool
			err := r.Scan(&id, &lives)
			if live = live || lives; !live {
				ids = append(ids, id)
			}
			return err
		})
	if err != nil {
		return err
	}
	n := max(len(ids)-keptBlank, 0)
	if n > 0 {
		if n, err = sw.tx.execCount(`DELETE FROM payloads WHERE event <= ?`, ids[n-1]); err != nil {
			return err
		}
	}
	if sw.budget -= n; sw.budget > 0 {
		sw.sweeper.blanked, sw.sweeper.begun = 0, true
	}
	return nil
}
