package app

import (
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// byCommand is who the audit names for what a command does.
func byCommand() store.Change { return store.Change{Actor: "cli", At: time.Now().UTC()} }

// Backup copies the store's file while a service may use it, and verifies the
// copy. progress is told how many bytes of about how many are written.
func Backup(ctx context.Context, path, to string, progress func(done, total int64)) (store.Inventory, error) {
	if config.IsPostgres(path) {
		return store.Inventory{}, posthorn.Errorf(posthorn.Invalid,
			"A PostgreSQL database is backed up by its own tools: \"pg_dump --schema=posthorn\" for a copy, continuous archiving (PITR) to lose nothing.")
	}
	return sqlite.Backup(ctx, path, to, byCommand(), progress)
}

// Restore puts a backup in the place of the store's file, which no service may
// use, and returns where what was there is kept; "" for nothing.
func Restore(ctx context.Context, backup, path string) (inv store.Inventory, aside string, err error) {
	if config.IsPostgres(path) {
		return inv, "", posthorn.Errorf(posthorn.Invalid,
			"A PostgreSQL database is restored by its own tools: pg_restore into an empty database, or recovery to a point in time. Pause the sending before you start a node: see docs/operating.md.")
	}
	inv, aside, err = sqlite.Restore(ctx, backup, path, time.Now())
	return inv, aside, lockedIsConflict(err)
}

// Copy copies a SQLite file, which no service may use, into an empty PostgreSQL
// database: all of it or nothing. The file sends nothing afterwards.
func Copy(ctx context.Context, from, to string, progress store.Progress) (copied []store.Copied, err error) {
	if config.IsPostgres(from) || !config.IsPostgres(to) {
		return nil, posthorn.Errorf(posthorn.Invalid, "A store is copied from a SQLite file to PostgreSQL: --store sqlite:PATH --to postgres://….")
	}
	origin, err := sqlite.OpenOrigin(ctx, sqlite.Options{Path: from})
	if err != nil {
		return nil, lockedIsConflict(err)
	}
	defer func() { err = errors.Join(err, origin.Close()) }()
	destination, err := postgres.OpenDestination(ctx, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	return store.Copy(ctx, origin, destination, byCommand(), progress)
}

func lockedIsConflict(err error) error {
	if locked, ok := errors.AsType[*sqlite.LockedError](err); ok {
		return posthorn.Errorf(posthorn.Conflict, "%v", locked)
	}
	return err
}

// tellHeld says at the start that sending is paused, and what would go out: after
// a restore nobody else does.
func (n *node) tellHeld(ctx context.Context) error {
	on, err := n.store.Sending(ctx)
	if err != nil || on {
		return err
	}
	o, err := n.store.Outlook(ctx, n.now())
	if err != nil {
		return err
	}
	args := []any{"open", o.Open, "due_now", o.Due, "to_go_on", "posthorn sending resume"}
	if !o.RestoredFrom.IsZero() {
		args = append(args, "restored_from_backup_of", posthorn.FormatTime(o.RestoredFrom))
	}
	n.log.Warn("sending is paused: nothing is delivered", args...)
	return nil
}
