package cluster

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// documented returns the block of docs/postgres.md that begins with a line, for the
// database postgres.
func documented(t *testing.T, language, first string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(b), "```"+language+"\n"+first)
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("docs/postgres.md has no %s block that begins %q", language, first)
	}
	return strings.ReplaceAll(first+block, "ON DATABASE posthorn ", "ON DATABASE postgres ")
}

// TestANodeNeedsNoMoreThanItIsGranted runs nodes under the role that the docs tell
// operators to make, which owns nothing, and the docs' examples of publishing.
func TestANodeNeedsNoMoreThanItIsGranted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	db := pgtest.ThrowAway(t)
	owner := db.URL()
	migrate := exec.CommandContext(ctx, binary, "migrate", "--store", owner)
	migrate.Env = proof.Environ()
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	admin, exec := owning(ctx, t, owner)
	exec(documented(t, "sql", "REVOKE CONNECT, TEMPORARY ON DATABASE posthorn FROM PUBLIC;"))
	exec(documented(t, "sql", "CREATE ROLE posthorn_node LOGIN;"))
	w := newWorldAt(ctx, t, db, strings.Replace(owner, "user=postgres", "user=posthorn_node", 1), 2)
	p := w.startLoad(ctx, 100)
	w.accepting(p, 100)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.settle(20 * time.Second)
	w.judge(p)
	for _, forbidden := range []string{`DROP TABLE posthorn.outbox`, `ALTER TABLE posthorn.due ADD COLUMN a int`, `CREATE TABLE posthorn.a (a int)`} {
		if _, err := admin.Exec(ctx, `SET ROLE posthorn_node; `+forbidden); err == nil {
			t.Errorf("the role may %s", forbidden)
		}
		exec(`RESET ROLE`)
	}
	// The examples name the tenant acme, which gets no endpoint: they publish.
	if _, err := w.nodes[0].Command(ctx, "tenant", "create", "acme"); err != nil {
		t.Fatal(err)
	}
	exec(documented(t, "sql", "CREATE ROLE shop LOGIN;"))
	exec(`CREATE TABLE orders (n int PRIMARY KEY); GRANT INSERT ON orders TO shop; SET ROLE shop`)
	exec(documented(t, "sql", "BEGIN;\nINSERT INTO orders"))
	exec(`RESET ROLE`)
	published := 1
	if python(ctx) {
		cmd := script(ctx, documented(t, "python", "import json, os, psycopg"))
		cmd.Env = append(os.Environ(), "DATABASE_URL=host="+db.Dir()+" user=shop dbname=postgres")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the Python example: %v\n%s", err, out)
		}
		published++
	}
	err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		var n int
		err := admin.QueryRow(ctx, `SELECT count(*) FROM posthorn.events e JOIN posthorn.tenants t ON t.id = e.tenant WHERE t.name = 'acme'`).Scan(&n)
		return n == published, err
	})
	if err != nil {
		t.Errorf("the examples' events were not published: %v", err)
		w.explain()
	}
}

// owning connects as the database's owner. exec fails the test.
func owning(ctx context.Context, t *testing.T, address string) (admin *pgx.Conn, exec func(query string)) {
	t.Helper()
	admin, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.WithoutCancel(ctx)) })
	return admin, func(query string) {
		t.Helper()
		if _, err := admin.Exec(ctx, query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

// python reports whether the example in Python can run.
func python(ctx context.Context) bool { return script(ctx, "import psycopg").Run() == nil }

func script(ctx context.Context, text string) *exec.Cmd {
	program := "python3"
	if exists("/usr/bin/python3") { // the one that packages are for
		program = "/usr/bin/python3"
	}
	return exec.CommandContext(ctx, program, "-c", text)
}
