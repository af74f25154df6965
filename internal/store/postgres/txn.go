package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn/internal/store"
)

// txn is a transaction that changes rows.
type txn struct {
	ctx     context.Context
	c       *pgx.Conn
	now     func() time.Time
	mark    mark // zero: nothing to prove
	notices []store.Notice
	hours   store.Hours
	replays store.ReplayCounts
	moved   opened
}

// writeTimeout bounds a transaction.
const writeTimeout = 30 * time.Second

// retries is how often a transaction that lost a race is repeated.
const retries = 10

// write runs fn in a transaction. When it returns nil the transaction is
// committed; with an error nothing was changed. fn may run more than once. Once
// it was begun, its outcome is waited for, whatever becomes of ctx.
func (s *Store) write(ctx context.Context, fn func(*txn) error) error {
	for i := 0; ; i++ {
		err := s.writeOnce(ctx, fn)
		// Whoever lost a race finds the winner's rows the next time.
		if !isCode(err, codeUnique, codeDeadlock, codeSerialize) || i == retries {
			return classify(err)
		}
	}
}

func (s *Store) writeOnce(ctx context.Context, fn func(*txn) error) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	conn, err := s.other.Acquire(ctx)
	if err != nil {
		return s.readError(ctx, err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	tx, err := s.begin(ctx, conn)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		tx.rollback()
		return err
	}
	if err := tx.announce(s); err != nil {
		tx.rollback()
		return err
	}
	if err := s.commit(tx); err != nil {
		return err
	}
	s.committed(tx)
	return nil
}

// committed tells what a transaction changed.
func (s *Store) committed(tx *txn) {
	s.open.apply(tx.moved)
	for _, n := range tx.notices {
		s.watchers.tell(n)
	}
}

func (s *Store) begin(ctx context.Context, conn *pgxpool.Conn) (*txn, error) {
	tx := &txn{now: s.now, ctx: ctx, c: conn.Conn(), hours: store.Hours{}, replays: store.ReplayCounts{}, moved: opened{}}
	_, err := tx.c.Exec(ctx, "BEGIN")
	return tx, err
}

// rollback ends the transaction; when that fails the connection is closed, which
// has the same effect.
func (tx *txn) rollback() {
	if tx.c.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tx.ctx), connectTimeout)
	defer cancel()
	if _, err := tx.c.Exec(ctx, "ROLLBACK"); err != nil {
		_ = tx.c.Close(ctx) // it is broken already
	}
}

// commit commits. When the answer does not come it finds out what became of it.
func (s *Store) commit(tx *txn) error {
	tag, err := tx.c.Exec(tx.ctx, "COMMIT")
	if err == nil {
		if tag.String() != "COMMIT" { // a statement had failed
			return fmt.Errorf("postgres: the commit ended as %s", tag)
		}
		return nil
	}
	return s.settleCommit(tx, err)
}

// settleCommit is called for a commit that was not answered; err is why. It
// returns nil if it took place.
func (s *Store) settleCommit(tx *txn, err error) error {
	if !tx.c.IsClosed() {
		tx.rollback()
		return err
	}
	if tx.mark.key == 0 {
		return err
	}
	s.log.Warn("a commit was not answered; finding out what became of it", "error", err)
	did, unknown := s.settle(tx.c, tx.mark.fate)
	if unknown != nil {
		return errors.Join(unknown, err)
	}
	if !did {
		return err
	}
	return nil
}

// fate is what became of a commit.
type fate int

const (
	fateOpen fate = iota // it may still take place
	fateCommitted
	fateAborted
)

func (m mark) fate(ctx context.Context, c *pgxpool.Conn) (fate, error) {
	var took bool
	err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM commits WHERE key = $1 AND value = $2)`, m.key, m.value).Scan(&took)
	switch {
	case err != nil:
		return fateOpen, err
	case took:
		return fateCommitted, nil
	}
	return fateAborted, nil
}

// settle finds out what became of what a broken connection was doing. It first
// ends the connection's other side, so that the answer stays true, and asks until
// it gets one or the store is closed.
func (s *Store) settle(broken *pgx.Conn, ask func(context.Context, *pgxpool.Conn) (fate, error)) (committed bool, err error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		f, err := s.askFate(broken, ask)
		if err == nil && f != fateOpen {
			return f == fateCommitted, nil
		}
		select {
		case <-s.stop.Done():
			return false, fmt.Errorf("%w: closed before it was known whether a commit took place: %w", store.ErrUnavailable, err)
		case <-time.After(wait):
		}
	}
}

func (s *Store) askFate(broken *pgx.Conn, ask func(context.Context, *pgxpool.Conn) (fate, error)) (fate, error) {
	ctx, cancel := context.WithTimeout(s.stop, writeTimeout)
	defer cancel()
	c, err := s.other.Acquire(ctx)
	if err != nil {
		return fateOpen, err
	}
	defer c.Release()
	const end = `SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2`
	var stays int
	err = c.QueryRow(ctx, end, int64(broken.PgConn().PID()), broken.Config().RuntimeParams["application_name"]).Scan(&stays)
	if err != nil || stays > 0 {
		return fateOpen, err
	}
	return ask(ctx, c)
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
	v, err := scan(s.other.QueryRow(ctx, query, args...))
	if err != nil {
		var none T
		return none, s.readError(ctx, err)
	}
	return v, nil
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

// snapshot runs fn on one state of the database.
func (s *Store) snapshot(ctx context.Context, fn func(querier) error) error {
	tx, err := s.other.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return s.readError(ctx, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing to keep
	return fn(tx)
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
