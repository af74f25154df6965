package postgres_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/storetest"
	"github.com/posthorn/posthorn/internal/tally"
)

// login is a connection of a role that may log in and has no right on anything.
func login(t testing.TB, url, role string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	for _, query := range []string{
		fmt.Sprintf(`DO $$ BEGIN CREATE ROLE %s LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$`, role),
		`SET SESSION AUTHORIZATION ` + role,
	} {
		if _, err := c.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func must(t testing.TB, c *pgx.Conn, query string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// holdAdvisory takes the advisory locks that were Posthorn's, for the session.
func holdAdvisory(t testing.TB, url string) {
	t.Helper()
	c := login(t, url, "posthorn_test_stranger")
	for n := int64(1); n <= 16; n++ {
		must(t, c, `SELECT pg_advisory_lock($1)`, 0x706f7374_00000000+n)
	}
}

// TestAdvisoryLocksOfAStrangerStopNothing: migrations, new weeks, the sweep and the
// dropping of old weeks wait for rows of our own tables alone.
func TestAdvisoryLocksOfAStrangerStopNothing(t *testing.T) {
	t.Parallel()
	t.Run("an empty database is migrated", func(t *testing.T) {
		url := pgtest.Database(t, "")
		holdAdvisory(t, url)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, _, err := postgres.Migrate(ctx, url); err != nil {
			t.Error(err)
		}
	})
	t.Run("nodes publish, sweep and drop", func(t *testing.T) {
		h := newHistory(t)
		first := tables(t, h.url)
		holdAdvisory(t, h.url)
		h.publish("", `{"n":1}`, h.e) // makes its week
		oldest := strings.TrimPrefix(tables(t, h.url), first)
		oldest = strings.Fields(oldest)[0]
		for range 500 {
			h.publish("", `{"n":1}`, h.e)
		}
		if err := h.s.DeleteTenant(t.Context(), store.Change{Actor: "test", At: h.now}, h.e.Tenant); err != nil {
			t.Fatal(err)
		}
		keep := store.Retention{Events: 30 * day}
		sweep := func() { storetest.Sweep(t, h.s, h.now, keep) }
		eventually(t, "nothing of the deleted tenant is left", func() bool {
			sweep()
			return string(raw(h.url).Bytes(t, `SELECT (count(*) = 0)::text::bytea FROM events`)) == "true"
		})
		if u, err := h.s.Upkeep(t.Context()); err != nil || u.Nodes != 1 || u.Swept > time.Minute || u.Ahead < 7*day {
			t.Errorf("the upkeep is %+v, %v", u, err)
		}
		h.now = h.now.Add(45 * day)
		eventually(t, oldest+" is dropped", func() bool {
			h.now = h.now.Add(2 * time.Hour)
			sweep()
			return !strings.Contains(tables(t, h.url), oldest)
		})
	})
	tally.Count(t, "nobody without a right on our tables can hold a lock of ours", 5)
}

// TestUpkeepThatNobodyDoesIsTold: the figures on which nodes and doctor warn.
func TestUpkeepThatNobodyDoesIsTold(t *testing.T) {
	t.Parallel()
	s := open(t, postgres.Options{})
	url := s.URL()
	sweep := func() {
		t.Helper()
		if _, err := s.Sweep(t.Context(), time.Now(), store.Retention{}); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	// Whoever sweeps hangs, and the last that did ended an hour ago.
	pgtest.Exec(t, url, `UPDATE posthorn.locks SET done_at = clock_timestamp() - interval '1 hour'`)
	holder, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	must(t, holder, `BEGIN; SELECT 1 FROM posthorn.locks WHERE purpose = 'sweep' FOR UPDATE`)
	sweep()
	if u, err := s.Upkeep(t.Context()); err != nil || u.Swept < time.Hour || u.Ahead < 7*day {
		t.Errorf("the upkeep is %+v, %v", u, err)
	}
	must(t, holder, `ROLLBACK`)
	sweep()
	if u, err := s.Upkeep(t.Context()); err != nil || u.Swept > time.Minute {
		t.Errorf("the upkeep is %+v, %v", u, err)
	}
}

// told counts what a store's watchers are told.
type told struct{ all, tokens, endpoints, notices atomic.Int64 }

func watch(s *postgres.Store) *told {
	var w told
	s.Watch(func(n store.Notice) {
		w.notices.Add(1)
		switch n.Kind {
		case store.NoticeAll:
			w.all.Add(1)
		case store.NoticeEndpoint:
			w.endpoints.Add(1)
		case store.NoticeToken:
			w.tokens.Add(1)
		}
	})
	return &w
}

// touch changes the endpoint.
func (c *cluster) touch(s *postgres.Store) {
	c.Helper()
	_, err := s.UpdateEndpoint(c.Context(), store.Change{Actor: "test", At: time.Now()}, c.tenant.ID, c.to.Ref, 0, func(e *posthorn.Endpoint) error {
		e.Description += "."
		return nil
	})
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) token(s *postgres.Store) string {
	c.Helper()
	ref := posthorn.NewRef(posthorn.TokenPrefix, time.Now())
	_, err := s.CreateToken(c.Context(), store.Change{Actor: "test", At: time.Now()}, store.Token{
		Ref: ref, Tenant: c.tenant.ID, Name: "t", Hash: sha256.Sum256([]byte(ref)), Scopes: []string{"webhooks:read"}, CreatedAt: time.Now()})
	if err != nil {
		c.Fatal(err)
	}
	return ref
}

// TestForgedNumbersHideNothing: somebody notifies with the numbers that come next, and
// the connection on which a node hears is lost with the true message. Even who knows
// the channel hides nothing by it.
func TestForgedNumbersHideNothing(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"by a stranger", "by who knows the channel"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, database(t))
			w := ill.New(t, socket(t))
			a, b := c.nodeFor(c.url, 30*time.Second), c.nodeFor(w.URL(pgtest.Name(c.url)), 30*time.Second)
			forger, channel := login(t, c.url, "posthorn_test_stranger"), `'posthorn_changes'`
			if how != "by a stranger" {
				must(t, forger, `RESET SESSION AUTHORIZATION`)
				channel = known
			}
			for range 3 {
				ref := c.token(a)
				told := watch(b)
				must(t, forger, `SELECT pg_notify(`+channel+`, 'forger ' || $1::bigint + n || ' 5 0 0 0 0 1') FROM generate_series(1, 500) n`, changes(t, c.url))
				c.touch(a)
				c.eventually("the node has heard what was told", func() bool { return told.endpoints.Load() > 0 })
				before := told.all.Load() + told.tokens.Load()
				w.Set(ill.Broken)
				if err := a.DeleteToken(t.Context(), store.Change{Actor: "test", At: time.Now()}, -1, ref); err != nil {
					t.Fatal(err)
				}
				w.Set(ill.Open)
				c.eventually("the node can write again", func() bool { return b.Ping(t.Context()) == nil })
				c.eventually("the node is told of the revoked token", func() bool { return told.all.Load()+told.tokens.Load() > before })
			}
		})
	}
	tally.Count(t, "forged notices hide no change", 6)
}

// known is the channel, for who may read our tables.
const known = `(SELECT 'posthorn_changes_' || to_hex(value) FROM posthorn.meta WHERE key = 'channel')`

// changes is the number of the last change.
func changes(t testing.TB, url string) (number int64) {
	t.Helper()
	text := raw(url).Bytes(t, `SELECT value::text::bytea FROM meta WHERE key = 'changes'`)
	if _, err := fmt.Sscan(string(text), &number); err != nil {
		t.Fatal(err)
	}
	return number
}

// TestAFloodOfNoticesTakesNoMemory: numbers that were never given out, and notices of
// everything, by who does not know the channel and by who does.
func TestAFloodOfNoticesTakesNoMemory(t *testing.T) {
	const numbers = 200_000
	c := newCluster(t, database(t))
	s := c.node(c.url)
	told := watch(s)
	stranger := login(t, c.url, "posthorn_test_stranger")
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	before := heap()
	began := time.Now()
	next := changes(t, c.url) + 10 // the one that comes next is not among them: nothing of it can be forgotten
	flood := func(db *pgx.Conn, channel string, kind int) {
		t.Helper()
		must(t, db, `SELECT pg_notify(`+channel+`, 'forger ' || $1::bigint + n || ' `+fmt.Sprint(kind)+` 1 1 1 0 1') FROM generate_series(1, $2::int) n`, next, numbers)
		next += numbers
	}
	owner, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	for _, kind := range []int{int(store.NoticeEndpoint), int(store.NoticeAll)} {
		flood(stranger, `'posthorn_changes'`, kind)
		flood(owner, known, kind)
	}
	// What is told after the flood is heard after it.
	c.eventually("the flood was heard", func() bool {
		was := told.tokens.Load()
		notify(t, c.url, fmt.Sprintf("other 0 %d 0 0 0 0 1", store.NoticeToken))
		<-time.After(50 * time.Millisecond)
		return told.tokens.Load() > was
	})
	looks := int64(time.Since(began)/(250*time.Millisecond)) + 2
	t.Logf("%d forged notices: %.1f MB more, %d passed on in %d looks", 4*numbers, heap()-before, told.notices.Load(), looks)
	if more := heap() - before; more > 8 {
		t.Errorf("%.1f MB more are held", more)
	}
	if n := told.notices.Load(); n > looks*1100 {
		t.Errorf("%d notices were passed on in %d looks", n, looks)
	}
	tally.Count(t, "a flood of notices takes no memory, and few are passed on", 4*numbers)
}
