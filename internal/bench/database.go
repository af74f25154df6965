package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// database is a new one on the operator's server, for one load.
type database struct {
	url, server string
	name        string
	conn        *pgx.Conn
	// counting: pg_stat_statements tells of the statements.
	counting bool
}

// newDatabase makes a database on the server that address names.
func newDatabase(ctx context.Context, address string) (*database, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("--store: %w", err)
	}
	d := &database{server: address, name: "posthorn_bench_" + strings.ToLower(rand.Text())[:12]}
	if err := d.onServer(ctx, "CREATE DATABASE "+d.name); err != nil {
		return nil, fmt.Errorf("a database for the load cannot be made (the user needs CREATEDB): %w", err)
	}
	u.Path = "/" + d.name
	d.url = u.String()
	if d.conn, err = pgx.Connect(ctx, d.url); err == nil {
		_, err := d.conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT count(*) FROM pg_stat_statements`)
		d.counting = err == nil
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) onServer(ctx context.Context, query string) error {
	c, err := pgx.Connect(ctx, d.server)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, query)
	return err
}

// close drops the database.
func (d *database) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if d.conn != nil {
		d.conn.Close(ctx)
	}
	return d.onServer(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)")
}

// wal is the server's position in its log, in bytes: of all databases.
func (d *database) wal(ctx context.Context) (at int64, err error) {
	return at, d.conn.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint`).Scan(&at)
}

// statement is what pg_stat_statements knows of those of a kind.
type statement struct {
	calls, rows int64
	mean, most  float64 // ms
}

// ofKind sums up the statements whose text holds part. Utility statements, such as
// COMMIT, are none.
func (d *database) ofKind(ctx context.Context, part string) (s statement, err error) {
	err = d.conn.QueryRow(ctx, `SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(rows), 0)::bigint,
		coalesce(sum(total_exec_time) / nullif(sum(calls), 0), 0)::float8, coalesce(max(max_exec_time), 0)::float8
		FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND strpos(query, $1) > 0`, part).
		Scan(&s.calls, &s.rows, &s.mean, &s.most)
	return s, err
}

// What tells the statements of the hot path by: a group of publishes, and the
// reading and the writing of a group of results.
const (
	publishPart = "INSERT INTO events"
	readPart    = "JOIN endpoint_health h ON h.endpoint = d.endpoint WHERE d.id = ANY"
	writePart   = "health AS ("
	claimPart   = "FROM c, events e WHERE d.id = c.id" // of what is due, and of a backlog
)

// hotPath is what a load cost the database.
type hotPath struct {
	// WAL is bytes of the server's log per delivery.
	WAL float64 `json:"wal_bytes_per_delivery"`
	// Publishes and Results are groups; PerResult is statements for each of those.
	// 0 where pg_stat_statements is not loaded.
	Publishes int64   `json:"publish_groups,omitempty"`
	Results   int64   `json:"result_groups,omitempty"`
	PerResult float64 `json:"statements_per_result_group,omitempty"`
}

// forget sets the statements' figures to zero.
func (d *database) forget(ctx context.Context) {
	if !d.counting {
		return
	}
	if _, err := d.conn.Exec(ctx, `SELECT pg_stat_statements_reset(0, (SELECT oid FROM pg_database WHERE datname = current_database()), 0)`); err != nil {
		d.counting = false // it is the administrator's right
	}
}

// watch begins to measure; the returned function ends it.
func (d *database) watch(ctx context.Context) (done func(delivered int) (*hotPath, error), err error) {
	d.forget(ctx)
	before, err := d.wal(ctx)
	if err != nil {
		return nil, err
	}
	return func(delivered int) (*hotPath, error) {
		after, err := d.wal(ctx)
		if err != nil {
			return nil, err
		}
		h := &hotPath{WAL: float64(after-before) / float64(max(delivered, 1))}
		if !d.counting {
			return h, nil
		}
		publish, err := d.ofKind(ctx, publishPart)
		if err != nil {
			return nil, err
		}
		read, err := d.ofKind(ctx, readPart)
		if err != nil {
			return nil, err
		}
		write, err := d.ofKind(ctx, writePart)
		if err != nil {
			return nil, err
		}
		other, err := d.ofKind(ctx, "INSERT INTO commits")
		if err != nil {
			return nil, err
		}
		h.Publishes, h.Results = publish.calls, read.calls
		h.PerResult = float64(read.calls+max(write.calls, other.calls)) / float64(max(read.calls, 1))
		return h, nil
	}, nil
}
