package sqlite

import (
	"context"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// retryRow is a delivery that is to be attempted once more.
type retryRow struct {
	deliveryRow
	gone, suspended, erased bool
}

// byEvent finds an event's deliveries: those behind it, and the late ones.
const byEvent = `d.id IN (SELECT id FROM deliveries NOT INDEXED WHERE id > ?1 AND id <= ?1 + (SELECT deliveries FROM events WHERE id = ?1)
	UNION ALL SELECT id FROM deliveries INDEXED BY deliveries_late_event WHERE late = 1 AND event = ?1)`

func (tx *txn) retryRows(o *store.RetryOrder) (list []retryRow, err error) {
	where, args := `d.id = ?1 AND d.tenant = ?2 AND ?3 IN (0, d.endpoint)`, []any{int64(o.Delivery), o.Tenant, o.Endpoint}
	if o.Delivery == 0 {
		where, args[0] = byEvent+` AND d.tenant = ?2 AND ?3 IN (0, d.endpoint)`, int64(o.Event)
	}
	err = tx.rows(`SELECT d.id, d.tenant, d.endpoint, d.state, d.place, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual,
			coalesce(p.deleted_at, 1) <> 0, coalesce(t.suspended_at, 0) <> 0,
			NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event AND e.erased_at = 0)
		FROM deliveries d`+withOwners+`WHERE `+where+` ORDER BY d.id`, args, func(r scanner) error {
		var d retryRow
		var next int64
		p := &d.progress
		err := r.Scan((*int64)(&d.id), &d.tenant, &d.endpoint, &p.State, &d.place, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual,
			&d.gone, &d.suspended, &d.erased)
		p.NextAt = nextAt(d.place, next)
		list = append(list, d)
		return err
	})
	return list, err
}

func (d *retryRow) refused(o *store.RetryOrder) error {
	switch {
	case d.gone:
		return store.ErrGone
	case d.suspended:
		return store.ErrSuspended
	case d.place == owned && !o.Holds(d.id):
		return store.ErrInFlight
	case d.erased:
		return store.ErrErased
	}
	return nil
}

// Retry implements [store.Redelivery].
func (s *Store) Retry(ctx context.Context, c store.Change, o store.RetryOrder, answer func([]store.Retried) []byte) (list []store.Retried, err error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		rows, err := tx.retryRows(&o)
		if err != nil {
			return err
		}
		if list, err = tx.retry(c, &o, rows); err != nil {
			return err
		}
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(list)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		s.reopened(list[i].ID)
	}
	return list, nil
}

func (tx *txn) retry(c store.Change, o *store.RetryOrder, rows []retryRow) ([]store.Retried, error) {
	if len(rows) == 0 {
		return nil, refuse(store.ErrNotFound)
	}
	list := make([]store.Retried, len(rows))
	taken := 0
	for i := range rows {
		d := &rows[i]
		list[i] = store.Retried{ID: d.id, Endpoint: d.endpoint, Progress: d.progress, Refused: d.refused(o)}
		if list[i].Refused == nil {
			taken++
		}
	}
	if taken == 0 {
		return nil, refuse(list[0].Refused)
	}
	for i := range rows {
		if list[i].Refused != nil {
			continue
		}
		d := &rows[i]
		next, err := posthorn.Policy{}.Step(d.progress, posthorn.Input{Move: posthorn.Retry, Now: c.At})
		if err != nil {
			return nil, err
		}
		list[i].Progress = next
		to, inLine := waiting, false
		if !next.Extra { // one in an ordered endpoint's line keeps its place there
			if inLine, err = tx.stands(&d.deliveryRow, posthorn.EventNormal); err != nil {
				return nil, err
			}
		}
		if inLine {
			to = parked
			tx.notice(store.Notice{Kind: store.NoticeParked, Tenant: d.tenant, Endpoint: d.endpoint})
		}
		tx.move(d.tenant, d.endpoint, d.place, to)
		if err := tx.exec(`UPDATE deliveries SET state = ?, place = ?, next_at = ?, extra = ?, before = ?, manual = 1 WHERE id = ?`,
			int64(next.State), int64(to), nanos(next.NextAt), next.Extra, int64(next.Before), int64(d.id)); err != nil {
			return nil, err
		}
		if err := tx.audit(c, d.tenant, store.AuditRetry(d.id, d.progress.State)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// CancelDelivery implements [store.Redelivery].
func (s *Store) CancelDelivery(ctx context.Context, c store.Change, tenant int64, id posthorn.ID, answer func(store.Ended) []byte) (e store.Ended, err error) {
	if err := s.serving(); err != nil {
		return e, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		d, found, err := tx.delivery(id)
		switch {
		case err != nil:
			return err
		case !found || d.tenant != tenant:
			return refuse(store.ErrNotFound)
		case d.place == nowhere:
			return refuse(store.ErrFinal)
		}
		list, err := tx.cancel(c, []openRow{{d.id, d.tenant, d.endpoint, d.place}})
		if err != nil {
			return err
		}
		e = list[0].Ended
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(e)
		}
		return tx.audit(c, tenant, store.AuditCancel(id, e.State))
	})
	return e, err
}

// cancel cancels open deliveries by a user's word.
func (tx *txn) cancel(c store.Change, rows []openRow) ([]settledRow, error) {
	return tx.takeBack(rows, posthorn.Canceled, posthorn.ReasonUser, c.At)
}

// CancelEvent implements [store.Redelivery].
func (s *Store) CancelEvent(ctx context.Context, c store.Change, tenant int64, event posthorn.ID, answer func(int) []byte) (canceled int, err error) {
	if err := s.serving(); err != nil {
		return 0, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		e := posthorn.Event{ID: event}
		found, err := tx.row(`SELECT key FROM events WHERE id = ? AND tenant = ?`, []any{int64(event), tenant}, &e.Key)
		if err != nil {
			return err
		}
		if !found {
			return refuse(store.ErrNotFound)
		}
		rows, err := tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries d WHERE place <> 0 AND tenant = ?2 AND `+byEvent, int64(event), tenant)
		if err == nil {
			_, err = tx.cancel(c, rows)
		}
		if err != nil {
			return err
		}
		canceled = len(rows)
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(canceled)
		}
		return tx.audit(c, tenant, store.AuditCancelEvent(e.Ref(), canceled))
	})
	return canceled, err
}

// CountPending implements [store.Redelivery].
func (s *Store) CountPending(ctx context.Context, f store.CancelFilter) (int, error) {
	ids, err := s.pendingOf(ctx, &f, noLimit)
	return len(ids), err
}

// CancelPending implements [store.Redelivery]. What is open is looked for beside
// the writer, which then meets each row by its id.
func (s *Store) CancelPending(ctx context.Context, c store.Change, f store.CancelFilter, limit int, answer func(int, bool) []byte) (canceled int, more bool, err error) {
	if err := s.serving(); err != nil {
		return 0, false, err
	}
	ids, err := s.pendingOf(ctx, &f, limit+1)
	if err != nil {
		return 0, false, err
	}
	if more = len(ids) > limit; more {
		ids = ids[:limit]
	}
	err = s.change(ctx, c, func(tx *txn) error {
		var rows []openRow
		for _, id := range ids {
			found, err := tx.openRows(`SELECT id, tenant, endpoint, place FROM deliveries WHERE id = ? AND place <> 0`, int64(id))
			if err != nil {
				return err
			}
			rows = append(rows, found...)
		}
		if _, err := tx.cancel(c, rows); err != nil {
			return err
		}
		canceled = len(rows)
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(canceled, more)
		}
		if canceled == 0 {
			return nil
		}
		var ref string
		if _, err := tx.row(`SELECT ref FROM endpoints WHERE id = ?`, []any{f.Endpoint}, &ref); err != nil {
			return err
		}
		return tx.audit(c, f.Tenant, store.AuditCancelPending(ref, &f, canceled))
	})
	return canceled, more, err
}
