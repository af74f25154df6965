package sqlite

import (
	"context"
	"database/sql"
	"errors"
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

// Gathered is how many entries of lists are in memory.
func (s *Store) Gathered() (n int) {
	p := s.writer.postings
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, lists := range []map[listKey][]int64{p.recent, p.moving} {
		for _, ids := range lists {
			n += len(ids)
		}
	}
	return n
}

// PostedTwice is how many entries more than one row of a list has.
func (s *Store) PostedTwice(ctx context.Context) (n int, err error) {
	seen := make(map[posting]bool)
	_, err = all(ctx, s.readers, func(r scanner) (_ struct{}, err error) {
		var list listKey
		var last int64
		var blob []byte
		if err := r.Scan((*int64)(&list), &last, &blob); err != nil {
			return struct{}{}, err
		}
		ids, err := appendUnpacked(nil, last, blob)
		for _, id := range ids {
			e := posting{list, id}
			if seen[e] {
				n++
			}
			seen[e] = true
		}
		return struct{}{}, err
	}, `SELECT list, last, ids FROM postings`)
	return n, err
}

// SetPatience is how long an erasure waits for readers.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// EmptyingAttempts is how often the writer tried to empty the log.
func (s *Store) EmptyingAttempts() int {
	e := s.writer.emptying
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.attempts
}

// CutLog has the writer try once to empty the log.
func (s *Store) CutLog() (emptied bool, err error) {
	e := s.checkpointer.between(func() error { emptied, err = s.writer.cutLog(); return nil })
	return emptied, errors.Join(err, e)
}

// Marked reports whether the file says that the log is to be emptied.
func (s *Store) Marked(t testing.TB) (marked bool) {
	t.Helper()
	if err := s.readers.QueryRow(`SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?)`, erasingFrom).Scan(&marked); err != nil {
		t.Fatal(err)
	}
	return marked
}

// HoldReaders takes all connections of walks, or all others that read.
func (s *Store) HoldReaders(t testing.TB, walks bool) (release func()) {
	pool := s.readers
	if walks {
		pool = s.walkers
	}
	var held []*sql.Conn
	for range pool.Stats().MaxOpenConnections {
		c, err := pool.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	return func() {
		for _, c := range held {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// EmptyLog takes the log into the file and cuts it to nothing.
func (s *Store) EmptyLog(t testing.TB) {
	t.Helper()
	if !s.emptyLog(t.Context(), s.patience) {
		t.Fatal("the log was not emptied")
	}
}
