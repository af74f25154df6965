package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestAnOlderNodeGoesOnBesideANewerSchema: a migration only adds, so that nodes that
// run are not disturbed by it. One of them that starts anew refuses, as do the
// commands of an older version, and changes nothing.
func TestAnOlderNodeGoesOnBesideANewerSchema(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.nodeFor(c.url, 10*time.Second)
	c.publish(s)
	for _, query := range []string{
		`ALTER TABLE posthorn.due ADD COLUMN hue text NOT NULL DEFAULT 'red'`,
		`ALTER TABLE posthorn.deliveries ADD COLUMN hue text NOT NULL DEFAULT 'red'`,
		`ALTER TABLE posthorn.events ADD COLUMN hue text`,
		`CREATE TABLE posthorn.hues (hue text)`,
		`INSERT INTO posthorn.goose_db_version (version_id, is_applied) SELECT max(version_id) + 1, true FROM posthorn.goose_db_version`,
	} {
		pgtest.Exec(t, c.url, query)
	}
	pgtest.Exec(t, c.url, `DELETE FROM posthorn.meta WHERE key = 'serves_from'`)
	for range 3 {
		if rec, err := record(s, c.result(c.publish(s), posthorn.ClassOK)); err != nil || rec.Lost {
			t.Fatalf("the node that runs records %+v, %v", rec, err)
		}
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("the node that runs is not ready: %v", err)
	}
	for _, role := range []postgres.Role{postgres.Serve, postgres.Admin} {
		_, err := postgres.Open(t.Context(), postgres.Options{URL: c.url, Role: role})
		if newer, ok := errors.AsType[*postgres.NewerError](err); !ok || newer.Database != newer.Binary+1 {
			t.Errorf("an older posthorn opens a newer schema with %v", err)
		}
	}
	if _, _, err := postgres.Migrate(t.Context(), c.url); err == nil {
		t.Error("an older posthorn migrates a newer schema")
	}
}

// An index that came later is made where it is missing, and no version of the schema
// keeps older binaries from serving.
func TestAnIndexThatCameLaterIsMade(t *testing.T) {
	t.Parallel()
	url := database(t)
	pgtest.Exec(t, url, `DROP INDEX posthorn.due_by_hand`)
	s := open(t, postgres.Options{URL: url})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, `DROP INDEX posthorn.due_by_hand`) // fails if it is not there
}
