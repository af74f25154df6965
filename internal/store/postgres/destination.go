package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Destination is an empty database that a store of another kind is copied into,
// in one transaction.
type Destination struct {
	c     *pgx.Conn
	tx    pgx.Tx
	weeks map[int64]bool
}

var _ store.Destination = (*Destination)(nil)

// notCopied are tables, columns and figures of the nodes' and the schema's own. Those of
// lanes follow from the settings: see Commit.
var (
	schemaMeta       = `('ping', 'changes', 'deliver_ahead', 'serves_from', 'channel')` // keys of meta
	notCopied        = []string{"goose_db_version", "commits", "runs", "clocks", "lanes", "lines", "outbox", "outbox_grants", "locks", "migration_lock", "kept"}
	columnsNotCopied = []string{"due.seq", "events.tx", "replays.run"}
)

// OpenDestination opens the database, brings its schema to this version and
// locks nodes out. It must hold no tenant, token, event or anything else.
func OpenDestination(ctx context.Context, url string) (*Destination, error) {
	if _, _, err := Migrate(ctx, url); err != nil {
		return nil, err
	}
	o := Options{URL: url}
	config, err := o.connConfig("copy")
	if err != nil {
		return nil, err
	}
	d := &Destination{weeks: map[int64]bool{}}
	if d.c, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, o.explainOpen(connectFault(err, config))
	}
	if err = d.begin(ctx); err == nil {
		err = d.mustBeEmpty(ctx)
	}
	if err != nil {
		return nil, errors.Join(o.explainOpen(err), d.Close())
	}
	return d, nil
}

func (d *Destination) begin(ctx context.Context) (err error) {
	if d.tx, err = d.c.Begin(ctx); err != nil {
		return err
	}
	for _, query := range []string{
		`SET LOCAL lock_timeout = '5s'`,
		`LOCK TABLE runs, tenants, tokens, endpoints, meta IN EXCLUSIVE MODE`,
		`SET LOCAL lock_timeout = 0`,
	} {
		if _, err := d.tx.Exec(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

func (d *Destination) mustBeEmpty(ctx context.Context) error {
	var nodes int
	if err := d.tx.QueryRow(ctx, `SELECT count(*) FROM runs WHERE taken_at = 0`).Scan(&nodes); err != nil {
		return err
	}
	if nodes > 0 {
		return fmt.Errorf("%d nodes serve it, or did and were not stopped; a store is copied into an empty database", nodes)
	}
	tables, err := d.Tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == "meta" {
			continue
		}
		var used bool
		if err := d.tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM `+t.Name+`)`).Scan(&used); err != nil {
			return err
		}
		if used {
			return fmt.Errorf("its table %s.%s holds rows; a store is copied into an empty database", schema, t.Name)
		}
	}
	return nil
}

// Close gives up what was not committed.
func (d *Destination) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	return d.c.Close(ctx)
}

// Tables implements [store.Destination].
func (d *Destination) Tables(ctx context.Context) (tables []store.Table, err error) {
	rows, err := d.tx.Query(ctx, `SELECT c.relname::text, a.attname::text, a.atttypid = 'boolean'::regtype,
			coalesce(array_position(i.indkey::int2[], a.attnum), -1)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> ALL ($2)
		AND c.relname || '.' || a.attname <> ALL ($3)
		ORDER BY c.relname, a.attnum`, schema, notCopied, columnsNotCopied)
	if err != nil {
		return nil, err
	}
	keys := map[int]string{}
	flush := func() {
		if len(tables) == 0 {
			return
		}
		t := &tables[len(tables)-1]
		for _, at := range slices.Sorted(maps.Keys(keys)) {
			t.Key = append(t.Key, keys[at])
		}
		clear(keys)
	}
	err = eachRow(rows, func(r scanner) error {
		var table string
		var c store.Column
		var key int
		if err := r.Scan(&table, &c.Name, &c.Bool, &key); err != nil {
			return err
		}
		if len(tables) == 0 || tables[len(tables)-1].Name != table {
			flush()
			tables = append(tables, store.Table{Name: table})
		}
		t := &tables[len(tables)-1]
		t.Columns = append(t.Columns, c)
		if key >= 0 {
			keys[key] = c.Name
		}
		return nil
	})
	flush()
	return tables, err
}

// Load implements [store.Destination].
func (d *Destination) Load(ctx context.Context, t store.Table, rows iter.Seq2[[]any, error]) error {
	if t.Name == "meta" { // the schema has put rows of its own there
		if _, err := d.tx.Exec(ctx, `DELETE FROM meta WHERE key NOT IN `+schemaMeta); err != nil {
			return err
		}
	}
	next, stop := iter.Pull2(rows)
	defer stop()
	in := &incoming{next: next, id: slices.IndexFunc(t.Columns, func(c store.Column) bool { return c.Name == "id" })}
	if !slices.Contains(partitioned, t.Name) {
		in.id = -1
	}
	var columns []string
	for _, c := range t.Columns {
		columns = append(columns, c.Name)
	}
	// A week at a time, as its partition has to be there first.
	for in.more() {
		if in.id >= 0 {
			if err := d.makeWeek(ctx, in.week); err != nil {
				return err
			}
		}
		if _, err := d.tx.CopyFrom(ctx, pgx.Identifier{schema, t.Name}, columns, in); err != nil {
			return err
		}
	}
	return in.err
}

// incoming gives COPY the rows of one week, or all where there are no weeks.
type incoming struct {
	next  func() ([]any, error, bool)
	id    int // the column of the id that orders the weeks; -1 for none
	row   []any
	ahead bool // row was read and not given out
	week  int64
	err   error
}

// more reports whether a row is left, and notes its week.
func (in *incoming) more() bool {
	if !in.ahead && in.err == nil {
		var ok bool
		if in.row, in.err, ok = in.next(); !ok || in.err != nil {
			return false
		}
		in.ahead = true
	}
	if in.ahead && in.id >= 0 {
		in.week = weekOf(posthorn.ID(in.row[in.id].(int64)))
	}
	return in.ahead
}

func (in *incoming) Next() bool {
	week := in.week
	if !in.more() || in.week != week {
		return false
	}
	in.ahead = false
	return true
}

func (in *incoming) Values() ([]any, error) { return in.row, nil }
func (in *incoming) Err() error             { return in.err }

func (d *Destination) makeWeek(ctx context.Context, n int64) error {
	if d.weeks[n] {
		return nil
	}
	d.weeks[n] = true
	for _, table := range partitioned {
		var there bool
		if err := d.tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, schema+"."+partitionName(table, n)).Scan(&there); err != nil {
			return err
		}
		if there {
			continue
		}
		for _, query := range makePartition(table, n) {
			if _, err := d.tx.Exec(ctx, query); err != nil {
				return err
			}
		}
	}
	return nil
}

// Rows implements [store.Destination].
func (d *Destination) Rows(ctx context.Context, t store.Table) iter.Seq2[[]any, error] {
	var columns, keys []string
	for _, c := range t.Columns {
		columns = append(columns, c.Name)
	}
	for _, k := range t.Key {
		keys = append(keys, k)
		if t.Name == "meta" || k == "key" { // text, which has an order of its own here
			keys[len(keys)-1] += ` COLLATE "C"`
		}
	}
	query := `SELECT ` + strings.Join(columns, ", ") + ` FROM ` + t.Name
	if t.Name == "meta" {
		query += ` WHERE key NOT IN ` + schemaMeta
	}
	query += ` ORDER BY ` + strings.Join(keys, ", ")
	return func(yield func([]any, error) bool) {
		rows, err := d.tx.Query(ctx, query)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			values, err := rows.Values()
			for i, v := range values {
				switch v := v.(type) {
				case int16:
					values[i] = int64(v)
				case int32:
					values[i] = int64(v)
				}
			}
			if !yield(values, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// SetSequence implements [store.Destination].
func (d *Destination) SetSequence(ctx context.Context, table string, last int64) error {
	_, err := d.tx.Exec(ctx, `SELECT setval(s, $2) FROM pg_get_serial_sequence($1, 'id') s WHERE s IS NOT NULL`, schema+"."+table, last)
	return err
}

// Commit implements [store.Destination].
func (d *Destination) Commit(ctx context.Context) error {
	for _, query := range []string{
		`INSERT INTO lanes (endpoint, run, since, ordered) SELECT id, 0, 0, coalesce((settings::jsonb ->> 'ordered')::boolean, false) FROM endpoints
			WHERE deleted_at = 0 AND settings::jsonb ?| ARRAY['ordered', 'rate_per_second', 'max_in_flight']`,
		`INSERT INTO lines (endpoint, last) SELECT l.endpoint, coalesce((SELECT max(d.id) FROM due d WHERE d.endpoint = l.endpoint), 0) FROM lanes l WHERE l.ordered`,
	} {
		if _, err := d.tx.Exec(ctx, query); err != nil {
			return classify(err)
		}
	}
	if err := d.tx.Commit(ctx); err != nil {
		return classify(err)
	}
	_, err := d.c.Exec(ctx, `ANALYZE events, deliveries, due, endpoints, idempotency`)
	return err
}
