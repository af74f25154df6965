package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// schema holds all tables.
const schema = "posthorn"

// Bounds of what a connection may do. A node that stops in the middle of a
// transaction, or is cut off, must not keep others from the rows it locked.
const (
	connectTimeout   = 5 * time.Second
	statementTimeout = "30s"
	lockTimeout      = "10s"
	idleInTxTimeout  = "5s"
)

func (o *Options) connConfig(purpose string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("its address cannot be read: %w", err)
	}
	c.ConnectTimeout = connectTimeout
	c.RuntimeParams["search_path"] = schema
	c.RuntimeParams["application_name"] = "posthorn " + purpose
	// A list's statement names every partition, so that it seems costly enough to
	// be compiled first: 30 to 200 ms for what then takes 7.
	c.RuntimeParams["jit"] = "off"
	return c, nil
}

func (s *Store) pool(ctx context.Context, purpose string, size int32) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(s.o.URL)
	if err != nil {
		return nil, fmt.Errorf("its address cannot be read: %w", err)
	}
	if c.ConnConfig, err = s.o.connConfig(purpose); err != nil {
		return nil, err
	}
	c.MaxConns, c.MinConns = size, 1
	c.HealthCheckPeriod = 10 * time.Second
	p := c.ConnConfig.RuntimeParams
	p["statement_timeout"], p["lock_timeout"], p["idle_in_transaction_session_timeout"] = statementTimeout, lockTimeout, idleInTxTimeout
	// Each connection has a name of its own, so that one whose fate is unknown can
	// be ended, and no other: see settleCommit.
	c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		var b [8]byte
		_, err := rand.Read(b[:])
		c.RuntimeParams["application_name"] = "posthorn " + purpose + " " + hex.EncodeToString(b[:])
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// shown is the address without its password.
func (o *Options) shown() string { return Shown(o.URL) }

// Shown returns a database's address without what is secret.
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" && u.Path == "" {
		return "postgres://…"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}
