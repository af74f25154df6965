package app

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/internal/config"
)

// A lone line is written at once, the lines of a burst together and soon, and a
// warning takes along all that came before it. Nothing is lost at the end.
func TestLogLinesOfABurstAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out countingWriter
		log, flush := newLogger(&out, &config.Config{LogFormat: "json", LogLevel: slog.LevelInfo})
		want := func(when string, writes, lines int) {
			t.Helper()
			if w, l := out.counts(); w != writes || l != lines {
				t.Errorf("%s: %d writes, %d lines; want %d and %d", when, w, l, writes, lines)
			}
		}
		log.Info("lone")
		want("a lone line", 1, 1)
		for range 100 {
			log.Info("burst")
		}
		want("a burst", 1, 1)
		<-time.After(logDelay)
		synctest.Wait()
		want("a burst, soon after", 2, 101)
		log.Info("before")
		log.With("a", 1).WithGroup("g").Warn("warning")
		want("a warning", 3, 103)
		for range 2000 {
			log.Info(strings.Repeat("x", 100))
		}
		if n, _ := out.counts(); n == 3 || n > 3+2000*200/logBuffered {
			t.Errorf("more than fits the buffer: %d writes, want 4 to %d", n, 3+2000*200/logBuffered)
		}
		flush()
		if _, n := out.counts(); n != 2103 {
			t.Errorf("%d lines at the end, want 2103", n)
		}
	})
}

type countingWriter struct {
	mu            sync.Mutex
	writes, lines int
}

func (w *countingWriter) counts() (writes, lines int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes, w.lines
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes, w.lines = w.writes+1, w.lines+bytes.Count(p, []byte{'\n'})
	return len(p), nil
}
