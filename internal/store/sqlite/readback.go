package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// ReadBack implements [store.Keeper].
func (s *Store) ReadBack(ctx context.Context, now time.Time, p posthorn.Policy) (int, error) {
	if err := s.serving(); err != nil {
		return 0, err
	}
	var ahead bool
	err := s.readers.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM endpoint_health WHERE last_failure > ?1 OR last_success > ?1)`, nanos(now)).Scan(&ahead)
	if err != nil || !ahead {
		return 0, err
	}
	back, err := s.aheadOf(ctx, now, p)
	if err != nil {
		return 0, err
	}
	n := 0
	for len(back) > 0 {
		slice := back[:min(len(back), store.ReadBackSlice)]
		back = back[len(slice):]
		if err := s.writer.do(ctx, func(tx *txn) error {
			for _, b := range slice {
				changed, err := tx.execCount(`UPDATE deliveries SET next_at = ? WHERE id = ? AND next_at = ? AND place IN (2, 3)`, b.to, b.id, b.from)
				if err != nil {
					return err
				}
				n += changed
			}
			return nil
		}); err != nil {
			return n, err
		}
	}
	if n > 0 {
		s.watchers.Tell(store.Notice{Kind: store.NoticeAll})
	}
	return n, nil
}

// readBack is a row whose time is another.
type readBack struct{ id, from, to int64 }

// aheadOf finds what waits since an attempt ahead of now.
func (s *Store) aheadOf(ctx context.Context, now time.Time, p posthorn.Policy) (back []readBack, err error) {
	backs := store.Backs{Now: now, Policy: p, Target: s.Target}
	for _, query := range []string{
		`SELECT id, endpoint, waits, next_at, log FROM deliveries INDEXED BY deliveries_due WHERE place IN (1, 2) AND next_at > ? AND next_at < 1 << 62 AND tries > 0`,
		`SELECT id, endpoint, waits, next_at, log FROM deliveries INDEXED BY deliveries_parked WHERE place = 3 AND next_at > ? AND tries > 0`,
	} {
		rows, err := s.readers.QueryContext(ctx, query, nanos(now))
		if err != nil {
			return nil, err
		}
		if err := eachRow(rows, func(r scanner) error {
			var w store.Waiting
			var next int64
			if err := r.Scan((*int64)(&w.ID), &w.Endpoint, &w.Progress.Waits, &next, &w.Log); err != nil {
				return err
			}
			w.Progress.NextAt = fromNanos(next)
			to, changed, err := backs.Back(ctx, &w)
			if err != nil {
				return err
			}
			if changed {
				back = append(back, readBack{int64(w.ID), next, nanos(to)})
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return back, nil
}
