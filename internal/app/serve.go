package app

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// Serve runs a node until ctx ends, then drains and returns. What it has to say
// goes to stderr as log lines; stdout stays empty.
func Serve(ctx context.Context, cfg config.Config, _, stderr io.Writer) error {
	log, flush := newLogger(stderr, &cfg)
	defer flush()
	tuneGC()
	n, err := newNode(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return n.abandon(err)
	}
	path, err := filepath.Abs(cfg.StorePath)
	if err != nil {
		path = cfg.StorePath
	}
	log.Info("serving", "version", posthorn.Version, "listen", n.listener.Addr().String(), "ops", opsAddr(n), "store", path, "retention", config.FormatDuration(cfg.Retention))
	<-ctx.Done()
	log.Info("draining", "at_most", config.FormatDuration(cfg.DrainTimeout))
	if err := n.stop(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func opsAddr(n *node) string {
	if n.opsLn == nil {
		return "off"
	}
	return n.opsLn.Addr().String()
}

// OpenStore opens the store of an installation that may be running, for the
// commands that work on it directly.
func OpenStore(ctx context.Context, path string) (*sqlite.Store, error) {
	return sqlite.Open(ctx, sqlite.Options{Path: path, Role: sqlite.Admin, Now: time.Now})
}

// Migrate makes the store at path if there is none and brings it to the schema
// of this version.
func Migrate(ctx context.Context, path string) (from, to int64, err error) {
	return sqlite.Migrate(ctx, path)
}
