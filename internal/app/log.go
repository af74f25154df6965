package app

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"github.com/posthorn/posthorn/internal/config"
)

// newLogger writes text to a terminal and JSON to everything else, unless the
// configuration says which. flush writes what JSON lines may still wait; it is
// called last.
func newLogger(w io.Writer, cfg *config.Config) (log *slog.Logger, flush func()) {
	text := cfg.LogFormat == "text" || cfg.LogFormat != "json" && isTerminal(w)
	if !text {
		b := &logBuffer{w: w}
		return slog.New(promptHandler{slog.NewJSONHandler(b, &slog.HandlerOptions{Level: cfg.LogLevel}), b}), b.Flush
	}
	return slog.New(tint.NewTextHandler(w, &tint.Options{
		Level:      cfg.LogLevel,
		TimeFormat: time.TimeOnly,
		NoColor:    os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(w),
	})), func() {}
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
