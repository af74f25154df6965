package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testConn(t *testing.T) *conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := openConn(path, "journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.exec(`CREATE TABLE x (id INTEGER PRIMARY KEY, n, s, b) STRICT`, nil); err == nil {
		t.Fatal("a strict table without types was made")
	}
	if err := c.exec(`CREATE TABLE x (id INTEGER PRIMARY KEY, n, s, b)`, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// What is bound comes back as it was, whatever its length and whatever ran before.
func TestConnKeepsValues(t *testing.T) {
	type text string
	type bits []byte
	c := testConn(t)
	const insert, read = `INSERT INTO x (n, s, b) VALUES (?, ?, ?)`, `SELECT n, s, b, n, s FROM x WHERE id = ?`
	for _, want := range []struct {
		n int64
		s string
		b []byte
	}{
		{0, "", nil}, {-1, "", []byte{}}, {1 << 62, "a\x00b", []byte{0}}, {1, "ünïcode", []byte("text")},
		{1, strings.Repeat("x", 300_000), bytes.Repeat([]byte{1, 0}, 300_000)}, {1, "x", []byte{2}},
	} {
		if err := c.exec(insert, []any{want.n, want.s, want.b}); err != nil {
			t.Fatal(err)
		}
		if n := c.changes(); n != 1 {
			t.Errorf("%d rows were inserted", n)
		}
		var n int64
		var s string
		var b bits
		var again int64
		var named text
		found, err := c.row(read, []any{c.lastID()}, &n, &s, &b, &again, &named)
		if err != nil || !found {
			t.Fatal(found, err)
		}
		if n != want.n || s != want.s || string(named) != want.s || !bytes.Equal(b, want.b) || (b == nil) != (want.b == nil) {
			t.Errorf("%d bytes of text and %d of data came back as %d, %q and %d", len(want.s), len(want.b), n, s[:min(len(s), 10)], len(b))
		}
	}
	if found, err := c.row(read, []any{int64(0)}, new(int64), new(string), new(bits), new(int64), new(text)); found || err != nil {
		t.Errorf("no row: %t, %v", found, err)
	}
}

// A statement may run while it is read, and other statements, too.
func TestConnReadsWithinARead(t *testing.T) {
	c := testConn(t)
	for n := range 3 {
		if err := c.exec(`INSERT INTO x (n) VALUES (?)`, []any{n}); err != nil {
			t.Fatal(err)
		}
	}
	const query = `SELECT n FROM x WHERE n < ? ORDER BY n`
	var got []int
	err := c.rows(query, []any{3}, func(outer scanner) error {
		var a int
		if err := outer.Scan(&a); err != nil {
			return err
		}
		return c.rows(query, []any{a}, func(inner scanner) error {
			var b int
			err := inner.Scan(&b)
			got = append(got, 10*a+b)
			return err
		})
	})
	if want := []int{10, 20, 21}; err != nil || len(got) != 3 || got[0] != want[0] || got[2] != want[2] {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	stop := errors.New("enough")
	if err := c.rows(query, []any{3}, func(scanner) error { return stop }); err != stop {
		t.Errorf("a read that was stopped: %v", err)
	}
	if err := c.exec(`DROP TABLE x`, nil); err != nil { // nobody reads it any more
		t.Error(err)
	}
}

func TestConnSaysWhatIsWrong(t *testing.T) {
	c := testConn(t)
	if err := c.exec(`INSERT INTO x (id, n, s) VALUES (1, 300, NULL)`, nil); err != nil {
		t.Fatal(err)
	}
	err := c.exec(`INSERT INTO x (id) VALUES (?)`, []any{1})
	e, ok := errors.AsType[*connError](err)
	if !ok || e.Code() != 1555 || !strings.Contains(err.Error(), "UNIQUE constraint failed: x.id") { // SQLITE_CONSTRAINT_PRIMARYKEY
		t.Errorf("a row twice: %v", err)
	}
	for name, dest := range map[string]any{"too small": new(uint8), "NULL": new(int), "not a flag": new(bool)} {
		query := `SELECT n FROM x`
		if name == "NULL" {
			query = `SELECT s FROM x`
		}
		if _, err := c.row(query, nil, dest); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var maybe sql.NullString
	if _, err := c.row(`SELECT s FROM x`, nil, &maybe); err != nil || maybe.Valid {
		t.Errorf("NULL: %+v, %v", maybe, err)
	}
	for query, args := range map[string][]any{
		`SELECT 1; SELECT 2`: nil, ``: nil, `nonsense`: nil, `SELECT ?`: {1, 2}, `SELECT ? + 1`: {struct{}{}},
	} {
		if err := c.exec(query, args); err == nil {
			t.Errorf("%q with %v: no error", query, args)
		}
	}
	if _, err := openConn(filepath.Join(t.TempDir(), "none.db")); err == nil || !strings.Contains(err.Error(), "unable to open") {
		t.Errorf("a missing file: %v", err)
	}
}
