package sqlite

import (
	"database/sql"
	"errors"
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
	opened  map[int64]int // open deliveries by tenant, by moves
	notices []store.Notice

	// Read once and, for health and statistics, written once per transaction.
	tenants map[int64]*tenantRow
	health  map[int64]*healthRow
	hours   store.Hours
	merged  []store.HourKey // logged statistics that were added up
}

func newTxn(w *writer) *txn {
	return &txn{
		w: w, last: w.last, lead: w.lead,
		opened:  make(map[int64]int),
		tenants: make(map[int64]*tenantRow),
		health:  make(map[int64]*healthRow),
		hours:   make(store.Hours),
	}
}

// refusal is an expected error of an operation that changed nothing: the rest
// of its group goes on.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }

func refuse(err error) error { return refusal{err} }

func (tx *txn) run(group []*op) error {
	for _, o := range group {
		err := o.apply(tx)
		o.err = nil
		if r, ok := err.(refusal); ok {
			o.err = r.err
		} else if err != nil {
			return err
		}
	}
	if err := tx.writeHealth(); err != nil {
		return err
	}
	return tx.logStats()
}

func (tx *txn) exec(query string, args ...any) error {
	_, err := tx.w.run(query, args)
	return err
}

// execCount also returns how many rows changed.
func (tx *txn) execCount(query string, args ...any) (int, error) {
	r, err := tx.w.run(query, args)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// insert returns the new row's id.
func (tx *txn) insert(query string, args ...any) (int64, error) {
	r, err := tx.w.run(query, args)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// row scans the one row of a query into dest; found is false without one.
func (tx *txn) row(query string, args []any, dest ...any) (found bool, err error) {
	s, err := tx.w.stmt(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRow(args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// rows calls scan for each row.
func (tx *txn) rows(query string, args []any, scan func(scanner) error) error {
	s, err := tx.w.stmt(query)
	if err != nil {
		return err
	}
	rows, err := s.Query(args...)
	if err != nil {
		return err
	}
	return eachRow(rows, scan)
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
