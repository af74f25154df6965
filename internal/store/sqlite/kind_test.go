//go:build unix

package sqlite_test

import (
	"crypto/rand"
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// What is no database of Posthorn's is refused by one sentence that names the fault and
// what to do, whoever opens it; nothing is changed, and nothing is left beside it.
func TestWhatIsNoDatabaseIsNamed(t *testing.T) {
	noise := make([]byte, 8192)
	_, _ = rand.Read(noise)
	write := func(t *testing.T, path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		make   func(t *testing.T, dir string) (path string)
		says   []string
		beside bool // the lock's file is made: it is a file
	}{
		"a folder": {func(t *testing.T, dir string) string { return dir }, []string{"a folder", "posthorn.db"}, false},
		"a link to a folder": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "link")
			if err := os.Symlink(os.TempDir(), path); err != nil {
				t.Skip(err)
			}
			return path
		}, []string{"a folder"}, false},
		"a device": {func(t *testing.T, dir string) string { return os.DevNull }, []string{"a device"}, false},
		"a socket": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { ln.Close() })
			return path
		}, []string{"a socket"}, false},
		"below a file": {func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "file"), []byte("x"))
			return filepath.Join(dir, "file", "a.db")
		}, []string{"is a file, not a folder"}, false},
		"a name too long": {func(t *testing.T, dir string) string { return filepath.Join(dir, strings.Repeat("x", 300)) }, []string{"too long"}, false},
		"links in a circle": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "loop")
			if err := os.Symlink(path, path); err != nil {
				t.Skip(err)
			}
			return path
		}, []string{"links lead to each other"}, false},
		"an encrypted file": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "a.db")
			write(t, path, noise)
			return path
		}, []string{"not a SQLite database, or an encrypted one", "backup"}, true},
		"another program's": {func(t *testing.T, dir string) string {
			path := filepath.Join(dir, "a.db")
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(`CREATE TABLE letters (text)`); err != nil {
				t.Fatal(err)
			}
			return path
		}, []string{"tables that are not Posthorn's"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := tc.make(t, dir)
			before := listed(t, dir)
			for who, open := range map[string]func() error{
				"serve":   func() error { return tryOpen(t, path, sqlite.Serve) },
				"admin":   func() error { return tryOpen(t, path, sqlite.Admin) },
				"migrate": func() error { _, _, err := sqlite.Migrate(t.Context(), path); return err },
			} {
				err := open()
				if err == nil {
					t.Errorf("%s: it is opened", who)
					continue
				}
				for _, says := range append(tc.says, path) {
					if !strings.Contains(err.Error(), says) {
						t.Errorf("%s: no %q in %q", who, says, err)
					}
				}
			}
			if after := listed(t, dir); after != before && !tc.beside {
				t.Errorf("beside it are %s, before it were %s", after, before)
			}
		})
	}
}

func tryOpen(t *testing.T, path string, role sqlite.Role) error {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: role})
	if err == nil {
		s.Close()
	}
	return err
}

// listed are the names in a folder.
func listed(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
