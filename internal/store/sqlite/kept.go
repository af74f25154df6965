package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// What tenants keep is summed up in memory, and written now and then as it changed:
// a row per tenant and commit would be as much as an event's. What a crash loses is
// found by the next recount.

const (
	// keptEvery is how long changes may stand in memory alone.
	keptEvery = 10 * time.Second
	// keptSlice is how many of them a transaction writes: some milliseconds.
	keptSlice = 1000
	// metaKept is up to which day what is kept was counted again.
	metaKept = "kept"
)

// keptCounts are of the writer's goroutine, but for the ledger.
type keptCounts struct {
	ledger  store.Ledger
	pending store.Keeps // what the table does not have yet
	since   time.Time   // when the first of them came
	writing bool        // until none are left
	spare   store.Keeps // the room of a transaction's changes
}

func newKeptCounts() keptCounts {
	return keptCounts{pending: store.Keeps{}, spare: store.Keeps{}}
}

// keep notes in the transaction what an event adds, or below 0 takes away.
func (tx *txn) keep(tenant int64, event posthorn.ID, bytes int64) {
	tx.kept.Add(tenant, event, bytes)
}

// take takes over what the transaction did, which is committed.
func (k *keptCounts) take(tx *txn) {
	for _, key := range tx.keptWritten {
		delete(k.pending, key)
	}
	if len(tx.kept) == 0 {
		return
	}
	if len(k.pending) == 0 {
		k.since = tx.w.now()
	}
	k.pending.Merge(tx.kept)
	k.ledger.Add(tx.kept)
}

func (k *keptCounts) due(now time.Time) bool {
	wait := now.Sub(k.since)
	k.writing = len(k.pending) > 0 && (k.writing || wait >= keptEvery || wait < 0)
	return k.writing
}

// tidyKept writes the next slice of what is due.
func (w *writer) tidyKept() {
	if !w.kept.due(w.now()) {
		return
	}
	if err := w.try([]*op{{apply: func(tx *txn) error { return tx.writeKept(keptSlice) }, done: func(error) {}}}); err != nil {
		w.log.Warn("what tenants keep could not be written; it is kept and tried again", "error", err)
		w.kept.writing, w.kept.since = false, w.now()
	}
}

// writeKept writes at most limit changes, all with 0.
func (tx *txn) writeKept(limit int) error {
	for key, n := range tx.w.kept.pending {
		if limit > 0 && len(tx.keptWritten) == limit {
			return nil
		}
		if err := tx.exec(`INSERT INTO kept (day, tenant, bytes) VALUES (?, ?, ?) ON CONFLICT (day, tenant) DO UPDATE SET bytes = bytes + excluded.bytes`,
			key.Day, key.Tenant, n); err != nil {
			return err
		}
		if n < 0 {
			if err := tx.exec(`DELETE FROM kept WHERE day = ? AND tenant = ? AND bytes = 0`, key.Day, key.Tenant); err != nil {
				return err
			}
		}
		tx.keptWritten = append(tx.keptWritten, key)
	}
	return nil
}

// readKept reads what the last run left.
func (w *writer) readKept() error {
	of := map[int64]int64{}
	err := w.conn.rows(`SELECT tenant, sum(bytes) FROM kept GROUP BY tenant`, nil, func(r scanner) error {
		var tenant, n int64
		err := r.Scan(&tenant, &n)
		of[tenant] = n
		return err
	})
	w.kept.ledger.Load(of)
	return err
}

// Kept implements [store.Keeping].
func (s *Store) Kept(tenant int64) store.Kept { return s.writer.kept.ledger.Kept(tenant) }

// CountKept implements [store.Keeping].
func (s *Store) CountKept(ctx context.Context, tenant int64) (n int64, err error) {
	if err := s.writer.do(ctx, func(tx *txn) error { return tx.writeKept(0) }); err != nil {
		return 0, err
	}
	err = s.readers.QueryRowContext(ctx, `SELECT coalesce(sum(bytes), 0) FROM kept WHERE tenant = ?`, tenant).Scan(&n)
	return n, err
}

// recount does the next slice of counting again, if a pass is due. It is called with
// the sweeper's lock held, so that retention deletes nothing meanwhile.
func (s *Store) recount(ctx context.Context, now time.Time) error {
	r := &s.sweeper.recount
	if !r.Active() {
		if now.Sub(s.sweeper.recounted) < time.Minute && !now.Before(s.sweeper.recounted) {
			return nil
		}
		s.sweeper.recounted = now
		var last, oldest int64
		if err := s.readers.QueryRowContext(ctx, `SELECT coalesce((SELECT value FROM meta WHERE key = '`+metaKept+`'), 0),
			coalesce((SELECT min(id) FROM events), 0)`).Scan(&last, &oldest); err != nil {
			return err
		}
		from := store.DayOf(posthorn.ID(oldest))
		if oldest == 0 {
			from = store.RecountUntil(now)
		}
		if err := s.readers.QueryRowContext(ctx, `SELECT min(?1, coalesce((SELECT min(day) FROM kept), ?1))`, from).Scan(&from); err != nil {
			return err
		}
		if !r.Begin(from, last, now) {
			return nil
		}
	}
	if r.Over() {
		until := r.Until()
		*r = store.Recount{}
		return s.writer.submit(&op{kind: opSweep, ctx: ctx, apply: func(tx *txn) error { return tx.setMeta(metaKept, until) }})
	}
	from, below := r.Slice()
	bytes, events, last := map[int64]int64{}, 0, from
	rows, err := s.readers.QueryContext(ctx, `SELECT tenant, sum(weight), count(*), max(id) FROM
		(SELECT id, tenant, `+store.WeightColumn+` AS weight FROM events NOT INDEXED WHERE id >= ? AND id < ? ORDER BY id LIMIT ?) GROUP BY tenant`,
		int64(from), int64(below), store.RecountSlice)
	if err != nil {
		return err
	}
	err = eachRow(rows, func(r scanner) error {
		var tenant, n, count, id int64
		err := r.Scan(&tenant, &n, &count, &id)
		bytes[tenant] = n
		events += int(count)
		last = max(last, posthorn.ID(id))
		return err
	})
	if err != nil || !r.Take(bytes, last, events) {
		return err
	}
	day, counted := r.Day()
	if err := s.writer.submit(&op{kind: opSweep, ctx: ctx, apply: func(tx *txn) error { return tx.correctKept(day, counted) }}); err != nil {
		return err
	}
	r.NextDay()
	return nil
}

// correctKept makes what is counted of a day what it is.
func (tx *txn) correctKept(day int64, counted map[int64]int64) error {
	have := map[int64]int64{}
	err := tx.rows(`SELECT tenant, bytes FROM kept WHERE day = ?`, []any{day}, func(r scanner) error {
		var tenant, n int64
		err := r.Scan(&tenant, &n)
		have[tenant] = n
		return err
	})
	if err != nil {
		return err
	}
	for _, k := range []store.Keeps{tx.w.kept.pending, tx.kept} {
		for key, n := range k {
			if key.Day == day {
				have[key.Tenant] += n
			}
		}
	}
	tx.kept.Merge(store.Corrections(day, counted, have))
	return nil
}
