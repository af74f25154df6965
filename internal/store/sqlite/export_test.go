package sqlite

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Limit lets the file grow to so many pages only, like a full disk.
func (s *Store) Limit(pages int) error {
	return s.writer.do(context.Background(), func(tx *txn) error {
		var n int
		_, err := tx.row(fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &n)
		return err
	})
}

// SetReadOnly makes every write fail, as a file system does that was mounted
// read-only after an error.
func (s *Store) SetReadOnly(on bool) error {
	return s.pragma(fmt.Sprintf("query_only = %t", on))
}

// SetBusyTimeout is how long the writer waits for the lock.
func (s *Store) SetBusyTimeout(d time.Duration) error {
	return s.pragma(fmt.Sprintf("busy_timeout = %d", d.Milliseconds()))
}

func (s *Store) pragma(text string) error {
	done := make(chan error)
	s.writer.between <- func() { done <- s.writer.execute("PRAGMA " + text) }
	return <-done
}

// HoldSnapshot keeps a reader in the way of the log's end until it is released.
func (s *Store) HoldSnapshot(t testing.TB) (release func()) {
	tx, err := s.readers.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRow(`SELECT count(*) FROM events`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// Remember keeps the health of so many endpoints in memory.
func (s *Store) Remember(endpoints int) { s.writer.memo.most = endpoints }
