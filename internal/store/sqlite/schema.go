package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// schemaObject is a row of sqlite_schema: a table, an index, a view or a trigger.
type schemaObject struct{ kind, name, table, text string }

// schemas has what the migrations make of an empty file, by version.
var schemas struct {
	mu   sync.Mutex
	made map[int64][]schemaObject
}

// checkSchema compares the file's schema with what the migrations up to its version make
// in an empty file. A trigger or a view would have code of somebody else run by each
// commit; what is missing or other would fail later, at some statement.
func checkSchema(ctx context.Context, db *sql.DB, version int64) error {
	want, err := schemaOf(ctx, version)
	if err != nil {
		return fmt.Errorf("make the schema of version %d to compare with: %w", version, err)
	}
	got, err := readSchema(ctx, db)
	if err != nil {
		return err
	}
	var faults []string
	for _, o := range got {
		switch i := slices.IndexFunc(want, o.isNamed); {
		case i < 0:
			faults = append(faults, fmt.Sprintf("it has the %s %s, which is not Posthorn's", o.kind, o.name))
		case want[i] != o:
			faults = append(faults, fmt.Sprintf("its %s %s is not as Posthorn made it", o.kind, o.name))
		}
	}
	for _, o := range want {
		if !slices.ContainsFunc(got, o.isNamed) {
			faults = append(faults, fmt.Sprintf("its %s %s is missing", o.kind, o.name))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s (schema version %d)", ErrForeignSchema, strings.Join(faults, "; "), version)
}

func (o schemaObject) isNamed(other schemaObject) bool {
	return o.kind == other.kind && strings.EqualFold(o.name, other.name)
}

// schemaOf makes a version's schema in memory, once.
func schemaOf(ctx context.Context, version int64) (all []schemaObject, err error) {
	schemas.mu.Lock()
	defer schemas.mu.Unlock()
	if made, ok := schemas.made[version]; ok {
		return made, nil
	}
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	p, err := newProvider(db)
	if err != nil {
		return nil, err
	}
	// In one transaction and without goose's account of each step: 5 ms of processor time.
	for _, step := range p.ListSources() {
		if step.Version > version {
			break
		}
		text, err := migrations.ReadFile("migrations/" + step.Path)
		if err != nil {
			return nil, err
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		if _, err := db.ExecContext(ctx, "BEGIN;"+up+";COMMIT"); err != nil {
			return nil, fmt.Errorf("%s: %w", step.Path, err)
		}
	}
	if all, err = readSchema(ctx, db); err != nil {
		return nil, err
	}
	if schemas.made == nil {
		schemas.made = make(map[int64][]schemaObject)
	}
	schemas.made[version] = all
	return all, nil
}

// readSchema reads what is not SQLite's own or that of the migrations.
func readSchema(ctx context.Context, db *sql.DB) (all []schemaObject, err error) {
	rows, err := db.QueryContext(ctx, `SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
		WHERE NOT (type = 'table' AND name IN ('sqlite_sequence', 'sqlite_stat1', 'sqlite_stat4', 'goose_db_version')) ORDER BY rowid`)
	if err != nil {
		return nil, err
	}
	err = eachRow(rows, func(r scanner) error {
		var o schemaObject
		err := r.Scan(&o.kind, &o.name, &o.table, &o.text)
		o.text = normalSQL(o.text)
		all = append(all, o)
		return err
	})
	return all, err
}

// normalSQL is a statement's text without comments and with single spaces, so that the
// layout of a migration may change.
func normalSQL(text string) string {
	var b strings.Builder
	space := false
	for text != "" {
		n := 1
		switch {
		case strings.HasPrefix(text, "--"):
			n, space = skip(text, "\n"), true
		case strings.HasPrefix(text, "/*"):
			n, space = skip(text, "*/"), true
		case strings.ContainsRune(" \t\r\n", rune(text[0])):
			space = true
		default:
			if quote := strings.IndexByte("'\"`[", text[0]); quote >= 0 {
				n = 1 + skip(text[1:], "'\"`]"[quote:quote+1])
			}
			if space && b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(text[:n])
			space = false
		}
		text = text[n:]
	}
	return b.String()
}

// skip returns the length up to and with the end.
func skip(text, end string) int {
	if i := strings.Index(text, end); i >= 0 {
		return i + len(end)
	}
	return len(text)
}
