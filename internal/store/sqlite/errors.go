package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/posthorn/posthorn/internal/store"
)

// ErrCorrupt: the file is not a database, or a damaged one.
var ErrCorrupt = errors.New("the database file is damaged")

// ErrForeignSchema: the file has tables, triggers or the like that Posthorn did not
// make, or lacks some.
var ErrForeignSchema = errors.New("its schema is not Posthorn's")

// LockedError: another process serves the file.
type LockedError struct {
	Path string
	PID  int // 0 when it could not be read
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("the database %s is in use by %s; stop that one first, or give this one a file of its own", e.Path, who)
}

// NewerError: the file was written by a newer version of Posthorn.
type NewerError struct {
	Path         string
	File, Binary int64 // versions of the schema
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the database %s has schema version %d, and this posthorn knows versions up to %d; run the newer posthorn that wrote it", e.Path, e.File, e.Binary)
}

// explainOpen makes a sentence of why a file could not be opened.
func explainOpen(path string, err error) error {
	err = classify(err)
	// database/sql has no value for it: a row holds what Posthorn does not write.
	if strings.Contains(err.Error(), "sql: Scan error") {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	_, isLocked := errors.AsType[*LockedError](err)
	_, isNewer := errors.AsType[*NewerError](err)
	switch {
	case isLocked, isNewer:
		return err
	case errors.Is(err, errNotFile):
		return fmt.Errorf("the database %s cannot be opened: %w; nothing was changed. Name another path", path, err)
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%s cannot be used (%w); nothing was changed. Restore it from a backup, or move it away to begin with an empty one", path, err)
	case isFull(err):
		return explainFull(path, err)
	case errors.Is(err, ErrForeignSchema):
		return fmt.Errorf("%s cannot be used: %w; nothing was changed. Undo what another program changed in it, restore it from a backup, or move it away to begin with an empty one", path, err)
	case errors.Is(err, fs.ErrNotExist):
		if _, e := os.Stat(filepath.Dir(path)); e != nil {
			return fmt.Errorf("the folder of the database %s does not exist; create it first: %w", path, err)
		}
		return fmt.Errorf("the database %s does not exist; `posthorn serve` creates it: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the database %s and its folder must be writable by the user that runs posthorn: %w", path, err)
	}
	return fmt.Errorf("the database %s cannot be opened: %w", path, err)
}

// resultError is an error of SQLite, by the driver or by [conn].
type resultError interface {
	error
	Code() int
}

// classify adds the error of the store's contract to one of SQLite.
func classify(err error) error {
	e, ok := errors.AsType[resultError](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM: // a damaged page may ask for more memory than there is
		return fmt.Errorf("%w: %w: %w", store.ErrUnavailable, ErrCorrupt, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w: %w", store.ErrUnavailable, fs.ErrPermission, err)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// busy reports whether another connection is writing.
func busy(err error) bool {
	e, ok := errors.AsType[resultError](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// readError is the error of a read for the caller.
func readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err.Error() == "sql: database is closed" { // database/sql has no value for it
		return store.ErrClosed
	}
	return classify(err)
}
