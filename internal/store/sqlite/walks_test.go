package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

func TestWalksHaveReadersOfTheirOwn(t *testing.T) {
	s := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "posthorn.db")})
	storetest.WalksApart(t, s, func(walks bool) func() { return s.HoldReaders(t, walks) })
}
