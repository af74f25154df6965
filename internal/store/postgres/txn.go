package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// txn is a transaction that changes rows.
type txn struct {
	ctx     context.Context
	c       *pgx.Conn
	now     func() time.Time
	mark    mark // zero: nothing to prove
	notices []store.Notice
	// settling is what the answer waits for, once the notices were told.
	settling store.Settling
	hours    store.Hours
	replays  store.ReplayCounts
	moved    opened
	kept     store.Keeps // what tenants keep more, or less; nil for nothing

	// What the run takes over by it is in memory before it is committed, what it
	// gives up leaves memory when it is known to be.
	holdings     *holdings
	taken, given []store.Hold
}

// retries is how often a transaction that lost a race is repeated.
const retries = 10

// patience says how long a transaction may take, and whether its caller waits for
// longer than that to learn what became of its commit: one that must not be
// repeated before.
type patience struct {
	limit   time.Duration
	forever bool
}

func (s *Store) patient() patience { return patience{s.o.Deadlines.Write, true} }

// write runs fn in a transaction. When it returns nil the transaction is
// committed; with an error other than [store.ErrUnsettled] nothing was changed. fn
// may run more than once. Once it was begun, its outcome is waited for until the
// deadline of writes, whatever becomes of ctx.
func (s *Store) write(ctx context.Context, fn func(*txn) error) error {
	return s.transact(ctx, patience{limit: s.o.Deadlines.Write}, fn)
}

// transact is write with a patience of the caller's.
func (s *Store) transact(ctx context.Context, p patience, fn func(*txn) error) error {
	until := time.Now().Add(p.limit)
	for i := 0; ; i++ {
		settling, err := s.once(ctx, until, p.forever, fn)
		settling.Wait()
		// Whoever lost a race finds the winner's rows the next time.
		if !isCode(err, codeUnique, codeDeadlock, codeSerialize) || i == retries {
			return classify(err)
		}
	}
}

// once tries once. What was told of a change may have to settle before it is answered.
func (s *Store) once(ctx context.Context, until time.Time, forever bool, fn func(*txn) error) (store.Settling, error) {
	if s.closed.Load() {
		return nil, store.ErrClosed
	}
	waits, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := s.other.Acquire(waits)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer conn.Release()
	ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	tx := s.newTxn(ctx, conn.Conn())
	if err := tx.exec("BEGIN"); err != nil {
		return nil, err
	}
	if err = fn(tx); err == nil {
		err = tx.announce(s)
	}
	if err != nil {
		tx.rollback()
		s.undo(tx)
		return nil, err
	}
	tag, err := tx.c.Exec(ctx, "COMMIT")
	switch {
	case err == nil && tag.String() != "COMMIT": // a statement had failed
		err = fmt.Errorf("postgres: the commit ended as %s", tag)
	case err == nil:
		s.committed(tx)
		return tx.settling, nil
	case !tx.c.IsClosed():
		tx.rollback()
	case tx.mark.key != 0:
		conn.Release() // somebody else may need it to find out
		if forever {
			until = time.Time{}
		}
		err = s.await(tx, until, err)
		return tx.settling, err
	}
	s.undo(tx)
	return nil, err
}

func (s *Store) newTxn(ctx context.Context, c *pgx.Conn) *txn {
	return &txn{now: s.now, holdings: s.holdings, ctx: ctx, c: c, hours: store.Hours{}, replays: store.ReplayCounts{}, moved: opened{}}
}

// takes notes work that the run owns once the transaction is committed.
func (tx *txn) takes(run int64, work []store.Work) {
	ids := make([]posthorn.ID, len(work))
	for i := range work {
		ids[i] = work[i].ID
	}
	gen := tx.holdings.take(run, ids...)
	for i := range work {
		work[i].Gen = gen
	}
	tx.taken = append(tx.taken, holdsOf(ids, gen)...)
}

// committed tells what a transaction changed.
func (s *Store) committed(tx *txn) {
	s.open.apply(tx.moved)
	s.kept.ledger.Add(tx.kept)
	s.holdings.drop(tx.given...)
	tx.settling = s.watchers.Tell(tx.notices...)
}

// undo forgets what a transaction would have taken over.
func (s *Store) undo(tx *txn) { s.holdings.drop(tx.taken...) }

// rollback ends the transaction; when that fails the connection is closed, which
// has the same effect.
func (tx *txn) rollback() {
	if tx.c.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tx.ctx), time.Second)
	defer cancel()
	if _, err := tx.c.Exec(ctx, "ROLLBACK"); err != nil {
		_ = tx.c.Close(ctx) // it is broken already
	}
}

// mark is a row of commits that proves that a transaction took place.
type mark struct{ key, value int64 }

const writeMark = `INSERT INTO commits (key, value, at) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at`

// assign marks the transaction, so that its fate can be found out.
func (tx *txn) assign() error {
	if tx.mark.key != 0 {
		return nil
	}
	tx.mark = mark{key: randomKey()}
	return tx.exec(writeMark, tx.mark.key, tx.mark.value, nanos(tx.now()))
}

// unmark is for a transaction that changes nothing.
func (tx *txn) unmark() { tx.mark = mark{} }

func randomKey() int64 { return rand.Int64N(math.MaxInt64-1) + 1 }

func (tx *txn) exec(query string, args ...any) error {
	_, err := tx.c.Exec(tx.ctx, query, args...)
	return err
}

// execCount also returns how many rows changed.
func (tx *txn) execCount(query string, args ...any) (int, error) {
	tag, err := tx.c.Exec(tx.ctx, query, args...)
	return int(tag.RowsAffected()), err
}

// row scans the one row of a query into dest; found is false without one.
func (tx *txn) row(query string, args []any, dest ...any) (found bool, err error) {
	err = tx.c.QueryRow(tx.ctx, query, args...).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// rows calls scan for each row.
func (tx *txn) rows(query string, args []any, scan func(scanner) error) error {
	rows, err := tx.c.Query(tx.ctx, query, args...)
	if err != nil {
		return err
	}
	return eachRow(rows, scan)
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

func eachRow(rows pgx.Rows, scan func(scanner) error) error {
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

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// one reads a row; none is ErrNotFound.
func one[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	v, err := scan(s.reader(ctx).QueryRow(ctx, query, args...))
	if err != nil {
		var none T
		return none, s.readError(ctx, err)
	}
	return v, nil
}

// scanInt reads a row of one number, for one and all.
func scanInt(r scanner) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

// all reads all rows of a query.
func all[T any](ctx context.Context, s *Store, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	var list []T
	err = eachRow(rows, func(r scanner) error {
		v, err := scan(r)
		list = append(list, v)
		return err
	})
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	return list, nil
}

// snapshot runs fn on one state of the database. Each of its queries is bounded by
// the deadline of walks.
func (s *Store) snapshot(ctx context.Context, fn func(querier) error) error {
	tx, err := s.other.begin(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return s.readError(ctx, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // nothing to keep; a connection that does not answer is closed
	}()
	return fn(bounded{tx, s.o.Deadlines.Walk})
}

// below is the bound of a list that goes on before an id; 0 has none.
func below(before int64) int64 {
	if before == 0 {
		return 1<<63 - 1
	}
	return before
}

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
