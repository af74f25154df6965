package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the database to this binary's schema and returns the versions
// before and after, which are the same, and higher than its own, for a newer schema
// that this binary may serve. Of several that migrate at a time one does it and the
// others wait for it.
func Migrate(ctx context.Context, url string) (from, to int64, err error) {
	o := Options{URL: url}
	if err := o.checkFit(ctx, true); err != nil {
		return 0, 0, o.explainOpen(err)
	}
	db, err := o.sqlDB()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if from, to, err = migrate(ctx, db); err != nil {
		return from, to, o.explainOpen(err)
	}
	return from, to, nil
}

// sqlDB is the database as goose wants it.
func (o *Options) sqlDB() (*sql.DB, error) {
	c, err := o.connConfig("migrate")
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*c), nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(&migrationLocker{db: db}), goose.WithTableName(schema+".goose_db_version"))
}

func migrate(ctx context.Context, db *sql.DB) (from, to int64, err error) {
	p, err := newProvider(db)
	if err != nil {
		return 0, 0, err
	}
	if from, to, err = versions(ctx, db, p); err != nil {
		return from, to, err
	}
	switch {
	case from == to:
		return from, to, addMissing(ctx, db)
	case from > to:
		return from, from, mayServe(ctx, db, from, to)
	}
	if err := makeMigrationLock(ctx, db); err != nil {
		return from, from, err
	}
	if _, err := p.Up(ctx); err != nil {
		return from, from, fmt.Errorf("bring the schema from version %d to %d: %w", from, to, err)
	}
	return from, to, addMissing(ctx, db)
}

// added are what came to a schema version after databases had it, by the statement
// that makes it. They are no version of their own, so that older binaries go on
// serving the database.
var added = map[string]string{
	"due_by_hand":    `CREATE INDEX IF NOT EXISTS due_by_hand ON posthorn.due (endpoint, (greatest(seq, id)), id) WHERE run = -1 AND manual`,
	"outbox_tenants": `CREATE INDEX IF NOT EXISTS outbox_tenants ON posthorn.outbox (tenant, id) WHERE refused_at = 0`,
	// What each process that serves says of its clocks with every renewal of its lease,
	// in nanoseconds: how far its machine's is ahead of the service's time by which it
	// goes, and that of the database's clock. at is the database's then, Unix time. The
	// service's time of the highest epoch holds, of those the one kept for longest.
	"clocks": `CREATE TABLE IF NOT EXISTS posthorn.clocks (name text PRIMARY KEY, lead bigint NOT NULL, service bigint NOT NULL,
		epoch bigint NOT NULL, kept bigint NOT NULL, at bigint NOT NULL) WITH (fillfactor = 50)`,
}

// addMissing makes what is missing of them. A role that owns no table cannot: then
// looks are slower, or not made, until `posthorn migrate` is run by one that does.
func addMissing(ctx context.Context, db *sql.DB) error {
	for name, statement := range added {
		var missing bool
		if err := db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NULL`, schema+"."+name).Scan(&missing); err != nil {
			return err
		}
		if !missing {
			continue
		}
		// Another node may be faster.
		if _, err := db.ExecContext(ctx, statement); err != nil && !isCode(err, codeUnique, codeDeadlock, codeNotAllowed) {
			return fmt.Errorf("make %s: %w", name, err)
		}
	}
	return nil
}

// checkVersion is for processes that may not migrate.
func checkVersion(ctx context.Context, db *sql.DB) error {
	p, err := newProvider(db)
	if err != nil {
		return err
	}
	database, binary, err := versions(ctx, db, p)
	switch {
	case err != nil:
		return err
	case database > binary:
		return mayServe(ctx, db, database, binary)
	case database < binary:
		return fmt.Errorf("its schema version is %d and this posthorn needs %d; run `posthorn migrate`", database, binary)
	}
	return nil
}

// mayServe reports whether this binary may serve a newer schema: the migrations
// that made it newer say from which version on binaries may (meta.serves_from).
func mayServe(ctx context.Context, db *sql.DB, database, binary int64) error {
	var from int64
	err := db.QueryRowContext(ctx, `SELECT coalesce(min(value), 0) FROM `+schema+`.meta WHERE key = 'serves_from'`).Scan(&from)
	if err == nil && (from == 0 || from > binary) {
		err = &NewerError{Database: database, Binary: binary}
	}
	return err
}

// versions returns the schema's version in the database, 0 for an empty one,
// and the newest that this binary knows.
func versions(ctx context.Context, db *sql.DB, p *goose.Provider) (database, binary int64, err error) {
	sources := p.ListSources()
	binary = sources[len(sources)-1].Version
	var table sql.NullString
	if err = db.QueryRowContext(ctx, `SELECT to_regclass($1)::text`, schema+".goose_db_version").Scan(&table); err != nil || !table.Valid {
		return 0, binary, err
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+schema+`.goose_db_version WHERE is_applied`).Scan(&database)
	return database, binary, err
}
