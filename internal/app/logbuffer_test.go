package app

import (
	"log/slog"
	"strings"
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
			if out.writes != writes || strings.Count(out.String(), "\n") != lines {
				t.Errorf("%s: %d writes, %d lines; want %d and %d", when, out.writes, strings.Count(out.String(), "\n"), writes, lines)
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
		if most := 3 + 2000*200/logBuffered; out.writes == 3 || out.writes > most {
			t.Errorf("more than fits the buffer: %d writes, want 4 to %d", out.writes, most)
		}
		flush()
		if n := strings.Count(out.String(), "\n"); n != 2103 {
			t.Errorf("%d lines at the end, want 2103", n)
		}
	})
}

type countingWriter struct {
	strings.Builder
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Builder.Write(p)
}
