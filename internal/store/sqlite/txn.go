package sqlite

import (
	"database/sql"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// txn is a transaction of the writer. What it changes in memory is taken over
// by the writer once it is committed.
type txn struct {
	w       *writer
	last    posthorn.ID
	lead    time.Duration
	moves   []move
	opened  map[int64]int  // open deliveries by tenant, by moves
	notices []store.Notice // of the operation that runs
	lines   map[int64]bool // what changed of writer.lines

	// Read once and, for health and statistics, written once per transaction.
	tenants map[int64]*tenantRow
	health  map[int64]*healthRow
	hours   store.Hours
	merged  []store.HourKey // logged statistics that were added up
	kept    store.Keeps     // what tenants keep more, or less
	replays store.ReplayCounts

	keptWritten []store.KeptKey

	posted   []posting
	moved    int  // lists that were moved into the table
	begun    bool // with the first of them
	allMoved bool // with the last
	gone     map[listKey]int64
}

func newTxn(w *writer) *txn {
	clear(w.kept.spare)
	return &txn{
		kept: w.kept.spare,
		w:    w, last: w.last, lead: w.lead,
		opened:  make(map[int64]int),
		tenants: make(map[int64]*tenantRow),
		health:  make(map[int64]*healthRow),
		hours:   make(store.Hours),
		replays: make(store.ReplayCounts),
		posted:  w.postings.buf[:0],
	}
}

// refusal is an expected error of an operation that changed nothing: the rest
// of its group goes on.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }

func refuse(err error) error { return refusal{err} }

func (tx *txn) run(group []*op) error {
	for _, o := range group {
		tx.notices = nil
		err := o.apply(tx)
		o.err, o.notices = nil, tx.notices
		if r, ok := err.(refusal); ok {
			o.err = r.err
		} else if err != nil {
			return err
		}
	}
	tx.notices = nil
	if err := tx.writeHealth(); err != nil {
		return err
	}
	if err := tx.logStats(); err != nil {
		return err
	}
	if err := tx.writeReplays(); err != nil {
		return err
	}
	return tx.movePostings()
}

func (tx *txn) exec(query string, args ...any) error {
	return tx.w.conn.exec(query, args)
}

// execCount also returns how many rows changed.
func (tx *txn) execCount(query string, args ...any) (int, error) {
	if err := tx.w.conn.exec(query, args); err != nil {
		return 0, err
	}
	return tx.w.conn.changes(), nil
}

// insert returns the new row's id.
func (tx *txn) insert(query string, args ...any) (int64, error) {
	if err := tx.w.conn.exec(query, args); err != nil {
		return 0, err
	}
	return tx.w.conn.lastID(), nil
}

// row scans the one row of a query into dest; found is false without one.
func (tx *txn) row(query string, args []any, dest ...any) (found bool, err error) {
	return tx.w.conn.row(query, args, dest...)
}

// rows calls scan for each row.
func (tx *txn) rows(query string, args []any, scan func(scanner) error) error {
	return tx.w.conn.rows(query, args, scan)
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func eachRow(rows *sql.Rows, scan func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ids reads a column of ids.
func (tx *txn) ids(query string, args ...any) (ids []int64, err error) {
	err = tx.rows(query, args, func(r scanner) error {
		var id int64
		err := r.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

func (tx *txn) notice(n store.Notice) { tx.notices = append(tx.notices, n) }

// nanos is how a time is stored; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
