package app

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logDelay is how long a line of info may wait for others. A lone line does
	// not wait.
	logDelay = 100 * time.Millisecond
	// logTogether is how much is written though the delay is not over, logQueued
	// how much waits at most for whoever reads the log.
	logTogether = 64 << 10
	logQueued   = 1 << 20
	// logEnd is how long the end of the process waits for what is queued.
	logEnd = time.Second
)

// logQueue takes whole lines and never waits: one goroutine writes them, in their
// order. When nobody reads the log (a blocked pipe) the queue runs full; then lines
// are dropped and counted, and a line says how many once it flows again.
//
// The lines of a busy server are written together: a system call a line was a
// fiftieth of its processor time. What a crash of the process could lose is the last
// tenth of a second of info lines, and what was on its way of the others.
type logQueue struct {
	w    io.Writer
	note func(dropped int) []byte // the line that tells of dropped ones

	mu     sync.Mutex
	lines  []byte
	lost   int // since the last note
	closed bool

	dropped atomic.Int64  // in all
	some    chan struct{} // there are lines
	now     chan struct{} // they are not to wait
	done    chan struct{} // closed when all is written
}

func newLogQueue(w io.Writer, note func(dropped int) []byte) *logQueue {
	q := &logQueue{w: w, note: note, some: make(chan struct{}, 1), now: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one line. It never fails and never waits for the writer.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.lines)+len(line) > logQueued {
		q.lost++
		q.dropped.Add(1)
		return len(line), nil
	}
	q.lines = append(q.lines, line...)
	wake(q.some)
	if len(q.lines) >= logTogether {
		wake(q.now)
	}
	return len(line), nil
}

// Prompt has what is queued written without a delay.
func (q *logQueue) Prompt() { wake(q.now) }

// Close has what is queued written, and waits for that for a second at most. Lines
// that come later are dropped.
func (q *logQueue) Close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	wake(q.some)
	wake(q.now)
	timer := time.NewTimer(logEnd)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
}

// Dropped is how many lines were dropped since the start.
func (q *logQueue) Dropped() int64 { return q.dropped.Load() }

func (q *logQueue) run() {
	defer close(q.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var spare []byte
	for {
		select {
		case <-q.some:
		case <-q.now:
		}
		lines, lost, end := q.take(spare)
		if len(lines) > 0 {
			_, _ = q.w.Write(lines) // as slog does: nobody is left to tell
		}
		if lost > 0 { // they came when the queue was full of those
			_, _ = q.w.Write(q.note(lost))
		}
		if end {
			return
		}
		if spare = lines; cap(spare) > logTogether {
			spare = nil // a jam's, which is over
		}
		if len(lines) == 0 {
			continue // those that woke it were taken before
		}
		timer.Reset(logDelay)
		select {
		case <-timer.C:
		case <-q.now:
			wake(q.some)
		}
	}
}

// take returns what is queued and gives the queue other room. end tells that nothing
// follows. Who asked for it to be written at once has it with this.
func (q *logQueue) take(room []byte) (lines []byte, lost int, end bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.now:
	default:
	}
	lines, q.lines = q.lines, room[:0]
	lost, q.lost = q.lost, 0
	return lines, lost, q.closed
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// promptHandler has what is worse than info written at once.
type promptHandler struct {
	slog.Handler
	queue *logQueue
}

func (h promptHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level > slog.LevelInfo {
		h.queue.Prompt()
	}
	return err
}

func (h promptHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptHandler{h.Handler.WithAttrs(attrs), h.queue}
}

func (h promptHandler) WithGroup(name string) slog.Handler {
	return promptHandler{h.Handler.WithGroup(name), h.queue}
}

// droppedLines is how many lines of the log were dropped; 0 for another's log.
func droppedLines(log *slog.Logger) int64 {
	if h, ok := log.Handler().(promptHandler); ok {
		return h.queue.Dropped()
	}
	return 0
}
