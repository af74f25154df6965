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
	// checkpointRounds is how often the log is taken in beside the writer at most, until
	// little is left for the writer: after a long reader it is long.
	checkpointRounds = 8
)

// checkpointer takes the log into the file on a connection of its own, so that
// no commit waits for the many pages and the sync of that.
//
// SQLite begins the log anew only when all of it was taken in, which never
// happens while the writer goes on adding to it. So when the log has grown to
// checkpointMost, the writer takes in what is left: the little that was added
// during the last round.
//
// It also empties the log of what was erased: see [checkpointer.emptyOnce].
type checkpointer struct {
	db *sql.DB
	// readers are the pools of the process's own readers.
	readers []*sql.DB
	writer  *writer
	log     *slog.Logger
	// beside: its goroutines run. Else whoever wants the log emptied does it.
	beside  bool
	wake    chan struct{} // cap 1: something was committed
	asked   chan struct{} // cap 1: the log is to be emptied
	stopped chan struct{}
	running sync.WaitGroup
	// turn is held while the log is taken into the file: SQLite refuses a second
	// checkpoint at a time without waiting for the first. The writer never waits
	// for it.
	turn sync.Mutex
	// keptAt is up to where the log was taken in when it could not be emptied last.
	keptAt int
}

func newCheckpointer(o Options, w *writer, readers ...*sql.DB) (*checkpointer, error) {
	db, err := sql.Open("sqlite", checkpointDSN(o))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &checkpointer{
		db: db, readers: readers, writer: w, log: o.Log, beside: o.checkpoints(),
		wake: make(chan struct{}, 1), asked: make(chan struct{}, 1), stopped: make(chan struct{}),
	}, nil
}

// start begins its work; left: the last run left a log. The writer must run.
func (c *checkpointer) start(left bool) {
	switch {
	case c == nil:
	case c.beside:
		if left {
			c.writer.emptying.ask() // of what retention deleted in the last run
		}
		c.running.Go(c.loop)
		c.running.Go(c.emptyLoop)
	case c.writer.emptying.pending():
		c.emptyOnce()
	}
}

// committed tells that the log has grown.
func (c *checkpointer) committed() {
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
	c.turn.Lock()
	defer c.turn.Unlock()
	length, before, err := checkpoint(c.db, "NOOP")
	if err != nil || length-before < checkpointPages {
		return err
	}
	length, taken, err := c.takeIn(before)
	if err != nil || taken == before || length < checkpointMost {
		return err // or a reader keeps the log
	}
	return c.between(c.writer.takeIn)
}

// takeIn takes the log, of which so many pages were taken in before, into the file
// beside the writer until little is left, or a reader keeps the rest. It returns the
// log's length and how much of it is in the file.
func (c *checkpointer) takeIn(before int) (length, taken int, err error) {
	for range checkpointRounds {
		length, taken, err = checkpoint(c.db, "PASSIVE")
		if err != nil || taken == before || length-taken < checkpointPages {
			break
		}
		before = taken
	}
	return length, taken, err
}

// between has the writer call something between two transactions.
func (c *checkpointer) between(call func() error) error {
	done := make(chan error, 1)
	select {
	case c.writer.between <- func() { done <- call() }:
		return <-done
	case <-c.stopped:
		return nil
	}
}

// takeIn takes the log into the file as far as nobody else needs it. While the
// writer does it, nothing is added.
func (w *writer) takeIn() error { return w.execute("PRAGMA wal_checkpoint(PASSIVE)") }

// close ends the goroutines. The writer must still run.
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
