package postgres_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestNoticesOfANewerNodeAreHeard: a kind that is not known may be about anything,
// fields behind the known ones are skipped, and what is no notice is none.
func TestNoticesOfANewerNodeAreHeard(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.node(c.url)
	var mu sync.Mutex
	var heard []store.Notice
	s.Watch(func(n store.Notice) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, n)
	})
	first := store.Notice{Kind: store.NoticeEndpoint, Tenant: 1, Endpoint: 1}
	last := store.Notice{Kind: store.NoticeEndpoint, Tenant: 1, Endpoint: 2}
	said := func(n store.Notice) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(heard, n)
	}
	tell := func(text string) { notify(t, c.url, text) }
	tellOf := func(n store.Notice) { tell(fmt.Sprintf("other 0 %d %d %d 0 0 1", n.Kind, n.Tenant, n.Endpoint)) }
	c.eventually("the node listens", func() bool { tellOf(first); return said(first) })
	for _, text := range []string{"", "hello", "other 0 seven 1 2 3 0 1", "other 0 6 1 2"} { // no notices
		tell(text)
	}
	all := store.Notice{Kind: store.NoticeAll}
	alls := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, h := range heard {
			if h == all {
				n++
			}
		}
		return n
	}
	for _, text := range []string{"other 0 99 5 6 7 0 1", "other 0 -1 5 6 7 0 1", "other 0 256 5 6 7 0 1"} { // kinds that are not known
		before := alls()
		tell(text)
		c.eventually("anything may have changed", func() bool { return alls() > before })
	}
	tell(fmt.Sprintf("other 0 %d 5 6 7 0 1 8 nine {\"ten\":11}", store.NoticeErased))
	tellOf(last)
	c.eventually("all was heard", func() bool { return said(last) })
	mu.Lock()
	defer mu.Unlock()
	want := []store.Notice{{Kind: store.NoticeErased, Tenant: 5, Endpoint: 6, Event: 7}, last}
	heard = slices.DeleteFunc(heard, func(n store.Notice) bool {
		return n == first || n == all || n.Kind == store.NoticeCanceled // the last two go together when many are told at once
	})
	if !slices.Equal(heard, want) {
		t.Errorf("heard %+v\nwant %+v", heard, want)
	}
}

// TestAnOlderBinaryServesANewerSchemaThatSaysSo: the migration that made it newer
// wrote which versions may.
func TestAnOlderBinaryServesANewerSchemaThatSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	for _, query := range []string{
		`ALTER TABLE posthorn.due ADD COLUMN hue text NOT NULL DEFAULT 'red'`,
		`INSERT INTO posthorn.goose_db_version (version_id, is_applied) SELECT max(version_id) + n, true FROM posthorn.goose_db_version, generate_series(1, 2) n GROUP BY n`,
	} {
		pgtest.Exec(t, c.url, query)
	}
	_, binary, err := postgres.Migrate(t.Context(), database(t))
	if err != nil {
		t.Fatal(err)
	}
	servesFrom := func(version int64) {
		pgtest.Exec(t, c.url, `INSERT INTO posthorn.meta (key, value) VALUES ('serves_from', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, version)
	}
	refused := func() {
		t.Helper()
		for _, role := range []postgres.Role{postgres.Serve, postgres.Admin} {
			_, err := postgres.Open(t.Context(), postgres.Options{URL: c.url, Role: role})
			if newer, ok := errors.AsType[*postgres.NewerError](err); !ok || newer.Database != binary+2 || newer.Binary != binary {
				t.Errorf("opened with %v", err)
			}
		}
		if _, _, err := postgres.Migrate(t.Context(), c.url); err == nil {
			t.Error("migrated")
		}
	}
	pgtest.Exec(t, c.url, `DELETE FROM posthorn.meta WHERE key = 'serves_from'`)
	refused()
	servesFrom(binary + 1)
	refused()
	servesFrom(binary)
	if from, to, err := postgres.Migrate(t.Context(), c.url); err != nil || from != binary+2 || to != from {
		t.Errorf("an older posthorn migrates from %d to %d, %v", from, to, err)
	}
	open(t, postgres.Options{URL: c.url, Role: postgres.Admin})
	s := c.nodeFor(c.url, 10*time.Second)
	for range 3 {
		if rec, err := record(s, c.result(c.publish(s), posthorn.ClassOK)); err != nil || rec.Lost {
			t.Fatalf("recorded %+v, %v", rec, err)
		}
	}
}

// TestACopyKeepsWhatItDoesNotKnow: what a newer version wrote into the file; and of
// the database which versions may serve it, and how far ahead posthorn.publish lets
// events be delivered.
func TestACopyKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	path, _, _ := filledFile(t)
	url := database(t)
	pgtest.Exec(t, url, `INSERT INTO posthorn.meta (key, value) VALUES ('serves_from', 1) ON CONFLICT (key) DO NOTHING`)
	file, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	settings, log := `{"mood":1.50,"headers":["X-A"]}`, []byte{9, 3, 0xf0, 200, 0}
	if _, err := file.Exec(`UPDATE endpoints SET settings = ?`, settings); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Exec(`UPDATE deliveries SET log = ? WHERE log IS NOT NULL`, log); err != nil {
		t.Fatal(err)
	}
	if _, err := copyStore(t, path, url); err != nil {
		t.Fatal(err)
	}
	if got := string(raw(url).Bytes(t, `SELECT string_agg(key, ' ' ORDER BY key) FROM meta WHERE key IN ('serves_from', 'deliver_ahead')`)); got != "deliver_ahead serves_from" {
		t.Errorf("left are %q", got)
	}
	if got := string(raw(url).Bytes(t, `SELECT string_agg(DISTINCT settings, ' ') FROM endpoints`)); got != settings {
		t.Errorf("the settings became %s", got)
	}
	if got := raw(url).Bytes(t, `SELECT decode(string_agg(encode(log, 'hex'), ''), 'hex') FROM (SELECT DISTINCT log FROM deliveries WHERE log IS NOT NULL UNION SELECT DISTINCT log FROM due WHERE log IS NOT NULL) l`); !bytes.Equal(got, log) {
		t.Errorf("a log became %x", got)
	}
}
