package postgres

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// What publishes add is summed up in memory and added to the table of all nodes now
// and then: a row per tenant would be what all nodes' publishes wait for. What erases
// writes it in its own transaction. What a crash loses is found by the next recount.

const (
	// keptEvery is how often the table takes in what a node counted, and the room is
	// looked at; keptLook how often a node reads what all nodes counted.
	keptEvery = 10 * time.Second
	keptLook  = 3 * keptEvery
	// metaKept is up to which day what is kept was counted again.
	metaKept = "kept"
)

// keptCounts is what this node knows of what tenants keep.
type keptCounts struct {
	writing sync.Mutex // is held while the table is written or read

	mu      sync.Mutex
	pending store.Keeps // what the table does not have yet
	ledger  store.Ledger
	room    atomic.Pointer[store.Room]

	// Of the sweep: it holds upkeep.mu.
	recount store.Recount
	run     int64     // whose turn the pass is
	looked  time.Time // when a pass was last looked for
}

// added takes in what was published.
func (k *keptCounts) added(more store.Keeps) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pending == nil {
		k.pending = store.Keeps{}
	}
	k.pending.Merge(more)
	k.ledger.Add(more)
}

// keepCounting writes, reads and looks until the store is closed.
func (s *Store) keepCounting(others func() bool) {
	looked := time.Now()
	s.every(keptEvery, func() {
		ctx, cancel := s.look(s.stop)
		defer cancel()
		err := s.flushKept(ctx)
		if err == nil && others() && time.Since(looked) >= keptLook {
			looked = time.Now()
			err = s.loadKept(ctx)
		}
		if err == nil {
			err = s.lookAtRoom(ctx)
		}
		if err != nil && s.stop.Err() == nil {
			s.log.Warn("what tenants keep could not be counted; trying again", "error", err)
		}
	})
}

// addKept adds to what is stored, in the order in which rows are locked.
const addKept = `INSERT INTO kept (day, tenant, bytes) SELECT k.day, k.tenant, k.bytes FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) k (day, tenant, bytes)
	ON CONFLICT (day, tenant) DO UPDATE SET bytes = kept.bytes + excluded.bytes`

func columnsOf(k store.Keeps) []any {
	var days, tenants, bytes []int64
	for _, key := range k.Keys() {
		days, tenants, bytes = append(days, key.Day), append(tenants, key.Tenant), append(bytes, k[key])
	}
	return []any{days, tenants, bytes}
}

// flushKept adds to the table what this node counted. What became of a lost answer is
// not found out: a day is counted again.
func (s *Store) flushKept(ctx context.Context) error {
	k := &s.kept
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	more := k.pending
	k.pending = nil
	k.mu.Unlock()
	if len(more) == 0 {
		return nil
	}
	_, err := s.other.Exec(ctx, addKept, columnsOf(more)...)
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pending == nil {
			k.pending = store.Keeps{}
		}
		k.pending.Merge(more)
	}
	return err
}

// lastKept is flushKept at the end.
func (s *Store) lastKept() {
	ctx, cancel := s.look(context.WithoutCancel(s.stop))
	defer cancel()
	if err := s.flushKept(ctx); err != nil {
		s.log.Warn("what tenants keep was not written; it is counted again when the day is over", "error", err)
	}
}

// sums reads two columns: tenants and bytes.
func sums(rows pgx.Rows) (map[int64]int64, error) {
	of := map[int64]int64{}
	return of, eachRow(rows, func(r scanner) error {
		var tenant, n int64
		err := r.Scan(&tenant, &n)
		of[tenant] = n
		return err
	})
}

// loadKept reads what all nodes counted.
func (s *Store) loadKept(ctx context.Context) error {
	k := &s.kept
	k.writing.Lock()
	defer k.writing.Unlock()
	rows, err := s.other.Query(ctx, `SELECT tenant, sum(bytes)::bigint FROM kept GROUP BY tenant`)
	if err != nil {
		return err
	}
	of, err := sums(rows)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ledger.Load(of)
	k.ledger.Add(k.pending)
	return nil
}

func (s *Store) lookAtRoom(ctx context.Context) error {
	if s.o.Bytes <= 0 {
		return nil
	}
	var used int64
	if err := s.other.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&used); err != nil {
		return err
	}
	s.kept.room.Store(&store.Room{Free: max(s.o.Bytes-used, 0), Reserve: int64(store.Reserve(uint64(s.o.Bytes)))})
	return nil
}

// Room implements [store.Keeping].
func (s *Store) Room() (store.Room, bool) {
	if r := s.kept.room.Load(); r != nil {
		return *r, true
	}
	return store.Room{}, false
}

// Kept implements [store.Keeping]. What other nodes did is known half a minute later.
func (s *Store) Kept(tenant int64) store.Kept { return s.kept.ledger.Kept(tenant) }

// CountKept implements [store.Keeping].
func (s *Store) CountKept(ctx context.Context, tenant int64) (n int64, err error) {
	if err := s.flushKept(ctx); err != nil {
		return 0, s.readError(ctx, err)
	}
	err = s.other.QueryRow(ctx, `SELECT coalesce(sum(bytes), 0)::bigint FROM kept WHERE tenant = $1`, tenant).Scan(&n)
	return n, err
}

// keep notes what an event adds, or below 0 takes away; see writeKept.
func (tx *txn) keep(tenant int64, event posthorn.ID, bytes int64) {
	if tx.kept == nil {
		tx.kept = store.Keeps{}
	}
	tx.kept.Add(tenant, event, bytes)
}

// writeKept comes last in a transaction that called keep.
func (tx *txn) writeKept() error {
	if len(tx.kept) == 0 {
		return nil
	}
	columns := columnsOf(tx.kept)
	if err := tx.exec(addKept, columns...); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM kept WHERE bytes = 0 AND (day, tenant) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))`, columns[0], columns[1])
}

// recount does the next slice of counting again, if a pass is due and no other node
// does it. It is called with the sweep's lock held.
func (s *Store) recount(ctx context.Context, now time.Time) error {
	r := &s.kept.recount
	if !r.Active() {
		return s.beginRecount(ctx, now)
	}
	if r.Over() {
		until := r.Until()
		*r = store.Recount{}
		defer s.giveTurn("kept", s.kept.run)
		_, err := s.other.Exec(ctx, `INSERT INTO meta (key, value) VALUES ('`+metaKept+`', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, until)
		return err
	}
	from, below := r.Slice()
	bytes, events, last := map[int64]int64{}, 0, from
	rows, err := s.other.Query(ctx, `SELECT tenant, sum(weight)::bigint, count(*), max(id) FROM
		(SELECT id, tenant, `+store.WeightColumn+` AS weight FROM events WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3) e GROUP BY tenant`,
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
	if err := s.correctKept(ctx, day, counted); err != nil {
		return err
	}
	r.NextDay()
	return nil
}

// recountLook is how often a node looks whether a pass is due.
const recountLook = time.Minute

func (s *Store) beginRecount(ctx context.Context, now time.Time) error {
	k := &s.kept
	if d := now.Sub(k.looked); d >= 0 && d < recountLook {
		return nil
	}
	k.looked = now
	var last, oldest, first int64
	if err := s.other.QueryRow(ctx, `SELECT coalesce((SELECT value FROM meta WHERE key = '`+metaKept+`'), 0),
		coalesce((SELECT min(id) FROM events), 0), coalesce((SELECT min(day) FROM kept), $1)`, store.RecountUntil(now)).Scan(&last, &oldest, &first); err != nil {
		return err
	}
	if oldest != 0 {
		first = min(first, store.DayOf(posthorn.ID(oldest)))
	}
	var r store.Recount
	run, _, err := s.lease.current()
	if err != nil || !r.Begin(first, last, now) {
		return nil // the run that comes next does it
	}
	mine, err := s.takeTurn(ctx, "kept", run)
	if mine {
		k.recount, k.run = r, run
	}
	return err
}

// correctKept makes what is counted of a day what it is.
func (s *Store) correctKept(ctx context.Context, day int64, counted map[int64]int64) error {
	if err := s.flushKept(ctx); err != nil {
		return err
	}
	return s.write(ctx, func(tx *txn) error {
		have := map[int64]int64{}
		err := tx.rows(`SELECT tenant, bytes FROM kept WHERE day = $1 ORDER BY tenant FOR UPDATE`, []any{day}, func(r scanner) error {
			var tenant, n int64
			err := r.Scan(&tenant, &n)
			have[tenant] = n
			return err
		})
		if err != nil {
			return err
		}
		tx.kept = store.Corrections(day, counted, have)
		return tx.writeKept()
	})
}

// dropKept forgets what was kept of a week that was dropped.
func (s *Store) dropKept(ctx context.Context, n int64) error {
	if _, err := s.other.Exec(ctx, `DELETE FROM kept WHERE day >= $1 AND day < $2`, store.DayOf(weekBound(n)), store.DayOf(weekBound(n+1))); err != nil {
		return err
	}
	return s.loadKept(ctx)
}
