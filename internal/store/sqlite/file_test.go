//go:build unix

package sqlite_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

func TestSecondServeIsRefusedAndNamesTheFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	open(t, sqlite.Options{Path: path})
	_, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	locked, ok := errors.AsType[*sqlite.LockedError](err)
	if !ok || locked.PID != os.Getpid() || locked.Path != path {
		t.Fatalf("got %v", err)
	}
	if _, _, err := sqlite.Migrate(t.Context(), path); !errors.As(err, &locked) {
		t.Errorf("Migrate beside Serve: %v", err)
	}
}

func TestLockIsFreeAfterClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	for range 2 {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error("closing twice:", err)
		}
	}
}

func TestOnlyTheOwnerCanReadTheFile(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, sqlite.Options{Path: path})
	if _, err := s.CreateTenant(t.Context(), store.Change{}, "acme"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if m := info.Mode().Perm(); m != 0o600 {
			t.Errorf("%q has mode %o", suffix, m)
		}
	}
}

func TestPathsWithOddNamesAreTakenLiterally(t *testing.T) {
	for _, name := range []string{"a b?c#d%41.db", "ü&_pragma=x.db"} {
		path := filepath.Join(t.TempDir(), name)
		open(t, sqlite.Options{Path: path})
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	t.Chdir(t.TempDir())
	open(t, sqlite.Options{Path: "relative.db"})
	if _, err := os.Stat("relative.db"); err != nil {
		t.Error(err)
	}
}

func TestNewerFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	open(t, sqlite.Options{Path: path}).Close()
	execute(t, path, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
	for name, open := range map[string]func() error{
		"serve": func() error { _, err := sqlite.Open(t.Context(), sqlite.Options{Path: path}); return err },
		"admin": func() error {
			_, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: sqlite.Admin})
			return err
		},
		"migrate": func() error { _, _, err := sqlite.Migrate(t.Context(), path); return err },
	} {
		newer, ok := errors.AsType[*sqlite.NewerError](open())
		if !ok || newer.File != 99 || newer.Binary < 1 || newer.Binary >= 99 {
			t.Errorf("%s: %v", name, newer)
		}
	}
}

func TestMigrateReportsVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	from, to, err := sqlite.Migrate(t.Context(), path)
	if err != nil || from != 0 || to < 1 {
		t.Errorf("%d to %d, %v", from, to, err)
	}
	again, still, err := sqlite.Migrate(t.Context(), path)
	if err != nil || again != to || still != to {
		t.Errorf("%d to %d, %v", again, still, err)
	}
	open(t, sqlite.Options{Path: path, Role: sqlite.Admin})
}

func TestDamagedFilesAreNamedAndKept(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.db")
	open(t, sqlite.Options{Path: good}).Close()
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	garbled := bytes.Clone(whole)
	for i := 100; i < len(garbled); i++ {
		garbled[i] ^= 0x5a
	}
	for name, content := range map[string][]byte{
		"text":    []byte("this is not a database at all, but a letter to my aunt\n"),
		"short":   whole[:10],
		"garbled": garbled,
		"cut":     whole[:len(whole)/2],
		// A whole database that lost its beginning is not one in the making.
		"headless": append(make([]byte, 512), whole[512:]...),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
			if !errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, content) {
				t.Error("the file was changed")
			}
		})
	}
}

// TestLogWithoutItsFile: SQLite would remove the log and begin anew.
// The power can go while SQLite writes the first page of a new file.
func TestFileInTheMakingIsBegunAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	torn := append(make([]byte, 512), bytes.Repeat([]byte{0xab}, 4096-512)...)
	if err := os.WriteFile(path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: sqlite.Admin}); !errors.Is(err, sqlite.ErrCorrupt) {
		t.Errorf("an admin's command made something of it: %v", err)
	}
	open(t, sqlite.Options{Path: path}).Close()
}

func TestLogWithoutItsFile(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"missing": os.Remove,
	} {
		path := filepath.Join(t.TempDir(), "a.db")
		open(t, sqlite.Options{Path: path}).Close()
		log := []byte("what was committed last")
		if err := errors.Join(os.WriteFile(path+"-wal", log, 0o600), spoil(path)); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlite.Open(t.Context(), sqlite.Options{Path: path}); !errors.Is(err, sqlite.ErrCorrupt) || !strings.Contains(err.Error(), "-wal") {
			t.Errorf("%s: Open: %v", name, err)
		}
		if _, _, err := sqlite.Migrate(t.Context(), path); !errors.Is(err, sqlite.ErrCorrupt) {
			t.Errorf("%s: Migrate: %v", name, err)
		}
		if after, _ := os.ReadFile(path + "-wal"); !bytes.Equal(after, log) {
			t.Errorf("%s: the log was changed", name)
		}
	}
}

func TestMissingFilesAndFolders(t *testing.T) {
	dir := t.TempDir()
	_, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "a.db"), Role: sqlite.Admin})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "posthorn serve") {
		t.Errorf("admin: %v", err)
	}
	_, err = sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "none", "a.db")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "folder") {
		t.Errorf("no folder: %v", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

// TestReadOnly runs itself again as an ordinary user where it runs as one who
// may write everywhere.
func TestReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		runAsNobody(t)
		return
	}
	dir := os.Getenv("POSTHORN_TEST_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, lockOut := range map[string]func(dir, path string) error{
		"file":   func(_, path string) error { return os.Chmod(path, 0o400) },
		"folder": func(dir, _ string) error { return os.Chmod(dir, 0o500) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o700)
			path := filepath.Join(dir, "a.db")
			s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			os.Remove(path + ".lock")
			if err := lockOut(dir, path); err != nil {
				t.Fatal(err)
			}
			for _, role := range []sqlite.Role{sqlite.Serve, sqlite.Admin} {
				_, err = sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: role})
				if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "writable") {
					t.Errorf("role %d: %v", role, err)
				}
			}
		})
	}
}

func runAsNobody(t *testing.T) {
	const nobody = 65534
	dir, err := os.MkdirTemp("", "posthorn-readonly")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(dir, "sqlite.test")
	if err := errors.Join(os.WriteFile(test, self, 0o755), os.Chmod(dir, 0o755), os.Mkdir(dir+"/d", 0o700), os.Chown(dir+"/d", nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), test, "-test.run", "^TestReadOnly$", "-test.v")
	cmd.Dir = dir + "/d"
	cmd.Env = []string{"POSTHORN_TEST_DIR=" + dir + "/d", "TMPDIR=" + dir + "/d"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestReadOnly/folder")) {
		t.Errorf("%v\n%s", err, out)
	}
}
