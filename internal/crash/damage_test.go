package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/tally"
)

// leftover is a killed service's store, whose log is all newer than its file.
type leftover struct {
	recording
	files map[string][]byte
	keys  []string // of the events, in the order of their commits
}

func leaveBehind(ctx context.Context, t *testing.T) *leftover {
	t.Helper()
	w := newWorld(ctx, t, binary)
	if _, err := w.server.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	l := &leftover{recording: recording{world: w, dir: filepath.Dir(w.server.File())}}
	var err error
	if l.before, err = contents(w.server.File()); err != nil {
		t.Fatal(err)
	}
	w.relaunch()
	w.ready()
	p := startLoad(ctx, w.api, w.ledger, 60, "left")
	w.publish(p, 20) // few enough to stay in the log: an event takes some twenty pages of the thousand
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.kill()
	if l.files, err = contents(w.server.File()); err != nil {
		t.Fatal(err)
	}
	if db := w.server.File(); string(l.files[db]) != string(l.before[db]) || len(l.files[db+"-wal"]) == 0 {
		t.Fatal("the log was taken into the file: these tests need it whole")
	}
	if l.keys, err = l.open(ctx, t, l.files); err != nil {
		t.Fatal(err)
	}
	if len(l.keys) < 20 {
		t.Fatalf("%d events", len(l.keys))
	}
	return l
}

// open starts a store on the files, checks that what is in it is whole, and
// returns the keys of its events in the order of their commits.
func (l *leftover) open(ctx context.Context, t *testing.T, files map[string][]byte) ([]string, error) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, filepath.Base(l.world.server.File()))
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Synchronous: "OFF", Poll: -1})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := l.compare(ctx, path, nil); err != nil {
		return nil, err
	}
	return keysOf(ctx, path)
}

func keysOf(ctx context.Context, path string) (keys []string, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT key FROM events WHERE key <> '' ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// TestDamagedLog cuts the log short and garbles it: the store opens with what
// was committed before the damage, whole, and nothing after it.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 4))
	l := leaveBehind(ctx, t)
	wal := l.world.server.File() + "-wal"
	whole := l.files[wal]
	tries := 20
	if long {
		tries = 1500
	}
	shortest := len(l.keys)
	for i := range tries {
		at := random.IntN(len(whole))
		damaged := slices.Clone(whole)
		var what string
		switch i % 4 {
		case 0:
			at = [...]int{0, 1, 31, 32, 33, at, at - at%sector, at}[i/4%8]
			what, damaged = fmt.Sprintf("cut at %d", at), damaged[:at]
		case 1:
			damaged[at] ^= byte(1 + random.IntN(255))
			what = fmt.Sprintf("byte %d changed", at)
		case 2:
			clear(damaged[at:min(len(damaged), at+4096)])
			what = fmt.Sprintf("4096 bytes zeroed at %d", at)
		case 3:
			for j := at; j < len(damaged); j++ {
				damaged[j] = byte(random.Uint32())
			}
			what = fmt.Sprintf("garbage from %d", at)
		}
		files := maps.Clone(l.files)
		files[wal] = damaged
		keys, err := l.open(ctx, t, files)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if len(keys) > len(l.keys) || !slices.Equal(keys, l.keys[:len(keys)]) {
			t.Errorf("%s: not what was committed before it: %v", what, keys)
		}
		shortest = min(shortest, len(keys))
	}
	if shortest > len(l.keys)/2 {
		t.Errorf("no damage lost more than %d of %d events: this tries too little", len(l.keys)-shortest, len(l.keys))
	}
	tally.Count(t, "a damaged log recovers to a commit before the damage", tries)
}

// TestMissingFileBesideItsLog: SQLite removes a log whose file is missing or
// empty, and with it what only the log holds. Posthorn must not let it.
func TestMissingFileBesideItsLog(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := leaveBehind(ctx, t)
	path := l.world.server.File()
	for name, spoil := range map[string]func() error{
		"empty":   func() error { return os.Truncate(path, 0) },
		"missing": func() error { return os.Remove(path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		l.refuses(ctx, t, name, "-wal")
		if now, err := os.ReadFile(path + "-wal"); err != nil || string(now) != string(l.files[path+"-wal"]) {
			t.Errorf("%s: the log was changed: %v", name, err)
		}
		// Put back, it is all there.
		if err := os.WriteFile(path, l.files[path], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.world.relaunch()
	l.world.ready()
	l.world.kill()
	if keys, err := keysOf(ctx, path); err != nil || !slices.Equal(keys, l.keys) {
		t.Errorf("%d of %d events, %v", len(keys), len(l.keys), err)
	}
	tally.Count(t, "a file that cannot be used is refused by a clear error and kept", 2)
}

// refuses starts the binary, which must end with an error that says so, and
// panic neither.
func (l *leftover) refuses(ctx context.Context, t *testing.T, name string, says ...string) {
	t.Helper()
	before, err := l.world.server.Log()
	if err != nil {
		t.Fatal(err)
	}
	l.world.relaunch()
	code, err := l.world.server.Wait(10 * time.Second)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	log, err := l.world.server.Log()
	if err != nil {
		t.Fatal(err)
	}
	said := string(log[len(before):])
	if code == 0 || code == 2 || strings.Contains(said, "goroutine ") {
		t.Errorf("%s: exit code %d\n%s", name, code, said)
	}
	for _, want := range append(says, l.world.server.File()) {
		if !strings.Contains(said, want) {
			t.Errorf("%s: the error does not name %q: %s", name, want, said)
		}
	}
}

// TestUnusableFiles: the real binary on files of other kinds.
func TestUnusableFiles(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := leaveBehind(ctx, t)
	path := l.world.server.File()
	newer := func() error {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			return err
		}
		_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
		return errors.Join(err, db.Close())
	}
	foreign := func() error {
		if err := os.Remove(path); err != nil {
			return err
		}
		db, err := sql.Open("sqlite", path)
		if err != nil {
			return err
		}
		_, err = db.Exec(`CREATE TABLE bookmarks (url TEXT)`)
		return errors.Join(err, db.Close())
	}
	write := func(b []byte) func() error { return func() error { return os.WriteFile(path, b, 0o600) } }
	half := l.before[path]
	for _, c := range []struct {
		name  string
		spoil func() error
		says  string
	}{
		{"newer", newer, "schema version 99"},
		{"another program's", foreign, "not Posthorn's"},
		{"text", write([]byte("this is a letter to my aunt, and no database at all")), "damaged"},
		{"half a file", write(half[:len(half)/2]), "damaged"},
		{"part of a page", write(half[:1000]), "damaged"},
		{"a folder", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, ""},
	} {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.RemoveAll(path + suffix); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, l.before[path], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		before, err := contents(path)
		if err != nil && !errors.Is(err, syscall.EISDIR) {
			t.Fatal(err)
		}
		l.refuses(ctx, t, c.name, c.says)
		after, _ := contents(path)
		// SQLite notes the mode of the journal, in the first page's header, as it opens.
		const header = 100
		if len(after[path]) != len(before[path]) || len(after[path]) > header && string(after[path][header:]) != string(before[path][header:]) {
			t.Errorf("%s: the file was changed", c.name)
		}
	}
	tally.Count(t, "a file that cannot be used is refused by a clear error and kept", 6)
}
