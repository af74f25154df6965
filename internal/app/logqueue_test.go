package app

import (
	"bytes"
	"fmt"
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
		var out reader
		log, flush := newLogger(&out, &config.Config{LogFormat: "json", LogLevel: slog.LevelInfo})
		want := func(when string, writes, lines int) {
			t.Helper()
			synctest.Wait()
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
		want("a burst, soon after", 2, 101)
		log.Info("before")
		log.With("a", 1).WithGroup("g").Warn("warning")
		want("a warning", 3, 103)
		for range 2000 {
			log.Info(strings.Repeat("x", 100))
		}
		synctest.Wait()
		// Each of these writes was due only once so much was queued.
		most := 3 + len(out.String())/logTogether
		if n, _ := out.counts(); n == 3 || n > most {
			t.Errorf("more than is written together: %d writes, want 4 to %d", n, most)
		}
		flush()
		if _, n := out.counts(); n != 2103 {
			t.Errorf("%d lines at the end, want 2103", n)
		}
		if n := droppedLines(log); n != 0 {
			t.Errorf("%d lines were dropped though the log was read", n)
		}
	})
}

// TestALogThatRunsFullDropsAndCounts has nobody read while a megabyte and more is
// logged: who logs does not wait, what was queued comes in its order, and a line says
// how many are missing.
func TestALogThatRunsFullDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := reader{blocked: make(chan struct{})}
		log, flush := newLogger(&out, &config.Config{LogFormat: "json", LogLevel: slog.LevelInfo})
		log.Info("first")
		synctest.Wait() // it is being written
		const lines = 20_000
		for i := range lines {
			log.Info("line", "n", i, "pad", strings.Repeat("x", 100))
		}
		dropped := int(droppedLines(log))
		if dropped == 0 {
			t.Fatal("nothing was dropped")
		}
		close(out.blocked)
		<-time.After(logDelay)
		synctest.Wait()
		log.Info("last")
		flush()
		all := strings.Split(strings.TrimSpace(out.String()), "\n")
		if n := len(all); n != 1+lines-dropped+2 {
			t.Fatalf("%d lines came and %d of %d were dropped", n, dropped, lines)
		}
		for i, line := range all[1 : len(all)-2] {
			if !strings.Contains(line, fmt.Sprintf(`"n":%d,`, i)) {
				t.Fatalf("line %d is %s", i, line)
			}
		}
		if note := all[len(all)-2]; !strings.Contains(note, fmt.Sprintf(`"lines":%d}`, dropped)) {
			t.Errorf("%d were dropped, and the log says %s", dropped, note)
		}
	})
}

// TestTheEndOfALogWaitsASecondForItsReader also has a reader that comes in time.
func TestTheEndOfALogWaitsASecondForItsReader(t *testing.T) {
	for _, comes := range []time.Duration{logEnd / 2, 2 * logEnd} {
		synctest.Test(t, func(t *testing.T) {
			out := reader{blocked: make(chan struct{})}
			log, flush := newLogger(&out, &config.Config{LogFormat: "text", LogLevel: slog.LevelInfo})
			began := time.Now()
			time.AfterFunc(comes, func() { close(out.blocked) })
			log.Info("first")
			synctest.Wait()
			log.Info("last")
			flush()
			if took := time.Since(began); took != min(comes, logEnd) {
				t.Errorf("the end took %v", took)
			}
			if _, n := out.counts(); comes < logEnd && n != 2 {
				t.Errorf("%d lines came, want 2", n)
			}
			log.Info("too late")
			<-time.After(3 * logEnd)
			if strings.Contains(out.String(), "too late") || !strings.Contains(out.String(), "last") {
				t.Errorf("in the end there is %q", out.String())
			}
		})
	}
}

// reader reads once it is not blocked any more.
type reader struct {
	blocked chan struct{} // nil: it reads at once

	mu     sync.Mutex
	writes int
	text   strings.Builder
}

func (w *reader) counts() (writes, lines int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes, strings.Count(w.text.String(), "\n")
}

func (w *reader) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *reader) Write(p []byte) (int, error) {
	if w.blocked != nil {
		<-w.blocked
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	w.text.Write(bytes.Clone(p))
	return len(p), nil
}
