// Package sqlite is the embedded store: one SQLite file in WAL mode with
// synchronous=FULL. One goroutine writes; it commits together whatever is
// waiting, so that one fsync serves many callers. Readers have connections of
// their own that cannot write.
//
// One process serves a file at a time; it holds an OS lock beside the file.
// Others open it as [Admin] for small changes, which the serving process sees
// within a second.
package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// Role is what a process opens the file for.
type Role int

const (
	// Serve takes the lock, creates and migrates the file when needed, and
	// takes back the deliveries that the last run owned.
	Serve Role = iota
	// Admin is a second process, beside a serving one or alone: it changes
	// tenants, tokens and endpoints only. The file must exist.
	Admin
)

// Options says how to open a file. Zero fields have the defaults named.
type Options struct {
	Path string
	Role Role
	// Node goes into the ids given out.
	Node uint8
	// FreeSpace reports the bytes free and in all on the file's disk; nil asks
	// the system. Below 5 % or 1 GiB, whichever is less, publishing is refused.
	FreeSpace func(path string) (free, total uint64, err error)
	// Now is the clock of ids and of the disk check; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger
	// Synchronous is FULL by default. Tests may say OFF, which loses commits
	// when the machine stops, but not when the process does.
	Synchronous string
	// Gather is how many new entries of lists stand in memory at most before they are
	// written; 0 is 262,144, 8 bytes each. Tests have few.
	Gather int
	// Poll is how often changes by other processes are looked for; 0 is half a
	// second, below 0 is never.
	Poll time.Duration
}

// Store is a [store.Store] on a SQLite file.
type Store struct {
	role    Role
	lock    *fileLock
	readers *sql.DB
	// walkers are the readers' connections for walks, which nobody else waits for.
	walkers *sql.DB
	walks   *store.Walks
	writer  *writer
	// checkpointer is nil in an admin process.
	checkpointer *checkpointer

	prepared prepared

	watchers store.Watchers
	sweeper  sweeper
	oldest   atomic.Int64  // no open delivery has a lower id
	patience time.Duration // of an erasure with readers

	closeOnce sync.Once
	closeErr  error
}

var _ store.Store = (*Store)(nil)

// Open opens the file. Its errors are sentences for the operator; errors.As
// and errors.Is find [*LockedError], [*NewerError], [ErrCorrupt],
// os.ErrPermission and fs.ErrNotExist in them.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{role: o.Role, patience: patience, walks: store.NewWalks()}
	if err := s.open(ctx, o); err != nil {
		err = errors.Join(err, s.lock.release())
		return nil, explainOpen(o.Path, err)
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.FreeSpace == nil {
		o.FreeSpace = freeSpace
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Synchronous == "" {
		o.Synchronous = "FULL"
	}
	if o.Poll == 0 {
		o.Poll = 500 * time.Millisecond
	}
	return o
}

func (s *Store) open(ctx context.Context, o Options) (err error) {
	if err := checkKind(o.Path); err != nil {
		return err
	}
	if o.Role == Serve {
		if s.lock, err = lockFile(o.Path); err != nil {
			return err
		}
	}
	if err := checkFile(o.Path, o.Role == Serve); err != nil {
		return err
	}
	left := leftLog(o.Path)
	db, err := sql.Open("sqlite", writerDSN(o))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if o.Role == Serve {
		_, _, err = migrate(ctx, db, o.Path)
	} else {
		err = checkVersion(ctx, db, o.Path)
	}
	if err == nil {
		s.writer, err = newWriter(ctx, o, &s.watchers)
	}
	// Closed last, so that a new file's log is not taken in and begun anew.
	if e := db.Close(); err == nil && e != nil {
		err = errors.Join(e, s.writer.close())
	}
	if err != nil {
		return err
	}
	if s.readers, err = sql.Open("sqlite", readerDSN(o)); err != nil {
		return errors.Join(err, s.writer.close())
	}
	s.readers.SetMaxOpenConns(readerConns)
	s.readers.SetMaxIdleConns(readerConns)
	if s.walkers, err = sql.Open("sqlite", readerDSN(o)); err != nil {
		return errors.Join(err, s.readers.Close(), s.writer.close())
	}
	s.walkers.SetMaxOpenConns(store.WalkPlaces)
	s.walkers.SetMaxIdleConns(store.WalkPlaces)
	if s.prepared, err = prepare(ctx, s.readers); err != nil {
		return errors.Join(err, s.closeReaders(), s.writer.close())
	}
	if o.Role == Serve {
		if s.checkpointer, err = newCheckpointer(o, s.writer, s.readers, s.walkers); err != nil {
			return errors.Join(err, s.closeReaders(), s.writer.close())
		}
	}
	if o.checkpoints() {
		s.writer.committed = s.checkpointer.committed
	}
	s.writer.start()
	s.checkpointer.start(left)
	return nil
}

const readerConns = 4

// leftLog reports whether a log stands beside the file: a clean stop leaves none.
func leftLog(path string) bool {
	info, err := os.Stat(path + "-wal")
	return err == nil && info.Size() > 0
}

// checkpoints reports whether the log is taken into the file beside the writer:
// in a process that serves, and not where tests have time stand still.
func (o Options) checkpoints() bool { return o.Role == Serve && o.Poll > 0 }

// Close writes what is queued, then closes the file and releases the lock.
// Reads go on until the last write was answered.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		err := s.checkpointer.close()
		s.writer.stop()
		s.closeErr = errors.Join(err, s.closeReaders(), s.writer.close(), s.lock.release())
	})
	return s.closeErr
}

// closeReaders ends all connections that read.
func (s *Store) closeReaders() error { return errors.Join(s.readers.Close(), s.walkers.Close()) }

// Walks implements [store.Walker].
func (s *Store) Walks() *store.Walks { return s.walks }

// reader is the pool that a read of ctx is of.
func (s *Store) reader(ctx context.Context) *sql.DB {
	if store.OfWalk(ctx) {
		return s.walkers
	}
	return s.readers
}

// Ping reports whether the store can be written to now: it commits a row.
func (s *Store) Ping(ctx context.Context) error {
	return s.writer.do(ctx, func(tx *txn) error {
		return tx.exec(`INSERT INTO meta (key, value) VALUES ('ping', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1`)
	})
}

// Watch implements [store.Store].
func (s *Store) Watch(fn func(store.Notice)) { s.watchers.Add(fn) }

// WatchSettling implements [store.Store].
func (s *Store) WatchSettling(fn func(store.Notice) (settled func())) { s.watchers.AddSettling(fn) }

// serving refuses what an admin process may not do.
func (s *Store) serving() error {
	if s.role != Serve {
		return errors.New("sqlite: only the serving process handles events and deliveries")
	}
	return nil
}

// checkFile finds the faults that SQLite would report less clearly, or not at
// all, and creates a missing file so that only its owner can read it.
func checkFile(path string, create bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if create && errors.Is(err, os.ErrNotExist) {
		if err := checkNoLog(path, "missing"); err != nil {
			return err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(fileMagic))
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case n > 0 && create && unmade(f, head):
		if err := checkNoLog(path, "not begun"); err != nil {
			return err
		}
		return f.Truncate(0)
	case n > 0 && string(head) != fileMagic:
		return fmt.Errorf("%w: it is not a SQLite database, or an encrypted one", ErrCorrupt)
	case n == 0 && !create:
		return fmt.Errorf("%w: it is empty", ErrCorrupt)
	case n == 0:
		return checkNoLog(path, "empty")
	}
	return nil
}

// unmade reports whether the power was lost while SQLite wrote the file's first
// page, and its beginning with it. Such a file has never held a row: the schema
// takes many pages.
func unmade(f *os.File, head []byte) bool {
	info, err := f.Stat()
	return err == nil && info.Size() <= 8192 && len(bytes.Trim(head, "\x00")) == 0
}

// checkNoLog refuses a log without its file: SQLite would remove it, and with it
// what was committed last.
func checkNoLog(path, state string) error {
	wal := path + "-wal"
	info, err := os.Stat(wal)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it is %s, but its log %s is there and holds what was written last; to begin with an empty one, move the log away too", ErrCorrupt, state, wal)
}

const fileMagic = "SQLite format 3\x00"
