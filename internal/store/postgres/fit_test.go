package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// as is the address with another role.
func as(t *testing.T, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("user", role)
	u.User, u.RawQuery = nil, q.Encode()
	return u.String()
}

// Each kind of database that cannot be used is refused by one sentence that names the
// fault and the fix, and nothing is made in it: neither by a service nor by migrate.
func TestDatabasesThatCannotBeUsedAreNamed(t *testing.T) {
	server := pgtest.ThrowAway(t)
	base := server.URL()
	make := func(name, more string) string {
		pgtest.Exec(t, base, `CREATE DATABASE `+name+` `+more)
		return pgtest.With(base, name)
	}
	for _, role := range []string{"nobody_here", "no_connect", "no_usage"} {
		pgtest.Exec(t, base, `CREATE ROLE `+role+` LOGIN`)
	}
	for name, tc := range map[string]struct {
		url         func() string
		fault, mend string
		unavailable bool
	}{
		"SQL_ASCII": {func() string { return make("ascii", `ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0`) }, "its encoding is SQL_ASCII", "ENCODING 'UTF8' TEMPLATE template0", false},
		"LATIN1":    {func() string { return make("latin", `ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`) }, "its encoding is LATIN1", "ENCODING 'UTF8'", false},
		"EUC_JP":    {func() string { return make("japan", `ENCODING 'EUC_JP' LOCALE 'C' TEMPLATE template0`) }, "its encoding is EUC_JP", "ENCODING 'UTF8'", false},
		"another program's schema": {func() string {
			u := make("taken", "")
			pgtest.Exec(t, u, `CREATE SCHEMA posthorn CREATE TABLE posthorn.notes (x int)`)
			return u
		}, `another program's (it has "notes"`, "a database of its own", false},
		"read only": {func() string {
			u := make("reading", "")
			pgtest.Exec(t, u, `ALTER DATABASE reading SET default_transaction_read_only = on`)
			return u
		}, "it takes no writes", `ALTER DATABASE "reading" RESET`, true},
		"no right to make the schema": {func() string { return as(t, make("owned", ""), "nobody_here") }, "may not make the schema posthorn", `GRANT CREATE ON DATABASE "owned" TO "nobody_here"`, false},
		"no right to use the schema": {func() string {
			u := make("walled", "")
			if _, _, err := postgres.Migrate(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			return as(t, u, "no_usage")
		}, "may not use the schema posthorn", "GRANT", false},
		"no right to connect": {func() string {
			u := make("closed", "")
			pgtest.Exec(t, u, `REVOKE CONNECT ON DATABASE closed FROM public`)
			return as(t, u, "no_connect")
		}, `the role "no_connect" may not connect`, `GRANT CONNECT ON DATABASE "closed"`, false},
		"no connection left": {func() string {
			u := make("crowded", "")
			pgtest.Exec(t, u, `CREATE ROLE limited LOGIN CONNECTION LIMIT 0`)
			return as(t, u, "limited")
		}, "as many connections as it may", "CONNECTION LIMIT", true},
		"no database": {func() string { return pgtest.With(base, "absent") }, `there is no database "absent"`, "createdb --encoding=UTF8", false},
		"no role":     {func() string { return as(t, base, "who") }, `there is no role "who"`, "createuser who", false},
	} {
		u := tc.url()
		before := contents(t, base, u)
		_, _, migrated := postgres.Migrate(t.Context(), u)
		s, opened := postgres.Open(t.Context(), postgres.Options{URL: u, Role: postgres.Serve})
		if s != nil {
			s.Close()
		}
		for what, err := range map[string]error{"migrate": migrated, "serve": opened} {
			if err == nil || !strings.Contains(err.Error(), tc.fault) || !strings.Contains(err.Error(), tc.mend) {
				t.Errorf("%s, %s: %v", name, what, err)
				continue
			}
			if text := err.Error(); strings.Contains(text, "SQLSTATE") || strings.Contains(text, "\n") || len(text) > 400 {
				t.Errorf("%s, %s: it is no one sentence: %s", name, what, text)
			}
			if errors.Is(err, store.ErrUnavailable) != tc.unavailable {
				t.Errorf("%s, %s: unavailable: %v", name, what, !tc.unavailable)
			}
		}
		if after := contents(t, base, u); after != before {
			t.Errorf("%s: it was changed from %q to %q", name, before, after)
		}
	}
}

// contents are the relations of a database, as its owner sees them; empty where there is
// none.
func contents(t *testing.T, base, address string) string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), pgtest.With(base, pgtest.Name(address)))
	if err != nil {
		return ""
	}
	defer c.Close(context.Background())
	var all string
	if err := c.QueryRow(t.Context(), `SELECT coalesce(string_agg(oid::regclass::text, ' ' ORDER BY oid), '') FROM pg_class WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)`).Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// A standby is told from a server that is away.
func TestAStandbyIsNamed(t *testing.T) {
	primary := pgtest.ThrowAway(t)
	standby, err := primary.Standby("cluster_name=standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	if err := standby.Run(); err != nil {
		t.Fatal(err)
	}
	_, err = postgres.Open(t.Context(), postgres.Options{URL: standby.URL(), Role: postgres.Serve})
	if err == nil || !strings.Contains(err.Error(), "is a standby") || !strings.Contains(err.Error(), "target_session_attrs=read-write") || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
