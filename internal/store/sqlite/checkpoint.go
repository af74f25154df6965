package sqlite

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"time"
)

const (
	// checkpointPages is how much of the log may wait to be taken into the file: 8 MiB.
	// The more it is, the more often a page of an index has changed again before it is
	// written; the less, the better it fits the caches.
	checkpointPages = 2000
	// checkpointMost is how long the log may get before the writer finishes what
	// it keeps making unfinished.
	checkpointMost = 3 * checkpointPages
	// checkpointDelay is how often a busy log is looked at.
	checkpointDelay = 50 * time.Millisecond
	// checkpointLast is where SQLite takes the log in within a commit, should the
	// checkpointer not come to it.
	checkpointLast = 8 * checkpointPages
)

// checkpointer takes the log into the file on a connection of its own, so that
// no commit waits for the many pages and the sync of that.
//
// SQLite begins the log anew only when all of it was taken in, which never
// happens while the writer goes on adding to it. So when the log has grown to
// checkpointMost, the writer takes in what is left: the little that was added
// during the last round.
type checkpointer struct {
	db      *sql.DB
	writer  *writer
	log     *slog.Logger
	wake    chan struct{} // cap 1: something was committed
	stopped chan struct{}
	running sync.WaitGroup
}

func newCheckpointer(o Options, w *writer) (*checkpointer, error) {
	db, err := sql.Open("sqlite", checkpointDSN(o))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &checkpointer{db: db, writer: w, log: o.Log, wake: make(chan struct{}, 1), stopped: make(chan struct{})}, nil
}

func (c *checkpointer) start() { c.running.Go(c.loop) }

// committed tells that the log has grown.
func (c *checkpointer) committed() {
	if c == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *checkpointer) loop() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-c.stopped:
			return
		}
		select {
		case <-c.wake:
		case <-c.stopped:
			return
		}
		if err := c.look(); err != nil {
			c.log.Warn("the database's log could not be taken into its file", "error", err)
		}
		pause.Reset(checkpointDelay)
	}
}

// look takes the log in when it is long enough.
func (c *checkpointer) look() error {
	length, taken, err := c.checkpoint("NOOP")
	if err != nil || length-taken < checkpointPages {
		return err
	}
	length, taken, err = c.checkpoint("PASSIVE")
	if err != nil || length-taken == 0 || length < checkpointMost {
		return err
	}
	done := make(chan error, 1)
	select {
	case c.writer.between <- func() { done <- c.writer.takeIn() }:
		return <-done
	case <-c.stopped:
		return nil
	}
}

// takeIn takes the log into the file as far as nobody else needs it. While the
// writer does it, nothing is added.
func (w *writer) takeIn() error {
	w.checkpoints.Lock()
	defer w.checkpoints.Unlock()
	return w.execute("PRAGMA wal_checkpoint(PASSIVE)")
}

// checkpoint keeps the writer's turn: SQLite refuses a second checkpoint at a time
// without waiting for the first.
func (c *checkpointer) checkpoint(mode string) (length, taken int, err error) {
	c.writer.checkpoints.Lock()
	defer c.writer.checkpoints.Unlock()
	return checkpoint(c.db, mode)
}

// close ends the goroutine. The writer must still run.
func (c *checkpointer) close() error {
	if c == nil {
		return nil
	}
	close(c.stopped)
	c.running.Wait()
	return c.db.Close()
}

// checkpoint returns the length of the log in pages and how many of them are in
// the file. A lock held by somebody else is no error: the next round comes.
func checkpoint(db *sql.DB, mode string) (length, taken int, err error) {
	var locked int
	err = db.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&locked, &length, &taken)
	return length, taken, err
}
