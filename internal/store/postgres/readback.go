package postgres

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// ReadBack implements [store.Keeper]. Several nodes may do it at a time.
func (s *Store) ReadBack(ctx context.Context, now time.Time, p posthorn.Policy) (int, error) {
	if err := s.serving(); err != nil {
		return 0, err
	}
	ahead, err := one(ctx, s, func(r scanner) (ahead bool, err error) { return ahead, r.Scan(&ahead) },
		`SELECT EXISTS (SELECT 1 FROM endpoint_health WHERE last_failure > $1 OR last_success > $1)`, nanos(now))
	if err != nil || !ahead {
		return 0, err
	}
	backs := store.Backs{Now: now, Policy: p, Target: s.Target}
	total := 0
	for after := posthorn.ID(0); ; {
		slice, err := all(ctx, s, s.other, scanWaiting, `SELECT id, endpoint, waits, next_at, log FROM due
			WHERE run IN (0, -1) AND next_at > $1 AND tries > 0 AND id > $2 ORDER BY id LIMIT $3`, nanos(now), int64(after), store.ReadBackSlice)
		if err != nil {
			return total, err
		}
		if len(slice) == 0 {
			break
		}
		after = slice[len(slice)-1].ID
		n, err := s.readBack(ctx, slice, &backs)
		if err != nil {
			return total, err
		}
		total += n
	}
	if total == 0 {
		return 0, nil
	}
	s.tellAll()
	return total, s.announceAll(ctx)
}

func scanWaiting(r scanner) (w store.Waiting, err error) {
	var next int64
	err = r.Scan((*int64)(&w.ID), &w.Endpoint, &w.Progress.Waits, &next, &w.Log)
	w.Progress.NextAt = fromNanos(next)
	return w, err
}

// readBack reads back what was found, unless it changed since.
func (s *Store) readBack(ctx context.Context, slice []store.Waiting, backs *store.Backs) (n int, err error) {
	var ids, from, to []int64
	for i := range slice {
		w := &slice[i]
		back, changed, err := backs.Back(ctx, w)
		if err != nil {
			return 0, err
		}
		if changed {
			ids, from, to = append(ids, int64(w.ID)), append(from, nanos(w.Progress.NextAt)), append(to, nanos(back))
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	err = s.transact(ctx, patience{limit: s.o.Deadlines.Walk}, func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		n, err = tx.execCount(`UPDATE due d SET next_at = u.back FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) u (id, next, back)
			WHERE d.id = u.id AND d.next_at = u.next AND d.run IN (0, -1)`, ids, from, to)
		return err
	})
	return n, err
}
