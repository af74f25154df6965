package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// readings keeps what the database's address said together with the files that it
// names (sslrootcert, sslcert, sslkey, passfile, servicefile, or their PG… variables),
// so that a file that is missing or not good keeps nobody from connecting. It is safe
// for concurrent use.
type readings struct {
	mu   sync.Mutex
	last *pgx.ConnConfig
}

// config returns what was read last, for one connection. Without readings the files
// are read.
func (r *readings) config(address string) (*pgx.ConnConfig, error) {
	if r == nil {
		return parse(address)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		c, err := parse(address)
		if err != nil {
			return nil, err
		}
		r.last = c
	}
	return r.last.Copy(), nil
}

// reread reads the files, and keeps what was read before when they are not good.
func (r *readings) reread(address string) error {
	c, err := parse(address)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != nil {
		if err := mayFollow(r.last, c); err != nil {
			return err
		}
	}
	r.last = c
	return nil
}

func parse(address string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(address)
	if e, ok := errors.AsType[*pgconn.ParseConfigError](err); ok && e.Unwrap() != nil {
		err = e.Unwrap() // the rest repeats the address
	}
	if err != nil {
		return nil, fmt.Errorf("its address cannot be read: %w", err)
	}
	return c, nil
}

// mayFollow refuses what is read of files that went away: pgx takes a missing file
// for one that nobody wanted, and connects with less than before.
func mayFollow(last, c *pgx.ConnConfig) error {
	switch {
	case last.Host != c.Host || last.Port != c.Port || last.Database != c.Database || last.User != c.User || len(last.Fallbacks) != len(c.Fallbacks):
		return errors.New("the address leads elsewhere now; restart the nodes if that is meant")
	case last.Password != "" && c.Password == "":
		return errors.New("the file of passwords has none for it any more")
	}
	for i, was := range ways(last) {
		is := ways(c)[i]
		switch {
		case was == nil && is == nil:
		case was == nil || is == nil:
			return errors.New("the address asks for another kind of TLS now; restart the nodes if that is meant")
		case was.RootCAs != nil && is.RootCAs == nil:
			return errors.New("the file of authorities is gone")
		case len(was.Certificates) > 0 && len(is.Certificates) == 0:
			return errors.New("the file of the node's certificate is gone")
		}
	}
	return nil
}

// ways are the kinds of TLS by which connections are tried, in order.
func ways(c *pgx.ConnConfig) []*tls.Config {
	all := []*tls.Config{c.TLSConfig}
	for _, f := range c.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	return all
}

// renew gives a connection of a pool what the files held last; the pool's own is as
// old as the pool.
func (r *readings) renew(address string, c *pgx.ConnConfig) error {
	now, err := r.config(address)
	if err != nil {
		return err
	}
	c.TLSConfig, c.Password, c.Fallbacks = now.TLSConfig, now.Password, slices.Clone(now.Fallbacks)
	return nil
}

// Reread reads the files that the database's address names. New connections are made
// with what they hold; on an error, which names no address, with what they held
// before. Connections that are open stay, and are replaced within an hour or so.
func (s *Store) Reread() error { return s.o.read.reread(s.o.URL) }
