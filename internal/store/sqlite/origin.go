package sqlite

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/posthorn/posthorn/internal/store"
)

// Origin is a file that is copied into a store of another kind. It is held like
// one that is served: no service can use it meanwhile.
type Origin struct{ s *Store }

var _ store.Origin = (*Origin)(nil)

// OpenOrigin opens the file, which must exist. What the last run owned waits
// again, and a backup becomes a restored store: see [Restore].
func OpenOrigin(ctx context.Context, o Options) (*Origin, error) {
	if err := checkFile(o.Path, false); err != nil {
		return nil, explainOpen(o.Path, err)
	}
	o.Role, o.Poll = Serve, -1
	s, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.writer.do(ctx, func(tx *txn) error { return tx.mergeStats(0) }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Origin{s}, nil
}

// Close gives the file free.
func (o *Origin) Close() error { return o.s.Close() }

// origins are the tables whose rows elsewhere come from more than the table of
// the same name: from what, and the columns that have another name or form.
var origins = map[string]struct {
	from  string
	forms map[string]string
}{
	"events": {"events e LEFT JOIN payloads p ON p.event = e.id", map[string]string{
		"id": "e.id", "body": "CASE WHEN e.erased_at = 0 THEN p.body END",
	}},
	"due":        {"deliveries NOT INDEXED WHERE place <> 0", map[string]string{"run": "CASE place WHEN 3 THEN -1 ELSE 0 END"}},
	"deliveries": {"deliveries NOT INDEXED WHERE place = 0", nil},
	// There every endpoint has a row.
	"endpoint_health": {"endpoints e LEFT JOIN endpoint_health h ON h.endpoint = e.id", map[string]string{
		"endpoint": "e.id", "failing_since": "coalesce(h.failing_since, 0)", "failures": "coalesce(h.failures, 0)",
		"last_success": "coalesce(h.last_success, 0)", "last_failure": "coalesce(h.last_failure, 0)",
		"hold_until": "coalesce(h.hold_until, 0)", "warned_at": "coalesce(h.warned_at, 0)", "last_error": "coalesce(h.last_error, '')",
	}},
	"meta": {"meta WHERE key NOT IN ('ping', '" + metaPosted + "', '" + metaPosting + "', '" + erasingFrom + "', '" + metaKept + "')", nil},
}

// elsewhere are columns and tables that have no place of their name in a copy.
var elsewhere = map[string]bool{
	"deliveries.place": true, // becomes run
	"payloads":         true, // become events.body
	"stats_log":        true, // is added up before
	"kept":             true, // is counted again
	"postings":         true, // indexes of deliveries and events
	"goose_db_version": true, "sqlite_sequence": true,
}

// Select implements [store.Origin].
func (o *Origin) Select(ctx context.Context, tables []store.Table) ([]store.Table, error) {
	have, err := o.columns(ctx)
	if err != nil {
		return nil, err
	}
	lost := map[string]bool{}
	for table, columns := range have {
		for column := range columns {
			lost[table+"."+column] = !elsewhere[table] && !elsewhere[table+"."+column]
		}
	}
	var some []store.Table
	for _, t := range tables {
		name := t.Name
		if name == "due" {
			name = "deliveries"
		}
		if have[name] == nil {
			continue // only the other kind of store has it
		}
		for _, c := range t.Columns {
			if _, made := origins[t.Name].forms[c.Name]; !made && !have[name][c.Name] {
				return nil, fmt.Errorf("the file has no column %s.%s to copy", name, c.Name)
			}
			delete(lost, name+"."+c.Name)
		}
		some = append(some, t)
	}
	for _, column := range slices.Sorted(maps.Keys(lost)) {
		if lost[column] {
			return nil, fmt.Errorf("the copy has no place for %s, which would be lost", column)
		}
	}
	return some, nil
}

func (o *Origin) columns(ctx context.Context) (map[string]map[string]bool, error) {
	have := map[string]map[string]bool{}
	_, err := all(ctx, o.s.readers, func(r scanner) (_ struct{}, err error) {
		var table, column string
		err = r.Scan(&table, &column)
		if have[table] == nil {
			have[table] = map[string]bool{}
		}
		have[table][column] = true
		return struct{}{}, err
	}, `SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'`)
	return have, err
}

func source(t store.Table) string {
	if f, ok := origins[t.Name]; ok {
		return f.from
	}
	return t.Name
}

// Count implements [store.Origin].
func (o *Origin) Count(ctx context.Context, t store.Table) (n int64, err error) {
	return one(ctx, o.s, scanInt, `SELECT count(*) FROM `+source(t))
}

// Rows implements [store.Origin].
func (o *Origin) Rows(ctx context.Context, t store.Table) iter.Seq2[[]any, error] {
	form := func(column string) string {
		if f, ok := origins[t.Name].forms[column]; ok {
			return f
		}
		return column
	}
	var columns, keys []string
	for _, c := range t.Columns {
		columns = append(columns, form(c.Name))
	}
	for _, k := range t.Key {
		keys = append(keys, form(k))
	}
	query := `SELECT ` + strings.Join(columns, ", ") + ` FROM ` + source(t) + ` ORDER BY ` + strings.Join(keys, ", ")
	return func(yield func([]any, error) bool) {
		rows, err := o.s.readers.QueryContext(ctx, query)
		if err != nil {
			yield(nil, readError(ctx, err))
			return
		}
		defer rows.Close()
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		for rows.Next() {
			err := rows.Scan(dest...)
			for i, v := range values {
				if n, ok := v.(int64); ok && t.Columns[i].Bool {
					values[i] = n != 0
				}
			}
			if !yield(values, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, readError(ctx, err))
		}
	}
}

// Sequence implements [store.Origin].
func (o *Origin) Sequence(ctx context.Context, table string) (int64, error) {
	return one(ctx, o.s, scanInt,
		`SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0)`, table)
}

// Moved implements [store.Origin]: the file sends nothing any more, should it be
// served again by mistake.
func (o *Origin) Moved(ctx context.Context, c store.Change) error {
	return o.s.SetSending(ctx, c, false)
}
