package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestPublishingIsGrantedByTenant: a role publishes for the tenants that it was granted,
// for no other, by no other way, and has no right on anything else.
func TestPublishingIsGrantedByTenant(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.node(c.url)
	change := store.Change{Actor: "test", At: time.Now()}
	other, err := s.CreateTenant(t.Context(), change, "globex")
	if err != nil {
		t.Fatal(err)
	}
	name := "posthorn_test_" + pgtest.Name(c.url)
	shop, group := login(t, c.url, name), name+"_group"
	pgtest.Exec(t, c.url, `CREATE ROLE `+group)
	t.Cleanup(func() { // they have rights in this database, which may be dropped after this
		pgtest.Exec(t, c.url, `DROP OWNED BY `+name+`, `+group)
		pgtest.Exec(t, c.url, `DROP ROLE `+group)
	})
	owner := func(query string, args ...any) { t.Helper(); pgtest.Exec(t, c.url, query, args...) }
	tried := 0
	code := func(want, query string) {
		t.Helper()
		tried++
		_, err := shop.Exec(t.Context(), query, pgx.QueryExecModeSimpleProtocol)
		got := ""
		if e, ok := errors.AsType[*pgconn.PgError](err); ok {
			got = e.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
	const denied, acme, globex, nobody = "42501", `SELECT posthorn_outbox.publish('acme', 'cases.updated', '{}')`,
		`SELECT posthorn_outbox.publish('globex', 'cases.updated', '{}')`, `SELECT posthorn_outbox.publish('nobody', 'cases.updated', '{}')`
	code("3F000", acme) // the schema is made by the first grant
	owner(`SELECT posthorn.grant_publish($1, 'acme')`, group)
	code(denied, acme)
	owner(`GRANT ` + group + ` TO ` + name) // what a role has, its members have
	code("", acme)
	code(denied, globex)
	code(denied, nobody)
	code("", `SET ROLE `+group)
	code("", acme)
	code("", `RESET ROLE`)
	owner(`REVOKE ` + group + ` FROM ` + name)
	code(denied, acme)
	owner(`SELECT posthorn.grant_publish($1, 'acme')`, name)
	owner(`SELECT posthorn.grant_publish($1, 'acme')`, name) // twice is once
	code("", acme)
	for _, query := range []string{
		globex, `SELECT posthorn_outbox.publish('globex', 'cases.updated', '{}', 'a', clock_timestamp())`,
		`SELECT posthorn.publish('acme', 'cases.updated', '{}')`, `SELECT posthorn.publish_granted('acme', 'cases.updated', '{}', NULL, NULL)`,
		`SELECT posthorn.grant_publish('` + name + `', 'globex')`, `SELECT posthorn.revoke_publish('` + name + `')`,
		`SELECT posthorn.make_partition('events', 'events_20200101', 1, 2)`,
		`SELECT * FROM posthorn.outbox`, `TABLE posthorn.meta`, `CREATE TEMP VIEW v AS SELECT * FROM posthorn.due`,
		`CREATE TEMP TABLE x (a bigint REFERENCES posthorn.due)`, `PREPARE p AS DELETE FROM posthorn.due`, `CREATE TABLE posthorn_outbox.a (a int)`,
		`CREATE FUNCTION posthorn_outbox.publish(a text, b text, c text) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
	} {
		code(denied, query)
	}
	// What it makes for itself changes nothing.
	code("", `CREATE TEMP TABLE tenants (id bigint, name text, suspended_at bigint, deleted_at bigint); INSERT INTO tenants VALUES (1, 'globex', 0, 0);
		CREATE TEMP TABLE outbox_grants (role text, tenant bigint); INSERT INTO outbox_grants VALUES (session_user, 0);
		CREATE FUNCTION pg_temp.pg_has_role(name, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
		CREATE FUNCTION pg_temp.publish(text, text, json, text, timestamptz) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
		SET search_path = pg_temp, posthorn, pg_catalog`)
	code(denied, globex)
	code("", acme)
	code("22004", `SELECT posthorn_outbox.publish(NULL, 'cases.updated', '{}')`)
	code("22023", `SELECT posthorn_outbox.publish('acme', 'cases.updated', '[]')`)
	code("", `SELECT posthorn_outbox.publish('acme', 'cases.updated', '{}', NULL, '4713-01-01 00:00:00+00 BC')`) // is now
	code("22008", `SELECT posthorn_outbox.publish('acme', 'cases.updated', '{}', NULL, '-infinity')`)
	rows, err := s.OutboxWaiting(t.Context(), nil, 100)
	if err != nil || len(rows) != 5 {
		t.Errorf("%d rows wait, %v", len(rows), err)
	}
	for _, row := range rows {
		if row.Tenant != c.tenant.ID {
			t.Errorf("a row of the tenant %d", row.Tenant)
		}
	}
	owner(`SELECT posthorn.grant_publish($1)`, name) // every tenant
	code("", globex)
	code("23503", nobody)
	owner(`SELECT posthorn.revoke_publish($1)`, name)
	code(denied, acme)
	owner(`SELECT posthorn.grant_publish($1, 'globex')`, name)
	if err := s.DeleteTenant(t.Context(), change, other.ID); err != nil {
		t.Fatal(err)
	}
	code(denied, globex)
	c.eventually("a deleted tenant's grants are gone", func() bool {
		if _, err := s.Sweep(t.Context(), time.Now(), store.Retention{}); err != nil {
			t.Fatal(err)
		}
		return string(raw(c.url).Bytes(t, `SELECT count(*)::text::bytea FROM outbox_grants WHERE role = '`+name+`'`)) == "0"
	})
	if _, err := s.CreateTenant(t.Context(), change, "globex"); err != nil {
		t.Fatal(err)
	}
	code(denied, globex) // another one of the same name
	// What was given by EXECUTE goes on.
	owner(`GRANT USAGE ON SCHEMA posthorn TO ` + name + `; GRANT EXECUTE ON FUNCTION posthorn.publish TO ` + name)
	code("", `SELECT posthorn.publish('globex', 'cases.updated', '{}')`)
	strangers, err := s.LookForStrangers(t.Context())
	if err != nil || !strangers.Public || strangers.Logins == 0 || fmt.Sprint(strangers.Reach) != "["+name+"]" {
		t.Errorf("found %+v, %v", strangers, err)
	}
	tally.Count(t, "a role publishes for the tenants that it was granted and for no other", tried)
}

// TestRefusedRowsAreBounded: of a tenant's the newest are kept, and nobody else's go.
func TestRefusedRowsAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.node(c.url)
	other, err := s.CreateTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, "globex")
	if err != nil {
		t.Fatal(err)
	}
	const kept, more = 10_000, 1234
	insert := func(tenant int64, n int, data string) {
		t.Helper()
		pgtest.Exec(t, c.url, `INSERT INTO posthorn.outbox (tenant, key, type, data, at, deliver_at, refused_at, reason)
			SELECT $1, '', 'cases.nonsense', $3, 1, 0, 1, 'n' || n FROM generate_series(1, $2::int) n`, tenant, n, data)
	}
	count := func(tenant int64) (n int) {
		t.Helper()
		text := raw(c.url).Bytes(t, fmt.Sprintf(`SELECT count(*)::text::bytea FROM outbox WHERE tenant = %d AND refused_at <> 0`, tenant))
		if _, err := fmt.Sscan(string(text), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	insert(other.ID, 5, `{}`)
	insert(c.tenant.ID, kept+more, `{}`)
	insert(other.ID, 5, `{}`)
	pgtest.Exec(t, c.url, `INSERT INTO posthorn.outbox (tenant, key, type, data, at, deliver_at) VALUES ($1, '', 'cases.updated', '{}', 1, 0)`, c.tenant.ID)
	now, dropped := time.Now(), 0
	sweep := func() {
		t.Helper()
		now = now.Add(2 * time.Minute)
		for again := true; again; {
			swept, err := s.Sweep(t.Context(), now, store.Retention{})
			if err != nil {
				t.Fatal(err)
			}
			dropped, again = dropped+swept.Refused, swept.More
		}
	}
	sweep()
	if n := count(c.tenant.ID); n != kept || dropped != more {
		t.Errorf("%d are kept and %d were dropped, want %d and %d", n, dropped, kept, more)
	}
	if n := count(other.ID); n != 10 {
		t.Errorf("%d of another tenant are left, want 10", n)
	}
	rows, err := s.OutboxRows(t.Context(), true, 0, 250)
	if err != nil || len(rows) != 250 || rows[10].Reason != fmt.Sprint("n", kept+more-5) {
		t.Errorf("the newest are not kept: %d, %v", len(rows), err)
	}
	if rows, err := s.OutboxWaiting(t.Context(), nil, 10); err != nil || len(rows) != 1 {
		t.Errorf("%d wait, %v: what waits is never dropped", len(rows), err)
	}
	// Of large ones fewer, by what they take: these cannot be compressed much.
	dropped = 0
	pgtest.Exec(t, c.url, `INSERT INTO posthorn.outbox (tenant, key, type, data, at, deliver_at, refused_at, reason)
		SELECT $1, '', 'cases.nonsense', (SELECT '{"a":"' || string_agg(encode(sha512(i::text::bytea), 'base64'), '') || '"}' FROM generate_series(1, 2500) i), 1, 0, 1, 'large'
		FROM generate_series(1, 400) n`, other.ID)
	sweep()
	if n := count(other.ID); n < 64 || n > 399 || dropped != 410-n {
		t.Errorf("%d large ones are kept and %d were dropped", n, dropped)
	}
	tally.Count(t, "refused rows of the outbox are bounded by tenant", kept+more)
}
