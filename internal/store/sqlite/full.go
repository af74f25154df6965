package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/posthorn/posthorn/internal/store"
)

// startRoom is what a start asks for on a disk that is full: the log of a busy service.
const startRoom = "64 MiB"

// isFull reports whether something could not be written for want of room.
func isFull(err error) bool {
	return errors.Is(err, store.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || isShmFull(err)
}

// isShmFull: the index of the log, which each start makes, could not be.
func isShmFull(err error) bool {
	e, ok := errors.AsType[resultError](err)
	return ok && e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE
}

// explainFull says what a start lacks.
func explainFull(path string, err error) error {
	lacks := "room for what it writes first, to " + path + "-wal"
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		lacks = "room for " + p.Path
	}
	if isShmFull(err) {
		lacks = "32 KiB for " + path + "-shm"
	}
	room := ""
	if free, _, e := freeSpace(filepath.Dir(path)); e == nil {
		room = fmt.Sprintf(", %d KiB are free", free>>10)
	}
	return fmt.Errorf("the database %s cannot be opened: its disk is full%s. A start lacks %s. Free %s there and start again; nothing was changed, nothing is lost: %w",
		path, room, lacks, startRoom, err)
}

// recoverFull is recover on a disk that may be full. Then the log is taken into the
// file, so that what it takes of the disk is used again from its beginning, as a running
// service does.
func (w *writer) recoverFull(take func() error) error {
	err := take()
	if err == nil || !isFull(classify(err)) {
		return err
	}
	if w.execute("PRAGMA wal_checkpoint(PASSIVE)") != nil {
		return err
	}
	return take()
}
