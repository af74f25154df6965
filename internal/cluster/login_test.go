package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// hostile are statements of a login that wants to harm. None may be noticed: most are
// refused, and what is allowed takes nothing of ours. A line is a session's turn, in
// one transaction if it begins one. %d is a number that comes soon.
var hostile = []string{
	// Locks.
	`SELECT pg_advisory_lock(8101821196716212225), pg_advisory_lock(8101821196716212226), pg_advisory_lock(8101821196716212227), pg_advisory_lock(8101821196716212228)`,
	`SELECT pg_try_advisory_lock_shared(n) FROM generate_series(8101821196716212224, 8101821196716212244) n`,
	`SELECT pg_advisory_lock(n::int) FROM generate_series(1, 200) n`,
	`BEGIN; LOCK TABLE posthorn.locks`,
	`BEGIN; LOCK TABLE posthorn.due, posthorn.events, posthorn.meta IN ACCESS SHARE MODE; SELECT pg_sleep(0.2)`,
	`BEGIN; SELECT * FROM posthorn.locks FOR UPDATE; SELECT pg_sleep(0.2)`,
	`BEGIN; PREPARE p AS DELETE FROM posthorn.due; SELECT pg_sleep(0.2)`,
	`BEGIN; PREPARE p AS SELECT 1 FROM posthorn.outbox FOR UPDATE; SELECT pg_sleep(0.2)`,
	`BEGIN; CREATE TEMP VIEW v AS SELECT * FROM posthorn.due; SELECT pg_sleep(0.2)`,
	`CREATE TEMP TABLE r (a bigint REFERENCES posthorn.due)`,
	`CREATE TEMP TABLE h () INHERITS (posthorn.meta)`,
	`CREATE TEMP TABLE e PARTITION OF posthorn.events FOR VALUES FROM (1) TO (2)`,
	`CREATE TEMP TABLE q (a bigint) PARTITION BY RANGE (a)`, `ALTER TABLE q ATTACH PARTITION posthorn.due FOR VALUES FROM (1) TO (2)`,
	`ALTER TABLE q ATTACH PARTITION posthorn.tenants FOR VALUES FROM (1) TO (2)`, `ALTER TABLE q INHERIT posthorn.runs`,
	`VACUUM FULL posthorn.due`, `ANALYZE posthorn.events`, `CLUSTER posthorn.due`, `REINDEX SCHEMA posthorn`, `TRUNCATE posthorn.due`,
	`DROP TABLE posthorn.locks`, `DROP SCHEMA posthorn CASCADE`, `ALTER TABLE posthorn.due DISABLE TRIGGER ALL`, `COMMENT ON TABLE posthorn.due IS 'mine'`,
	`CREATE INDEX ON posthorn.due (tenant)`, `CREATE SCHEMA posthorn_outbox`, `CREATE TABLE public.locks (a int)`, `CREATE STATISTICS s ON id, tenant FROM posthorn.due`,
	// Notices.
	`LISTEN posthorn_changes`, `LISTEN posthorn_outbox`, `UNLISTEN *`,
	`BEGIN; LISTEN posthorn_changes; SELECT pg_sleep(0.2)`,
	`SELECT pg_notify('posthorn_changes', 'x ' || %d + n || ' 5 0 0 0 0 1') FROM generate_series(0, 500) n`,
	`SELECT pg_notify('posthorn_changes', 'x ' || %d + n * 7 || ' 0 0 0 0 0 1') FROM generate_series(0, 20000) n`,
	`SELECT pg_notify('posthorn_changes', rpad(n::text, 7999, 'x')) FROM generate_series(1, 500) n`,
	`NOTIFY posthorn_changes`, `NOTIFY posthorn_changes, ''`, `NOTIFY posthorn_changes, 'x 9223372036854775807 0 -1 -1 -1 9223372036854775806 9223372036854775807'`,
	`NOTIFY posthorn_changes, 'x -1 255 0 0 0 -1 0'`, `NOTIFY posthorn_changes, 'x NaN 0x1 ٣ 0 0 0 1'`,
	`SELECT pg_notify('posthorn_outbox', n::text) FROM generate_series(1, 5000) n`,
	`SELECT pg_notify('posthorn_changes_' || to_hex(n), 'x %d 0 0 0 0 0 1') FROM generate_series(1, 5000) n`,
	`SELECT pg_listening_channels()`, `SELECT pg_notification_queue_usage()`,
	// What is found first.
	`SET search_path = pg_temp, public, posthorn`, `SET search_path = posthorn_outbox, posthorn`, `RESET search_path`,
	`CREATE TEMP TABLE IF NOT EXISTS tenants (id bigint, name text, suspended_at bigint, deleted_at bigint)`, `INSERT INTO tenants VALUES (1, 'xpath', 0, 0), (2, 'globex', 0, 0)`,
	`CREATE TEMP TABLE IF NOT EXISTS outbox_grants (role text, tenant bigint)`, `INSERT INTO outbox_grants VALUES (session_user, 0)`,
	`CREATE TEMP TABLE IF NOT EXISTS meta (key text, value bigint)`, `CREATE TEMP TABLE IF NOT EXISTS outbox (id bigint)`,
	`CREATE OR REPLACE FUNCTION pg_temp.isfinite(timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT true'`,
	`CREATE OR REPLACE FUNCTION pg_temp.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT 1'`,
	`CREATE OR REPLACE FUNCTION pg_temp.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'`, `CREATE OPERATOR pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.no)`,
	`CREATE TYPE pg_temp.text AS ENUM ('a')`, `DISCARD ALL`,
	`SET SESSION AUTHORIZATION postgres`, `SET ROLE postgres`, `SET session_replication_role = replica`, `ALTER ROLE postgres NOLOGIN`, `ALTER DATABASE postgres CONNECTION LIMIT 0`,
	`SELECT pg_terminate_backend(pid), pg_cancel_backend(pid) FROM pg_stat_activity`, `SELECT query FROM pg_stat_activity`, `SELECT pg_reload_conf()`, `SELECT pg_switch_wal()`,
	`BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(); SELECT pg_sleep(0.2)`, `BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT pg_sleep(0.2)`,
	`SELECT lo_create(0)`, `SELECT pg_export_snapshot()`,
	// The functions, with every odd argument.
	`SELECT posthorn.publish('xpath', 'cases.updated', '{}', 'm-' || gen_random_uuid())`, `SELECT posthorn.publish_granted('globex', 'cases.updated', '{}', NULL, NULL)`,
	`SELECT posthorn.grant_publish(session_user)`, `SELECT posthorn.revoke_publish('shop')`, `SELECT posthorn.make_partition('events', 'events_20300101', 0, 9223372036854775807)`,
	`SELECT posthorn.drop_partition('events_20300101')`, `SELECT posthorn_outbox.publish()`,
	`SELECT posthorn_outbox.publish(NULL, NULL, NULL, NULL, NULL)`, `SELECT posthorn_outbox.publish('', '', '{}')`,
	`SELECT posthorn_outbox.publish('globex', 'cases.updated', '{}')`, `SELECT posthorn_outbox.publish('XPATH', 'cases.updated', '{}')`,
	`SELECT posthorn_outbox.publish('xpath'' OR true --', 'cases.updated', '{}')`, `SELECT posthorn_outbox.publish(repeat('x', 5000000), 'cases.updated', '{}')`,
	`SELECT posthorn_outbox.publish('xpath', repeat('a.', 2000000), '{}')`, `SELECT posthorn_outbox.publish('xpath', 'cases.*', '{}')`,
	`SELECT posthorn_outbox.publish('xpath', 'webhooks.ping', '{}')`, `SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}')`,
	`SELECT posthorn_outbox.publish('xpath', E'cases.updated\n', '{}')`, `SELECT posthorn_outbox.publish(E'xpath\u0000', 'cases.updated', '{}')`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.updated', 'null')`, `SELECT posthorn_outbox.publish('xpath', 'cases.updated', '-1e999999')`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.updated', '{"a":"\u0000"}', 'm-' || gen_random_uuid())`, `SELECT posthorn_outbox.publish('xpath', 'cases.updated', '{"a":"\ud800"}', 'm-' || gen_random_uuid())`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.updated', '{"a":1,"a":2}', 'm-' || gen_random_uuid())`, `SELECT posthorn_outbox.publish('xpath', 'cases.updated', ('{"a":' || repeat('[', 3000) || repeat(']', 3000) || '}')::json, 'm-' || gen_random_uuid())`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.updated', ('{"a":"' || repeat('x', 3000000) || '"}')::json)`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.updated', '{"a":1e400,"b":-0,"c":123456789012345678901234567890}', 'm-' || gen_random_uuid(), '4713-01-01 BC')`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', repeat('x', 3000000))`, `SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', '../../etc', '-infinity')`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', 'evt_1')`, `SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', NULL, 'infinity')`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', NULL, '4713-01-01 BC')`, `SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', NULL, '294276-12-31')`,
	`BEGIN; SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}') FROM generate_series(1, 20); SELECT pg_sleep(0.2)`,
	`SELECT posthorn_outbox.publish('xpath', 'cases.nonsense', '{}', 'same') FROM generate_series(1, 20)`,
}

// hostileAfterRevoke are for logins without TEMPORARY: where PUBLIC has it, as PostgreSQL
// gives it, they hold the server's own catalogue.
var hostileAfterRevoke = []string{
	`BEGIN; SELECT 1 FROM pg_class LIMIT 1; SELECT pg_sleep(0.2)`,
	`CREATE TEMP TABLE q (a bigint) PARTITION BY RANGE (a)`, `ALTER TABLE q ATTACH PARTITION pg_catalog.pg_class FOR VALUES FROM (1) TO (2)`,
	`ALTER TABLE q ATTACH PARTITION pg_catalog.pg_attribute FOR VALUES FROM (1) TO (2)`,
}

// intruders are sessions that run a list of statements again and again.
type intruders struct {
	ran, allowed atomic.Int64
	wg           sync.WaitGroup
}

// intrude has sessions of a role run statements in an order of their own. What of it is
// published has ids that receivers know.
func (i *intruders) intrude(ctx context.Context, w *world, role string, sessions int, statements []string) {
	address := strings.Replace(w.db.URL(), "user=postgres", "user="+role, 1)
	for n := range sessions {
		random := rand.New(rand.NewPCG(w.seed, uint64(n)))
		i.wg.Go(func() {
			var c *pgx.Conn
			for ctx.Err() == nil {
				if c == nil || c.IsClosed() {
					var err error
					if c, err = pgx.Connect(ctx, address); err != nil {
						continue
					}
				}
				for _, at := range random.Perm(len(statements)) {
					query := strings.ReplaceAll(statements[at], "%d", fmt.Sprint(1+i.ran.Load()/10))
					_, err := c.Exec(ctx, "SET statement_timeout = '2s'; "+query, pgx.QueryExecModeSimpleProtocol)
					_, _ = c.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol)
					if i.ran.Add(1); err == nil {
						i.allowed.Add(1)
					}
					if ctx.Err() != nil || c.IsClosed() {
						break
					}
				}
			}
			if c != nil {
				c.Close(context.WithoutCancel(ctx))
			}
		})
	}
}

// resident is how much memory a node holds, in MiB.
func resident(t *testing.T, n *proof.Server) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		t.Skipf("how much memory a process holds cannot be told here: %v", err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// TestWhoeverMayLogInIsNotNoticed has logins that are to do nothing, or to publish for
// one tenant, run all that could harm, under load: publishing, the start of a node,
// retention, caches and memory notice nothing.
func TestWhoeverMayLogInIsNotNoticed(t *testing.T) {
	drivesOnly(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 2)
	t.Logf("-seed %d", w.seed)
	admin, exec := owning(ctx, t, w.db.URL())
	exec(documented(t, "sql", "REVOKE CONNECT, TEMPORARY ON DATABASE posthorn FROM PUBLIC;"))
	exec(`CREATE ROLE stranger LOGIN; GRANT CONNECT ON DATABASE postgres TO stranger; CREATE ROLE guest LOGIN; GRANT CONNECT, TEMPORARY ON DATABASE postgres TO guest`)
	exec(strings.ReplaceAll(documented(t, "sql", "CREATE ROLE shop LOGIN;"), "'acme'", "'xpath'"))

	text, err := w.nodes[0].Command(ctx, "token", "create", "--platform", "--scope", "admin", "--scope", "webhooks:read", "--scope", "webhooks:write")
	if err != nil {
		t.Fatal(err)
	}
	platform := proof.API{URL: w.nodes[0].URL(), Token: strings.TrimSpace(text)}

	p := w.startLoad(ctx, 60)
	w.accepting(p, 200)
	memory := []int{resident(t, w.nodes[0]), resident(t, w.nodes[1])}
	before := w.latency(0)
	first := p.pace.Numbered()

	var i intruders
	attack, stop := context.WithCancel(ctx)
	defer stop()
	all := append(slices.Clone(hostile), hostileAfterRevoke...)
	i.intrude(attack, w, "stranger", 3, all)
	i.intrude(attack, w, "guest", 3, hostile)
	i.intrude(attack, w, "shop", 3, all)
	under := func(what string, limit time.Duration, is func() (bool, error)) {
		t.Helper()
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := proof.Until(ctx, 20*time.Millisecond, is); err != nil {
			t.Errorf("not within %s: %s: %v", limit, what, err)
			return
		}
		t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
	}
	under("the list was run three times by each", 2*time.Minute, func() (bool, error) { return i.ran.Load() > int64(3*9*len(all)), nil })

	// A token that is revoked on one node is refused on the other.
	for range 5 {
		var made struct {
			ID    string `json:"id"`
			Token string `json:"token"`
		}
		if err := platform.Call(ctx, http.MethodPost, "/tokens", []byte(`{"tenant":"xpath","name":"short"}`), &made); err != nil {
			t.Fatal(err)
		}
		use := func() (refused bool, err error) {
			err = proof.API{URL: w.nodes[1].URL(), Token: made.Token}.Call(ctx, http.MethodGet, "/endpoints", nil, nil)
			if s, ok := err.(*proof.Status); ok && s.Code == http.StatusUnauthorized {
				return true, nil
			}
			return false, err
		}
		if refused, err := use(); refused || err != nil {
			t.Fatalf("a new token is refused: %v, %v", refused, err)
		}
		if err := platform.Call(ctx, http.MethodDelete, "/tokens/"+made.ID, nil, nil); err != nil {
			t.Fatal(err)
		}
		under("a revoked token is refused", 5*time.Second, use) // within a second, on a machine that has the time
	}

	// A node that starts publishes.
	w.join(w.db.URL())
	under("a node that starts publishes", 30*time.Second, func() (bool, error) {
		err := w.patient(2, 0).Call(ctx, http.MethodPost, "/events", fmt.Appendf(nil, `{"id":"%sfirst","type":"assignments.created","data":{}}`, movesID), nil)
		return err == nil, err
	})

	// A deleted tenant's rows go.
	token, err := w.nodes[0].Token(ctx, "gone", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	var batch strings.Builder
	for range 500 {
		batch.WriteString(`,{"type":"cases.updated","data":{}}`)
	}
	if err := (proof.API{URL: w.nodes[1].URL(), Token: token}).Call(ctx, http.MethodPost, "/events/batch", []byte(`{"events":[`+batch.String()[1:]+`]}`), nil); err != nil {
		t.Fatal(err)
	}
	if err := platform.Call(ctx, http.MethodDelete, "/tenants/gone", nil, nil); err != nil {
		t.Fatal(err)
	}
	under("a deleted tenant's rows are gone", 30*time.Second, func() (done bool, err error) {
		return done, admin.QueryRow(ctx, `SELECT NOT EXISTS (SELECT 1 FROM posthorn.tenants WHERE name = 'gone') AND (SELECT count(*) FROM posthorn.events e
			WHERE NOT EXISTS (SELECT 1 FROM posthorn.tenants t WHERE t.id = e.tenant)) = 0`).Scan(&done)
	})
	during := w.latency(first)
	stop()
	i.wg.Wait()
	if err := p.finish(); err != nil {
		t.Error(err)
	}
	w.settle(30 * time.Second)
	accepted := w.judge(p).accepted
	if n := p.refused.Load(); n > 0 {
		t.Errorf("%d publishes were refused", n)
	}
	if n := p.broken.Load(); n > int64(accepted/10) { // of a slow machine it may be some
		t.Errorf("%d publishes had no answer within a second, and %d were accepted", n, accepted)
	}
	for n, had := range memory {
		if has := resident(t, w.nodes[n]); has > had+96 {
			t.Errorf("node %d held %d MiB before and %d now", n, had, has)
		} else {
			t.Logf("node %d held %d MiB before and %d now", n, had, has)
		}
	}
	var others int
	if err := admin.QueryRow(ctx, `SELECT count(*) FROM posthorn.outbox o JOIN posthorn.tenants t ON t.id = o.tenant WHERE t.name <> 'xpath'`).Scan(&others); err != nil || others > 0 {
		t.Errorf("%d rows of other tenants are in the outbox, %v", others, err)
	}
	t.Logf("%d statements, of which %d were allowed; publishing took %s before and %s meanwhile (median)", i.ran.Load(), i.allowed.Load(), before, during)
	tally.Count(t, "hostile statements of logins without rights change nothing", int(i.ran.Load()))
}

// latency is the median of what publishes from one on took.
func (w *world) latency(first int) time.Duration {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	var all []time.Duration
	for _, e := range w.ledger.events {
		if e.n >= first && !e.accepted.IsZero() {
			all = append(all, e.accepted.Sub(e.began))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
