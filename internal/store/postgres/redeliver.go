package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// retryRow is a delivery that is to be attempted once more.
type retryRow struct {
	deliveryRow
	id                      posthorn.ID
	gone, suspended, erased bool
}

// byEvent finds an event's deliveries: those behind it, and the late ones.
const byEvent = `(d.id > $1 AND d.id <= $1 + (SELECT deliveries FROM events WHERE id = $1) OR d.late AND d.event = $1)`

// ownersOf tells of a delivery's endpoint and event whether anything may be sent.
const ownersOf = `coalesce((SELECT p.deleted_at FROM endpoints p WHERE p.id = d.endpoint), 1) <> 0,
	coalesce((SELECT t.suspended_at FROM tenants t WHERE t.id = d.tenant), 0) <> 0,
	NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event AND e.body IS NOT NULL)`

// retryRows locks what the order names: the open ones first, as all do.
func (tx *txn) retryRows(o *store.RetryOrder) (list []retryRow, err error) {
	where, args := `d.id = $1 AND d.tenant = $2 AND ($3 = 0 OR d.endpoint = $3)`, []any{int64(o.Delivery), o.Tenant, o.Endpoint}
	if o.Delivery == 0 {
		where, args[0] = byEvent+` AND d.tenant = $2 AND ($3 = 0 OR d.endpoint = $3)`, int64(o.Event)
	}
	err = tx.rows(`SELECT d.id, d.tenant, d.endpoint, d.run, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, `+ownersOf+`
		FROM due d WHERE `+where+` ORDER BY d.endpoint, d.id FOR UPDATE`, args, func(r scanner) error {
		var d retryRow
		var next int64
		p := &d.progress
		err := r.Scan((*int64)(&d.id), &d.tenant, &d.endpoint, &d.run, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual,
			&d.gone, &d.suspended, &d.erased)
		p.NextAt = fromNanos(next)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = tx.rows(`SELECT d.id, d.tenant, d.endpoint, d.state, d.tries, d.attempts, d.waits, d.round, `+ownersOf+`
		FROM deliveries d WHERE `+where+` ORDER BY d.endpoint, d.id FOR UPDATE`, args, func(r scanner) error {
		d := retryRow{deliveryRow: deliveryRow{settled: true}}
		p := &d.progress
		err := r.Scan((*int64)(&d.id), &d.tenant, &d.endpoint, &p.State, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &d.gone, &d.suspended, &d.erased)
		list = append(list, d)
		return err
	})
	slices.SortFunc(list, func(a, b retryRow) int { return int(min(max(a.id-b.id, -1), 1)) })
	return list, err
}

func (d *retryRow) refused(h *holdings, o *store.RetryOrder) error {
	switch {
	case d.gone:
		return store.ErrGone
	case d.suspended:
		return store.ErrSuspended
	case d.run > 0 && !d.letGo(h, o):
		return store.ErrInFlight
	case d.erased:
		return store.ErrErased
	}
	return nil
}

// letGo reports whether this node has the row and its engine let go of it.
func (d *retryRow) letGo(h *holdings, o *store.RetryOrder) bool {
	held := o.Hold(d.id)
	return len(held) > 0 && h.hasFor(d.run, held[0])
}

// Retry implements [store.Redelivery].
func (s *Store) Retry(ctx context.Context, c store.Change, o store.RetryOrder, answer func([]store.Retried) []byte) (list []store.Retried, err error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	// What moves from one table to the other between two reads is found again.
	for range 3 {
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
		if !errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.floor.lower(nanos(c.At))
	return list, nil
}

func (tx *txn) retry(c store.Change, o *store.RetryOrder, rows []retryRow) ([]store.Retried, error) {
	if len(rows) == 0 {
		return nil, store.ErrNotFound
	}
	list := make([]store.Retried, len(rows))
	var open, finished []int64
	for i := range rows {
		d := &rows[i]
		list[i] = store.Retried{ID: d.id, Endpoint: d.endpoint, Progress: d.progress, Refused: d.refused(tx.holdings, o)}
		if list[i].Refused != nil {
			continue
		}
		next, err := posthorn.Policy{}.Step(d.progress, posthorn.Input{Move: posthorn.Retry, Now: c.At})
		if err != nil {
			return nil, err
		}
		list[i].Progress = next
		if d.settled {
			finished = append(finished, int64(d.id))
			tx.moved[d.tenant]++
		} else {
			open = append(open, int64(d.id))
			tx.given = append(tx.given, o.Hold(d.id)...)
		}
		if err := tx.audit(c, d.tenant, store.AuditRetry(d.id, d.progress.State)); err != nil {
			return nil, err
		}
	}
	if len(open)+len(finished) == 0 {
		return nil, list[0].Refused
	}
	if len(open) > 0 {
		// One in an ordered endpoint's line keeps its place there.
		if err := tx.rows(`UPDATE due d SET next_at = $2, manual = true,
				run = CASE WHEN EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = d.endpoint AND l.ordered) AND NOT `+aside+` THEN -1 ELSE 0 END
			FROM events e WHERE e.id = d.event AND d.id = ANY ($1) RETURNING d.run, d.tenant, d.endpoint`, []any{open, nanos(c.At)}, func(r scanner) error {
			var run int64
			n := store.Notice{Kind: store.NoticeParked}
			err := r.Scan(&run, &n.Tenant, &n.Endpoint)
			if run < 0 {
				tx.notice(n)
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	if len(finished) == 0 {
		return list, nil
	}
	return list, tx.exec(`WITH g AS (DELETE FROM deliveries WHERE id = ANY ($1) RETURNING *)
		INSERT INTO due (id, event, tenant, endpoint, run, next_at, replay_id, tries, attempts, waits, round, before, extra, manual, late, reason, counted, log)
		SELECT id, event, tenant, endpoint, 0, $2, replay_id, tries, attempts, waits, round, state, true, true, late, reason, counted, log FROM g`, finished, nanos(c.At))
}

// cancel cancels the open deliveries that a query finds and locks, by a user's word.
func (tx *txn) cancel(c store.Change, query string, args ...any) ([]settledRow, error) {
	rows, err := tx.settle(posthorn.Canceled, posthorn.ReasonUser, c.At, query, args...)
	if err != nil {
		return nil, err
	}
	tx.takeBack(rows)
	return rows, tx.writeHours()
}

// CancelDelivery implements [store.Redelivery].
func (s *Store) CancelDelivery(ctx context.Context, c store.Change, tenant int64, id posthorn.ID, answer func(store.Ended) []byte) (e store.Ended, err error) {
	if err := s.serving(); err != nil {
		return e, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		rows, err := tx.retryRows(&store.RetryOrder{Tenant: tenant, Delivery: id})
		switch {
		case err != nil:
			return err
		case len(rows) == 0:
			return store.ErrNotFound
		case rows[0].settled:
			return store.ErrFinal
		}
		list, err := tx.cancel(c, `SELECT id FROM due WHERE id = $1 FOR UPDATE`, int64(id))
		if err != nil {
			return err
		}
		e = list[0].Ended // it was locked before
		if c.Once != nil && answer != nil {
			c.Once.Answer = answer(e)
		}
		return tx.audit(c, tenant, store.AuditCancel(id, e.State))
	})
	return e, err
}

// CancelEvent implements [store.Redelivery].
func (s *Store) CancelEvent(ctx context.Context, c store.Change, tenant int64, event posthorn.ID, answer func(int) []byte) (canceled int, err error) {
	if err := s.serving(); err != nil {
		return 0, err
	}
	err = s.change(ctx, c, func(tx *txn) (err error) {
		e := posthorn.Event{ID: event}
		found, err := tx.row(`SELECT key FROM events WHERE id = $1 AND tenant = $2`, []any{int64(event), tenant}, &e.Key)
		if err != nil {
			return err
		}
		if !found {
			return store.ErrNotFound
		}
		rows, err := tx.cancel(c, `SELECT d.id FROM due d WHERE `+byEvent+`
			AND d.tenant = $2 ORDER BY d.endpoint, d.id FOR UPDATE`, int64(event), tenant)
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

// pendingOf finds the open deliveries that the filter selects, at most limit.
func (s *Store) pendingOf(ctx context.Context, f *store.CancelFilter, limit int) (ids []int64, err error) {
	end, err := s.walks.Begin(ctx, f.Tenant)
	if err != nil {
		return nil, err
	}
	defer end()
	after := int64(0)
	for more := true; more && len(ids) < limit; {
		err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) error {
			read := 0
			err := s.fill(ctx, `SELECT d.id, coalesce(e.type, ''), coalesce(e.accepted_at, 0)
				FROM (SELECT id, event FROM due WHERE endpoint = $1 AND tenant = $2 AND id > $3 ORDER BY id LIMIT $4) d
				LEFT JOIN LATERAL (SELECT type, accepted_at FROM events WHERE id = d.event OFFSET 0) e ON true ORDER BY d.id`,
				[]any{f.Endpoint, f.Tenant, after, store.WalkSlice}, func(r scanner) error {
					var accepted int64
					var eventType string
					if err := r.Scan(&after, &eventType, &accepted); err != nil {
						return err
					}
					if read++; len(ids) < limit && f.Wants(eventType, fromNanos(accepted)) {
						ids = append(ids, after)
					}
					return nil
				})
			more = read == store.WalkSlice
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

const noLimit = int(^uint(0) >> 1)

// CountPending implements [store.Redelivery].
func (s *Store) CountPending(ctx context.Context, f store.CancelFilter) (int, error) {
	ids, err := s.pendingOf(ctx, &f, noLimit)
	return len(ids), err
}

// CancelPending implements [store.Redelivery].
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
	err = s.change(ctx, c, func(tx *txn) (err error) {
		rows, err := tx.cancel(c, `SELECT id FROM due WHERE id = ANY ($1) ORDER BY endpoint, id FOR UPDATE`, ids)
		if err != nil {
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
		if _, err := tx.row(`SELECT ref FROM endpoints WHERE id = $1`, []any{f.Endpoint}, &ref); err != nil {
			return err
		}
		return tx.audit(c, f.Tenant, store.AuditCancelPending(ref, &f, canceled))
	})
	return canceled, more, err
}
