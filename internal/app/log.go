package app

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"github.com/posthorn/posthorn/internal/config"
)

// newLogger writes text to a terminal and JSON to everything else, unless the
// configuration says which. Nobody who logs waits for w: see [logQueue]. flush ends
// the log: it is called last, and takes a second at most.
func newLogger(w io.Writer, cfg *config.Config) (log *slog.Logger, flush func()) {
	terminal := isTerminal(w)
	handler := func(w io.Writer) slog.Handler {
		if cfg.LogFormat == "json" || cfg.LogFormat != "text" && !terminal {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: cfg.LogLevel})
		}
		return tint.NewTextHandler(w, &tint.Options{
			Level:      cfg.LogLevel,
			TimeFormat: time.TimeOnly,
			NoColor:    os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !terminal,
		})
	}
	q := newLogQueue(w, func(dropped int) []byte {
		var line bytes.Buffer
		slog.New(handler(&line)).Warn("lines of the log were dropped: whoever reads it did not keep up", "lines", dropped)
		return line.Bytes()
	})
	return slog.New(promptHandler{handler(q), q}), q.Close
}

// isTerminal reports whether w is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
