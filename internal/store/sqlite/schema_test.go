package sqlite_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// What others put into a file, or took from it, is found before anything is read or
// written, however the file comes.
func TestAForeignSchemaIsRefusedByName(t *testing.T) {
	p := newPayloads(t, 300)
	good := filepath.Join(t.TempDir(), "backup.db")
	if _, err := sqlite.Backup(t.Context(), p.path, good, p.change(), nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ do, says string }{
		"trigger":        {`CREATE TRIGGER thief AFTER INSERT ON payloads BEGIN UPDATE meta SET value = 0; END`, "the trigger thief"},
		"view":           {`CREATE VIEW spy AS SELECT * FROM payloads`, "the view spy"},
		"table":          {`CREATE TABLE notes (id INTEGER PRIMARY KEY)`, "the table notes"},
		"column":         {`ALTER TABLE events ADD COLUMN extra TEXT`, "its table events"},
		"index":          {`CREATE INDEX slow ON events (type)`, "the index slow"},
		"no index":       {`DROP INDEX tenants_name`, "its index tenants_name is missing"},
		"other index":    {`DROP INDEX tenants_name; CREATE INDEX tenants_name ON tenants (name)`, "its index tenants_name is not as"},
		"no table":       {`DROP TABLE turns`, "its table turns is missing"},
		"virtual":        {`CREATE VIRTUAL TABLE words USING fts5(x)`, "the table words"},
		"of migrations":  {`CREATE TRIGGER late AFTER INSERT ON goose_db_version BEGIN DELETE FROM meta; END`, "the trigger late"},
		"of the counter": {`CREATE INDEX sqlitesequence ON goose_db_version (id)`, "the index sqlitesequence"},
	} {
		t.Run(name, func(t *testing.T) {
			path, beside := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(t.TempDir(), "posthorn.db")
			copyTo(t, good, path)
			execute(t, path, `PRAGMA journal_mode = DELETE; `+c.do)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for way, try := range map[string]func() error{
				"verify":  func() error { _, err := sqlite.Verify(t.Context(), path); return err },
				"restore": func() error { _, _, err := sqlite.Restore(t.Context(), path, beside, p.now); return err },
				"serve":   func() error { return opens(t, sqlite.Options{Path: path}) },
				"admin":   func() error { return opens(t, sqlite.Options{Path: path, Role: sqlite.Admin}) },
				"migrate": func() error { _, _, err := sqlite.Migrate(t.Context(), path); return err },
			} {
				if err := try(); !errors.Is(err, sqlite.ErrForeignSchema) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "nothing was changed") {
					t.Errorf("%s: %v", way, err)
				}
				if _, err := os.Stat(beside); err == nil {
					t.Errorf("%s: it was restored", way)
				}
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(whole[100:], after[100:]) { // the head counts changes of the journal's mode
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func opens(t *testing.T, o sqlite.Options) error {
	s, err := sqlite.Open(t.Context(), o)
	if err == nil {
		err = errors.Join(errors.New("it was opened"), s.Close())
	}
	return err
}

// What SQLite itself keeps in a file is no fault, nor is how a migration was laid out.
func TestWhatIsSQLitesOwnIsNoForeignSchema(t *testing.T) {
	p := newPayloads(t, 300)
	if err := p.s.Close(); err != nil {
		t.Fatal(err)
	}
	execute(t, p.path, `ANALYZE; PRAGMA writable_schema = 1;
		UPDATE sqlite_schema SET sql = replace(sql, 'CREATE TABLE turns (', 'CREATE TABLE turns ( -- once said otherwise'||char(10)||'  /* and so */ ') WHERE name = 'turns'`)
	if _, err := sqlite.Verify(t.Context(), p.path); err != nil {
		t.Error(err)
	}
	p.s = open(t, sqlite.Options{Path: p.path})
}
