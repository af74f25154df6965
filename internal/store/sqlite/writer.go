package sqlite

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// writer owns the only connection that writes. Its fields below conn are of
// its goroutine alone.
type writer struct {
	role      Role
	queue     *queue
	space     space
	now       func() time.Time
	log       *slog.Logger
	node      uint8
	poll      time.Duration
	watchers  *store.Watchers
	committed func()      // is told of each commit
	between   chan func() // is called between two transactions
	emptying  *emptying
	running   sync.WaitGroup

	conn        *conn
	last        posthorn.ID // the highest id given out
	lead        time.Duration
	dataVersion int64
	spaceLow    bool

	open  *openCounts
	stats statsLog
	kept  keptCounts
	// postings are the lists' entries that are not in their table.
	postings *postings
	memo     memo
	// lines are the ordered endpoints that live.
	lines map[int64]struct{}
}

func newWriter(ctx context.Context, o Options, watchers *store.Watchers) (*writer, error) {
	w := &writer{
		role:  o.Role,
		queue: newQueue(),
		space: space{look: func() (uint64, uint64, error) { return o.FreeSpace(o.Path) }, now: o.Now},
		now:   o.Now, log: o.Log, node: o.Node, poll: o.Poll, watchers: watchers,
		committed: func() {}, between: make(chan func()), emptying: newEmptying(),
		open: newOpenCounts(), memo: memo{most: memoMost}, postings: newPostings(o.Gather), kept: newKeptCounts(),
	}
	var err error
	if w.conn, err = openConn(o.Path, writerPragmas(o)...); err != nil {
		return nil, err
	}
	if o.Role == Serve {
		err = w.recoverFull(func() error {
			w.open, w.postings, w.lines = newOpenCounts(), newPostings(o.Gather), nil
			return w.recover(ctx)
		})
	} else {
		err = w.execute("PRAGMA busy_timeout = 0") // see begin
	}
	if err == nil {
		err = w.readStatsLog()
	}
	if err == nil {
		err = w.readKept()
	}
	if err == nil {
		err = w.readDataVersion(&w.dataVersion)
	}
	if err != nil {
		return nil, errors.Join(err, w.conn.close())
	}
	return w, nil
}

// yields is how often the writer stands back before it takes a group: 8 times save
// 5 % of the time per delivery of a busy server, 20 times no more.
const yields = 8

func (w *writer) start() { w.running.Go(w.loop) }

func (w *writer) loop() {
	var tick <-chan time.Time
	if w.poll > 0 {
		t := time.NewTicker(w.poll)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-w.queue.wake:
			// Whoever is ready to run goes first and may join the group: the more
			// are in it, the fewer pages and syncs each costs. With nobody ready it
			// takes no time.
			for range yields {
				runtime.Gosched()
			}
			group, closed := w.queue.take()
			if len(group) == 0 && closed {
				w.settleAll()
				return
			}
			w.write(group)
			w.queue.written()
			w.tidyStats()
			w.tidyKept()
		case <-tick:
			w.look()
			w.tidyStats()
			w.tidyKept()
		case call := <-w.between:
			call()
		}
	}
}

// settleAll writes what need not be durable before its time.
func (w *writer) settleAll() {
	settle := func(tx *txn) error {
		if err := tx.writeSuccesses(math.MaxInt); err != nil {
			return err
		}
		if err := tx.writeKept(0); err != nil {
			return err
		}
		return tx.mergeStats(0)
	}
	if err := w.try([]*op{{apply: settle, done: func(error) {}}}); err != nil {
		w.log.Warn("the times of the last successes and what tenants keep could not be written", "error", err)
	}
}

// stop ends the goroutine once it has written what is queued.
func (w *writer) stop() {
	w.queue.close()
	w.running.Wait()
}

// close stops and closes the connection; SQLite then takes the log into the
// file.
func (w *writer) close() error {
	w.stop()
	return w.conn.close()
}

// write commits a group. When anything in it fails, the group is rolled back
// and repeated one caller at a time, so that nobody fails for another's fault.
func (w *writer) write(group []*op) {
	live := group[:0]
	for _, o := range group {
		if o.ctx != nil && o.ctx.Err() != nil {
			o.done(o.ctx.Err())
			continue
		}
		live = append(live, o)
	}
	if len(live) == 0 {
		return
	}
	err := w.try(live)
	if err == nil {
		return
	}
	// When not even a transaction can begin, each would wait for the lock anew.
	if _, unbegun := err.(beginError); unbegun || len(live) == 1 {
		for _, o := range live {
			o.done(classify(err))
		}
		return
	}
	for _, o := range live {
		if err := w.try([]*op{o}); err != nil {
			o.done(classify(err))
		}
	}
}

// beginError is why no transaction could begin.
type beginError struct{ error }

func (e beginError) Unwrap() error { return e.error }

// try commits the group and answers its callers, or changes nothing.
func (w *writer) try(group []*op) error {
	if err := w.begin(); err != nil {
		return beginError{err}
	}
	tx := newTxn(w)
	err := w.checkMemo()
	if err == nil {
		err = tx.run(group)
	}
	if err == nil {
		err = w.execute("COMMIT")
	}
	if err != nil {
		// SQLite itself rolls back after some errors; then this one fails.
		_ = w.execute("ROLLBACK")
		return err
	}
	w.last, w.lead = tx.last, tx.lead
	w.open.apply(tx.moves)
	w.keepStats(tx)
	w.kept.take(tx)
	w.memo.keep(tx.health)
	w.postings.keep(tx)
	w.reline(tx.lines)
	for _, o := range group {
		if len(o.notices) > 0 {
			o.settling = w.watchers.Tell(o.notices...)
		}
	}
	w.watchers.Tell(tx.notices...) // of what is written once for the group
	for _, o := range group {
		o.done(o.err)
	}
	w.committed()
	return nil
}

func (w *writer) reline(changed map[int64]bool) {
	if w.lines == nil && len(changed) > 0 {
		w.lines = make(map[int64]struct{})
	}
	for endpoint, on := range changed {
		if on {
			w.lines[endpoint] = struct{}{}
		} else {
			delete(w.lines, endpoint)
		}
	}
}

// A process beside a busy server finds the file locked nearly always: free for
// some microseconds between two commits. SQLite's own waiting looks ten times
// a second and would not hit that; this looks more often.
const (
	knockEvery = 100 * time.Microsecond
	knockFor   = 10 * time.Second
)

func (w *writer) begin() error {
	err := w.execute("BEGIN IMMEDIATE")
	if w.role == Serve {
		return err
	}
	for since := time.Now(); busy(err) && time.Since(since) < knockFor; err = w.execute("BEGIN IMMEDIATE") {
		time.Sleep(knockEvery)
	}
	return err
}

func (w *writer) execute(query string) error {
	return w.conn.exec(query, nil)
}

// do has the writer run apply and waits for the commit. An error that apply
// made with refuse comes back as it was; it must not have changed anything.
func (w *writer) do(ctx context.Context, apply func(*txn) error) error {
	return w.doMuch(ctx, 1, apply)
}

// doMuch is do for what changes so many rows.
func (w *writer) doMuch(ctx context.Context, rows int, apply func(*txn) error) error {
	return w.submit(&op{kind: opChange, ctx: ctx, rows: rows, apply: apply})
}

func (w *writer) submit(o *op) error {
	done := make(chan error, 1)
	o.done = func(err error) { done <- err }
	if o.ctx.Err() != nil {
		return o.ctx.Err()
	}
	if err := w.queue.add(o); err != nil {
		return err
	}
	err := <-done
	o.settling.Wait()
	return err
}

// look finds out whether another process changed the file.
func (w *writer) look() {
	var v int64
	if err := w.readDataVersion(&v); err != nil {
		w.log.Error("the database could not be read", "error", err)
		return
	}
	if v != w.dataVersion {
		w.dataVersion = v
		w.watchers.Tell(store.Notice{Kind: store.NoticeAll})
	}
}

func (w *writer) readDataVersion(v *int64) error {
	_, err := w.conn.row("PRAGMA data_version", nil, v)
	return err
}

// spaceIsLow reports whether the disk has come to its reserve.
func (w *writer) spaceIsLow() bool {
	room, known := w.space.room()
	low := known && room.Free < room.Reserve
	if low != w.spaceLow {
		w.log.Warn("free disk space crossed the reserve", "low", low, "free_bytes", room.Free, "reserve_bytes", room.Reserve)
	}
	w.spaceLow = low
	return low
}

func belowReserve(free, total uint64) bool { return free < store.Reserve(total) }

// Space tells what is free on the file's disk, and whether that is so little that
// publishing is refused.
func Space(path string) (free uint64, low bool, err error) {
	free, total, err := freeSpace(path)
	return free, err == nil && belowReserve(free, total), err
}
