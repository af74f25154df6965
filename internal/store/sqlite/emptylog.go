package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"
)

// Emptying the log means that no old page stays in it: all of it is taken into the
// file and its file is cut to nothing, which SQLite does only while nobody reads
// from it. Whoever keeps a snapshot keeps the log; it is tried again later, and
// the writer never waits for it.
const (
	// asideFor is how long this process's own readers stand aside at most, so that
	// short ones, of which there is always one, do not keep the log for ever. They take
	// a few milliseconds for it.
	asideFor = time.Second
	// A log that could not be emptied is tried again after retryFirst, doubling to
	// retryMost.
	retryFirst = 50 * time.Millisecond
	retryMost  = 3 * time.Second
	// patience is how long a log that is kept by a reader is waited for.
	patience = 5 * time.Second
)

// erasingFrom is the time of the first erasure whose payload may be in the log still.
const erasingFrom = "erasing_from"

// markErasing has the log emptied after the commit, and until then, also by the next
// start, the file say so.
func (tx *txn) markErasing(at time.Time) error {
	tx.w.emptying.erased(nanos(at))
	return tx.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = min(value, excluded.value)`, erasingFrom, nanos(at))
}

// recoverErasing finds what the last run could not empty the log of.
func (tx *txn) recoverErasing() error {
	from, err := tx.meta(erasingFrom, 0)
	if err == nil && from != 0 {
		tx.w.emptying.erased(from)
	}
	return err
}

// emptyLog has the log emptied of what was committed before. It reports false
// when readers keep the log for longer than patient, and then goes on in the
// background.
func (s *Store) emptyLog(ctx context.Context, patient time.Duration) (emptied bool) {
	return s.checkpointer.emptied(ctx, s.writer.emptying.ask(), patient)
}

// emptied waits for a turn, at least until it has been tried.
func (c *checkpointer) emptied(ctx context.Context, turn uint64, patient time.Duration) bool {
	e := c.writer.emptying
	if !c.beside {
		c.emptyOnce()
		return e.isDone(turn)
	}
	select {
	case c.asked <- struct{}{}:
	default:
	}
	began := time.Now()
	for {
		done, blocked, tried := e.state(turn)
		if done {
			return true
		}
		since, most := blocked, patient
		if blocked.IsZero() { // it is being emptied, of much or by a slow disk
			since, most = began, 2*max(patient, patience)
		}
		left := most - time.Since(since)
		if left <= 0 {
			return false
		}
		if !c.waits(ctx, tried, left) {
			return false
		}
	}
}

// waits reports false when there is no more to wait for.
func (c *checkpointer) waits(ctx context.Context, tried <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-tried:
	case <-timer.C:
	case <-ctx.Done():
		return false
	case <-c.stopped:
		return false
	}
	return true
}

// emptyLoop empties the log when it is asked to, and while that cannot be, now
// and then.
func (c *checkpointer) emptyLoop() {
	retry := time.NewTimer(0) // at the start there may be something left
	defer retry.Stop()
	wait := retryFirst
	asked := c.asked
	for {
		select {
		case <-asked:
		case <-retry.C:
		case <-c.stopped:
			return
		}
		if !c.writer.emptying.pending() {
			continue
		}
		if c.emptyOnce() {
			asked, wait = c.asked, retryFirst
			continue
		}
		asked = nil // whoever asks meanwhile waits with the others
		retry.Reset(wait)
		wait = min(2*wait, retryMost)
	}
}

// emptyOnce reports whether the log was emptied. First it asks nothing of anybody;
// then the process's own readers stand aside, unless one snapshot has kept the log
// since the last time.
func (c *checkpointer) emptyOnce() bool {
	turn, emptied, kept, err := c.cut()
	if err == nil && !emptied && !kept {
		release := c.standAside()
		turn, emptied, _, err = c.cut()
		release()
	}
	if err != nil {
		c.log.Warn("the write-ahead log could not be emptied; trying again", "error", err)
	}
	c.writer.emptying.ended(turn, emptied)
	if emptied {
		c.unmark()
	}
	return emptied
}

// cut takes in what the log has, and has the writer, between two commits, take in the
// rest and cut the log. kept tells of a reader who was in the way before.
func (c *checkpointer) cut() (turn uint64, emptied, kept bool, err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	length, taken, err := c.takeIn(-1)
	if err != nil {
		return 0, false, false, err
	}
	kept = taken < length && taken == c.keptAt
	c.keptAt = taken
	err = c.between(func() (err error) {
		turn = c.writer.emptying.turn()
		emptied, err = c.writer.cutLog()
		return err
	})
	return turn, emptied, kept, err
}

// cutLog empties the log if that can be done at once.
func (w *writer) cutLog() (emptied bool, err error) {
	var patient, blocked, pages, moved int
	if _, err := w.conn.row("PRAGMA busy_timeout", nil, &patient); err != nil {
		return false, err
	}
	if err := w.execute("PRAGMA busy_timeout = 0"); err != nil {
		return false, err
	}
	_, err = w.conn.row("PRAGMA wal_checkpoint(TRUNCATE)", nil, &blocked, &pages, &moved)
	if e := w.execute(fmt.Sprintf("PRAGMA busy_timeout = %d", patient)); err == nil {
		err = e
	}
	w.emptying.attempted()
	return err == nil && blocked == 0, err
}

// standAside takes the readers' connections, as far as they are free in time, so that
// none of them reads until release is called.
func (c *checkpointer) standAside() (release func()) {
	ctx, cancel := context.WithTimeout(context.Background(), asideFor)
	defer cancel()
	var (
		taking sync.WaitGroup
		mu     sync.Mutex
		taken  []*sql.Conn
	)
	for _, pool := range c.readers {
		for range pool.Stats().MaxOpenConnections {
			taking.Go(func() {
				if conn, err := pool.Conn(ctx); err == nil {
					mu.Lock()
					defer mu.Unlock()
					taken = append(taken, conn)
				}
			})
		}
	}
	taking.Wait()
	return func() {
		for _, conn := range taken {
			_ = conn.Close() // gives it back
		}
	}
}

// unmark takes the file's mark away. One that stays has the next start empty the log
// once more.
func (c *checkpointer) unmark() {
	if !c.writer.emptying.unmark() {
		return
	}
	err := c.writer.submit(&op{kind: opSweep, ctx: context.Background(), apply: func(tx *txn) error {
		if tx.w.emptying.pending() {
			return nil // the mark is of one that came meanwhile
		}
		return tx.exec(`DELETE FROM meta WHERE key = ?`, erasingFrom)
	}})
	if err != nil {
		c.log.Warn("that the write-ahead log was emptied could not be written down; the next start empties it again", "error", err)
	}
}
