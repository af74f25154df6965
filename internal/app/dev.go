package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
)

const (
	devTenant       = "demo"
	devInboxAddr    = "127.0.0.1:8422"
	devInboxLabel   = "Demo inbox of posthorn dev"
	devDrainTimeout = 2 * time.Second // Ctrl-C on a laptop should not be waited for
)

// Dev runs a node for trying things out: a demo tenant, an inbox that verifies
// what it receives, and sample events, until ctx ends. out is for people: one
// line per delivery; log lines go to stderr. What it made stays in cfg.Dir for
// the next run.
func Dev(ctx context.Context, cfg config.Dev, out, stderr io.Writer) error {
	serving.Store(true)
	if err := prepareDev(&cfg); err != nil {
		return err
	}
	log, flush := newLogger(stderr, &cfg.Config)
	defer flush()
	people := newLogQueue(out, func(int) []byte { return []byte("Some lines were left out: nobody read them.\n") })
	defer people.Close()
	out = people
	inbox := newInbox(out, time.Now)
	if err := inbox.listen(devInboxAddr); err != nil {
		return fmt.Errorf("the inbox cannot listen: %w", err)
	}
	defer inbox.listener.Close()
	if err := freePorts(&cfg.Config, out); err != nil {
		return err
	}
	n, err := newNode(ctx, cfg.Config, log, inboxException{inbox.listener.Addr().(*net.TCPAddr).AddrPort()})
	if err != nil {
		return err
	}
	n.api.Handler = http.NewCrossOriginProtection().Handler(n.api.Handler)
	demo, err := n.setUpDemo(ctx, cfg.Dir, inbox)
	if err != nil {
		return n.abandon(err)
	}
	if err := n.start(ctx); err != nil {
		return n.abandon(err)
	}
	n.wg.Go(func() {
		if err := inbox.serve(); err != nil {
			log.Error(err.Error())
		}
	})
	demo.greet(out, cfg.Dir)
	if cfg.Samples > 0 {
		n.wg.Go(func() { n.sendSamples(ctx, demo.tenant, cfg.Samples) })
	}
	<-ctx.Done()
	fmt.Fprintf(out, "\nStopping; %d sample and other events were verified. What was made stays in %s.\n", inbox.verifiedCount(), cfg.Dir)
	closing, cancel := context.WithTimeout(context.Background(), cfg.DrainTimeout)
	defer cancel()
	return errors.Join(inbox.shutdown(closing), n.stop())
}

// prepareDev fills in what dev decides: where data and key are, and that
// loopback may be reached over http.
func prepareDev(cfg *config.Dev) error {
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return posthorn.Errorf(posthorn.Invalid, "--listen %q is not host:port", cfg.Listen)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return posthorn.Errorf(posthorn.Invalid, "dev listens on loopback only, not on %s: its token stands in a file and its inbox is open. Use \"posthorn serve\" for more.", cfg.Listen)
	}
	if cfg.Reset {
		if err := resetDev(cfg.Dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("dev keeps its data in %s: %w", cfg.Dir, err)
	}
	cfg.StorePath = filepath.Join(cfg.Dir, "posthorn.db")
	if cfg.EncryptionKeys == "" {
		if cfg.EncryptionKeys, err = devKey(filepath.Join(cfg.Dir, "encryption-keys")); err != nil {
			return err
		}
	}
	cfg.AllowHTTP = true
	cfg.AllowPrivate = append(cfg.AllowPrivate, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	cfg.DrainTimeout = min(cfg.DrainTimeout, devDrainTimeout)
	if !cfg.Chosen("log-level") {
		cfg.LogLevel = slog.LevelWarn // the inbox's lines are what there is to see
	}
	return nil
}

// resetDev removes what dev made, and only in a folder that dev made.
func resetDev(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "encryption-keys")); errors.Is(err, os.ErrNotExist) {
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			return fmt.Errorf("--reset: %s does not look like a folder of posthorn dev; remove it yourself if you mean it", dir)
		}
	}
	for _, name := range []string{"posthorn.db", "posthorn.db-wal", "posthorn.db-shm", "posthorn.db.lock", "token", "encryption-keys"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("--reset: %w", err)
		}
	}
	return nil
}

// freePorts moves the API and the metrics to free ports when the default ones
// are taken; a chosen address is left to fail.
func freePorts(cfg *config.Config, out io.Writer) error {
	for _, l := range []struct {
		setting, what string
		addr          *string
	}{
		{"listen", "this dev listens", &cfg.Listen},
		{"ops-listen", "its metrics are", &cfg.OpsListen},
	} {
		if *l.addr == "" || cfg.Chosen(l.setting) {
			continue
		}
		ln, free, err := listenOrFree(*l.addr)
		if err != nil {
			return fmt.Errorf("cannot listen on %s: %w", *l.addr, err)
		}
		if free {
			fmt.Fprintf(out, "%s is in use, so %s on %s.\n", *l.addr, l.what, ln.Addr())
		}
		*l.addr = ln.Addr().String()
		if err := ln.Close(); err != nil {
			return err
		}
	}
	return nil
}
