package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the file to this binary's schema and returns the versions
// before and after. It takes the lock of [Serve]; a missing file is created.
func Migrate(ctx context.Context, path string) (from, to int64, err error) {
	if err := checkKind(path); err != nil {
		return 0, 0, explainOpen(path, err)
	}
	lock, err := lockFile(path)
	if err != nil {
		return 0, 0, explainOpen(path, err)
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if err := checkFile(path, true); err != nil {
		return 0, 0, explainOpen(path, err)
	}
	db, err := sql.Open("sqlite", writerDSN(Options{Path: path}.withDefaults()))
	if err != nil {
		return 0, 0, explainOpen(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if from, to, err = migrate(ctx, db, path); err != nil {
		return from, to, explainOpen(path, err)
	}
	return from, to, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
}

func migrate(ctx context.Context, db *sql.DB, path string) (from, to int64, err error) {
	p, err := newProvider(db)
	if err != nil {
		return 0, 0, err
	}
	from, to, err = checkKnown(ctx, db, path, p)
	if err != nil {
		return from, from, err
	}
	if from < to {
		if _, err := p.Up(ctx); err != nil {
			return from, from, fmt.Errorf("bring the schema from version %d to %d: %w", from, to, err)
		}
	}
	return from, to, nil
}

// checkVersion is for processes that may not migrate.
func checkVersion(ctx context.Context, db *sql.DB, path string) error {
	file, binary, err := checkNotNewer(ctx, db, path)
	if err == nil && file < binary {
		err = fmt.Errorf("its schema version is %d and this posthorn needs %d; run `posthorn migrate`", file, binary)
	}
	return err
}

// checkNotNewer is for what is migrated before it is used: it is no newer version's
// and has that version's schema. It returns what versions does.
func checkNotNewer(ctx context.Context, db *sql.DB, path string) (file, binary int64, err error) {
	p, err := newProvider(db)
	if err != nil {
		return 0, 0, err
	}
	return checkKnown(ctx, db, path, p)
}

func checkKnown(ctx context.Context, db *sql.DB, path string, p *goose.Provider) (file, binary int64, err error) {
	file, binary, err = versions(ctx, db, p)
	switch {
	case err != nil:
		return 0, 0, err
	case file > binary:
		return file, binary, &NewerError{Path: path, File: file, Binary: binary}
	case file > 0:
		err = checkSchema(ctx, db, file)
	}
	return file, binary, err
}

// versions returns the schema's version in the file, 0 for an empty one, and
// the newest that this binary knows.
func versions(ctx context.Context, db *sql.DB, p *goose.Provider) (file, binary int64, err error) {
	sources := p.ListSources()
	binary = sources[len(sources)-1].Version
	var ours, events, all int
	err = db.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE name = 'goose_db_version'), count(*) FILTER (WHERE name = 'events'), count(*)
		FROM sqlite_master`).Scan(&ours, &events, &all)
	if err == nil && ours == 0 && all > 0 {
		err = fmt.Errorf("%w: it holds tables that are not Posthorn's", ErrCorrupt)
	}
	if err != nil || ours == 0 {
		return 0, binary, err
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&file)
	if err == nil && file == 0 && events > 0 {
		err = fmt.Errorf("%w: it has tables, but no version", ErrCorrupt)
	}
	return file, binary, err
}
