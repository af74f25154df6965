package app

import (
	"context"
	"io"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
)

// Serve runs a node until ctx ends, then drains and returns. What it has to say
// goes to stderr as log lines; stdout stays empty.
func Serve(ctx context.Context, cfg config.Config, _, stderr io.Writer) error {
	log, flush := newLogger(stderr, &cfg)
	defer flush()
	serving.Store(true)
	tuneGC()
	if !config.IsPostgres(cfg.StorePath) {
		tuneProcessors()
	}
	n, err := newNode(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return n.abandon(err)
	}
	log.Info("serving", "version", posthorn.Version, "listen", n.listener.Addr().String(), "ops", opsAddr(n), "store", config.ShownStore(cfg.StorePath), "retention", config.FormatDuration(cfg.Retention))
	<-ctx.Done()
	log.Info("stopping: not ready from now on; a second signal ends at once", "serves_for", config.FormatDuration(cfg.ShutdownDelay), "then_drains_for_at_most", config.FormatDuration(cfg.DrainTimeout))
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
