package postgres_test

import (
	"testing"

	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// notify tells a text as a node of this version does, which a login without rights
// cannot: it does not know the channel.
func notify(t testing.TB, url, text string) {
	t.Helper()
	pgtest.Exec(t, url, `SELECT pg_notify('posthorn_changes_' || to_hex(value), $1) FROM posthorn.meta WHERE key = 'channel'`, text)
}
