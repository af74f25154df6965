package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
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

// dial gives up on a network that swallows what is sent. Nothing depends on it: each
// call has its deadline.
var dial = net.Dialer{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	Control:         boundUnacknowledged,
}

func (o *Options) connConfig(purpose string) (*pgx.ConnConfig, error) {
	c, err := o.read.config(o.URL)
	if err != nil {
		return nil, err
	}
	c.ConnectTimeout = connectTimeout
	c.DialFunc = dial.DialContext
	// Nothing that others made is found by it; without pg_temp it would be first.
	c.RuntimeParams["search_path"] = schema + ", pg_temp"
	c.RuntimeParams["application_name"] = "posthorn " + purpose
	// A list's statement names every partition, so that it seems costly enough to
	// be compiled first: 30 to 200 ms for what then takes 7.
	c.RuntimeParams["jit"] = "off"
	return c, nil
}

func (s *Store) pool(ctx context.Context, purpose string, size int32) (*pool, error) {
	c, err := pgxpool.ParseConfig(s.o.URL)
	if err != nil {
		return nil, fmt.Errorf("its address cannot be read: %w", err)
	}
	if c.ConnConfig, err = s.o.connConfig(purpose); err != nil {
		return nil, err
	}
	c.MaxConns, c.MinConns = size, 1
	c.HealthCheckPeriod = 10 * time.Second
	c.PingTimeout = s.o.Deadlines.Look / 3 // of one that rested for a second, before it is used
	params := c.ConnConfig.RuntimeParams
	params["statement_timeout"], params["lock_timeout"], params["idle_in_transaction_session_timeout"] = statementTimeout, lockTimeout, idleInTxTimeout
	c.BeforeClose = s.abandon
	// Each connection has a name of its own, so that one whose fate is unknown can
	// be ended, and no other: see settle.
	c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if err := s.o.read.renew(s.o.URL, c); err != nil {
			return err
		}
		var b [8]byte
		_, err := rand.Read(b[:])
		c.RuntimeParams["application_name"] = "posthorn " + purpose + " " + hex.EncodeToString(b[:])
		return err
	}
	made, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	p := &pool{made, s.o.Deadlines.Walk}
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	if err := p.Ping(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
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
