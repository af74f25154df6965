package postgres_test

import (
	"testing"

	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

func TestWalksHaveConnectionsOfTheirOwn(t *testing.T) {
	s := open(t, postgres.Options{URL: database(t)})
	storetest.WalksApart(t, s, func(walks bool) func() { return s.HoldReaders(t, walks) })
}
