package app

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// logDelay is how long a line of info may wait for others. A lone line does
	// not wait.
	logDelay = 100 * time.Millisecond
	// logBuffered is how much waits at most.
	logBuffered = 64 << 10
)

// logBuffer writes the lines of a busy server together: a system call a line
// was a fiftieth of its processor time. What a crash of the process could lose
// is the last tenth of a second of info lines; warnings and errors are written
// at once, with all that came before them.
type logBuffer struct {
	w io.Writer

	mu      sync.Mutex
	lines   []byte
	written time.Time
	timer   *time.Timer // runs while lines wait; nil before the first
	waiting bool
}

// Write takes one line.
func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line...)
	wait := logDelay - time.Since(b.written)
	switch {
	case wait <= 0 || len(b.lines) >= logBuffered:
		b.flush()
	case b.waiting:
	case b.timer == nil:
		b.waiting, b.timer = true, time.AfterFunc(wait, b.Flush)
	default:
		b.waiting = true
		b.timer.Reset(wait)
	}
	return len(line), nil
}

// Flush writes what waits.
func (b *logBuffer) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
}

func (b *logBuffer) flush() {
	b.waiting, b.written = false, time.Now()
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines) // as slog does: nobody is left to tell
		b.lines = b.lines[:0]
	}
}

// promptHandler has what is worse than info written at once.
type promptHandler struct {
	slog.Handler
	buffer *logBuffer
}

func (h promptHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level > slog.LevelInfo {
		h.buffer.Flush()
	}
	return err
}

func (h promptHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptHandler{h.Handler.WithAttrs(attrs), h.buffer}
}

func (h promptHandler) WithGroup(name string) slog.Handler {
	return promptHandler{h.Handler.WithGroup(name), h.buffer}
}
