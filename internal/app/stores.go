package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// openServing opens the store that a node serves.
func openServing(ctx context.Context, cfg *config.Config, c *clock.Clock, log *slog.Logger) (store.Store, error) {
	path := cfg.StorePath
	if config.IsPostgres(path) {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		return opened(postgres.Open(ctx, postgres.Options{
			URL: path, Role: postgres.Serve, Clock: c, Log: log, Host: fmt.Sprintf("%s/%d", host, os.Getpid()), Bytes: cfg.StoreBytes,
		}))
	}
	s, err := opened(sqlite.Open(ctx, sqlite.Options{Path: path, Role: sqlite.Serve, Now: c.Now, Log: log}))
	return s, lockedIsConflict(err)
}

// slack is how far a store's reference of time may jump and be followed at once.
func slack(path string) time.Duration {
	if config.IsPostgres(path) {
		return clock.DatabaseSlack
	}
	return clock.WallSlack
}

// OpenStore opens the store of an installation that may be running, for the
// commands that work on it directly.
func OpenStore(ctx context.Context, path string) (store.Store, error) {
	if config.IsPostgres(path) {
		return opened(postgres.Open(ctx, postgres.Options{URL: path, Role: postgres.Admin, Now: time.Now}))
	}
	return opened(sqlite.Open(ctx, sqlite.Options{Path: path, Role: sqlite.Admin, Now: time.Now}))
}

// opened keeps a nil pointer from becoming a store that is not nil.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Migrate makes the store at path if there is none and brings it to the schema
// of this version.
func Migrate(ctx context.Context, path string) (from, to int64, err error) {
	if config.IsPostgres(path) {
		return postgres.Migrate(ctx, path)
	}
	from, to, err = sqlite.Migrate(ctx, path)
	return from, to, lockedIsConflict(err)
}

// trouble is what /readyz says of a store that cannot be written to: nothing of
// its address, but what an operator mends elsewhere.
func trouble(err error) string {
	if skew, ok := errors.AsType[*postgres.SkewError](err); ok {
		return skew.Error()
	}
	return "the store cannot be written to"
}
