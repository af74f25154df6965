package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Deadlines are how long a call to the database may take, by what it is for: a
// connection that falls silent breaks nothing else and says nothing. The zero value
// of each means its default. Migrations, the detaching of old weeks and copies have
// none, on connections of their own.
type Deadlines struct {
	Renew time.Duration // of the lease; a quarter of it
	Look  time.Duration // for what is due, at other nodes, at a target, a payload, the switches; 3 s
	Write time.Duration // a publish, results, a change; 8 s
	Walk  time.Duration // one slice of anything longer, and whatever is not named; 10 s
}

func (d Deadlines) withDefaults(lease time.Duration) Deadlines {
	for of, or := range map[*time.Duration]time.Duration{&d.Renew: lease / 4, &d.Look: 3 * time.Second, &d.Write: 8 * time.Second, &d.Walk: 10 * time.Second} {
		if *of == 0 {
			*of = or
		}
	}
	return d
}

// look bounds a call by the deadline of looks.
func (s *Store) look(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.o.Deadlines.Look)
}

// pool is connections of which no call lasts longer than a limit. Where the caller
// has a shorter one, that holds.
type pool struct {
	*pgxpool.Pool
	limit time.Duration
}

// Query implements querier. The limit ends when the rows are closed.
func (p *pool) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	return bounded{p.Pool, p.limit}.Query(ctx, query, args...)
}

// QueryRow implements querier.
func (p *pool) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	return bounded{p.Pool, p.limit}.QueryRow(ctx, query, args...)
}

// Exec is that of a pgxpool.Pool.
func (p *pool) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	return p.Pool.Exec(ctx, query, args...)
}

// Acquire is that of a pgxpool.Pool.
func (p *pool) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	return p.Pool.Acquire(ctx)
}

// begin begins a transaction; the limit is for that alone.
func (p *pool) begin(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	return p.BeginTx(ctx, o)
}

// bounded is a querier each of whose queries has a limit.
type bounded struct {
	querier
	limit time.Duration
}

// Query implements querier.
func (b bounded) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	rows, err := b.querier.Query(ctx, query, args...)
	if err != nil {
		cancel()
		return nil, err
	}
	return boundedRows{rows, cancel}, nil
}

// QueryRow implements querier.
func (b bounded) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	return boundedRow{b.querier.QueryRow(ctx, query, args...), cancel}
}

// boundedRows must be closed, also when all were read.
type boundedRows struct {
	pgx.Rows
	cancel context.CancelFunc
}

// Close implements [pgx.Rows].
func (r boundedRows) Close() {
	r.Rows.Close()
	r.cancel()
}

type boundedRow struct {
	pgx.Row
	cancel context.CancelFunc
}

// Scan implements [pgx.Row].
func (r boundedRow) Scan(dest ...any) error {
	defer r.cancel()
	return r.Row.Scan(dest...)
}

// link is a connection for one purpose, which is made when it is needed and again
// when it broke. It is for one goroutine.
type link struct {
	o        *Options
	purpose  string
	notified pgconn.NotificationHandler // for one that listens
	c        *pgx.Conn
}

// conn returns the connection. A call on it that ctx cuts short closes it.
func (l *link) conn(ctx context.Context) (*pgx.Conn, error) {
	if l.c != nil && !l.c.IsClosed() {
		return l.c, nil
	}
	config, err := l.o.connConfig(l.purpose)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["statement_timeout"] = statementTimeout
	config.OnNotification = l.notified
	l.c, err = pgx.ConnectConfig(ctx, config)
	return l.c, err
}

// close ends the connection and does not wait for the other side.
func (l *link) close() {
	if l.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = l.c.Close(ctx) // the server finds out, too, when it hears nothing
	l.c = nil
}
