package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// migrationTable has the one row that is locked while the schema is changed. It is made
// before the first migration, and none may touch it: whoever migrates has it locked on
// another connection.
const migrationTable = schema + ".migration_lock"

// formerMigrationLock is the advisory lock under which binaries up to schema version 1
// migrate.
const formerMigrationLock = 0x706f7374_00000001

// How long a process waits for another one that migrates; and for whoever has the
// lock of former binaries, which may be anybody who can log in: then it goes on.
const (
	migrationWait       = 5 * time.Minute
	formerMigrationWait = 5 * time.Second
)

// makeMigrationLock makes the schema and the row. Several may do so at a time.
func makeMigrationLock(ctx context.Context, db *sql.DB) error {
	for _, query := range []string{
		`CREATE SCHEMA IF NOT EXISTS ` + schema,
		`CREATE TABLE IF NOT EXISTS ` + migrationTable + ` (one boolean PRIMARY KEY)`,
		`INSERT INTO ` + migrationTable + ` VALUES (true) ON CONFLICT DO NOTHING`,
	} {
		if _, err := db.ExecContext(ctx, query); err != nil && !isCode(err, codeUnique, codeDuplicateTable) { // another node was faster
			return err
		}
	}
	return nil
}

// migrationLocker keeps others from migrating, by a transaction on a connection of its
// own that has the row locked. It implements goose's lock.SessionLocker.
type migrationLocker struct {
	db *sql.DB
	tx *sql.Tx
	// former tells that the former binaries' lock is held, too, by the session.
	former bool
}

// SessionLock waits for the row.
func (l *migrationLocker) SessionLock(ctx context.Context, conn *sql.Conn) (err error) {
	within, cancel := context.WithTimeoutCause(ctx, migrationWait, fmt.Errorf("another posthorn has been changing the schema for %s", migrationWait))
	defer cancel()
	// The transaction outlives the wait.
	if l.tx, err = l.db.BeginTx(context.WithoutCancel(ctx), nil); err != nil {
		return err
	}
	if _, err = l.tx.ExecContext(within, `SELECT 1 FROM `+migrationTable+` FOR UPDATE`); err != nil {
		_ = l.tx.Rollback() // the connection may be closed by the wait's end
		l.tx = nil
		if within.Err() != nil {
			return context.Cause(within)
		}
		return err
	}
	for until := time.Now().Add(formerMigrationWait); ; {
		if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(formerMigrationLock)).Scan(&l.former); err != nil || l.former || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// SessionUnlock lets others migrate.
func (l *migrationLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) (err error) {
	if l.former {
		_, err = conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, int64(formerMigrationLock))
		l.former = false
	}
	if l.tx != nil {
		_ = l.tx.Rollback() // it changed nothing
		l.tx = nil
	}
	return err
}
