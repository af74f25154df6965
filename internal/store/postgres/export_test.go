package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn"
)

// Blind has the store remove from memory whatever it holds of a delivery, as it did
// before holds had generations.
func (s *Store) Blind() {
	s.holdings.mu.Lock()
	defer s.holdings.mu.Unlock()
	s.holdings.blind = true
}

// Unheld lists the rows of the node's run that it does not hold.
func (s *Store) Unheld(ctx context.Context) (lost []posthorn.ID, err error) {
	run, _, err := s.lease.current()
	if err != nil {
		return nil, err
	}
	ids, err := s.ownRows(run, 0)
	for _, id := range s.holdings.unheld(run, ids) {
		lost = append(lost, posthorn.ID(id))
	}
	return lost, err
}

// URL is the database's address.
func (s *Store) URL() string { return s.o.URL }

// LookAtKept writes and reads what tenants keep, as is done now and then.
func (s *Store) LookAtKept(ctx context.Context) error {
	if err := s.flushKept(ctx); err != nil {
		return err
	}
	return s.loadKept(ctx)
}

// HoldReaders takes all connections of walks, or all others that read.
func (s *Store) HoldReaders(t testing.TB, walks bool) (release func()) {
	of := s.other
	if walks {
		of = s.long
	}
	var held []*pgxpool.Conn
	for range of.Config().MaxConns {
		c, err := of.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	return func() {
		for _, c := range held {
			c.Release()
		}
	}
}
