package sqlite_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// A backup is taken while the service publishes.
func TestBackupOfAServedFileIsWholeAndPrivate(t *testing.T) {
	p := newPayloads(t, 300, 9000, 70_000)
	to := filepath.Join(t.TempDir(), "backup.db")
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := p.s.CreateTenant(t.Context(), p.change(), "t"+posthorn.NewRef("", time.Now())); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	var done, total int64
	inv, err := sqlite.Backup(t.Context(), p.path, to, p.change(), func(d, all int64) { done, total = d, all })
	close(stop)
	busy.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if inv.Events != 3 || inv.Tenants < 1 || inv.Bytes == 0 || done == 0 || done != total {
		t.Errorf("%+v, %d of %d", inv, done, total)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, _ := filepath.Glob(to + "?*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if again, err := sqlite.Verify(t.Context(), to); err != nil || again != inv {
		t.Errorf("%+v, %v", again, err)
	}
	before, _ := os.ReadFile(to)
	if _, err := sqlite.Backup(t.Context(), p.path, to, p.change(), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second backup over the first: %v", err)
	}
	if after, _ := os.ReadFile(to); !bytes.Equal(before, after) {
		t.Error("the first backup was changed")
	}
}

func TestRestoredStoreHoldsItsSendingAndGivesOutNewIds(t *testing.T) {
	p := newPayloads(t, 300)
	to := filepath.Join(t.TempDir(), "backup.db")
	if _, err := sqlite.Backup(t.Context(), p.path, to, p.change(), nil); err != nil {
		t.Fatal(err)
	}
	taken := p.now
	p.publish(300) // lost with the store
	lost, _ := posthorn.ParseID(posthorn.EventPrefix, p.refs[1])
	if _, _, err := sqlite.Restore(t.Context(), to, p.path, p.now); !isLocked(err) {
		t.Fatalf("the file of a running service was replaced: %v", err)
	}
	if on, err := p.s.Sending(t.Context()); err != nil || !on {
		t.Error("the backup stopped the sending of its source")
	}
	if err := p.s.Close(); err != nil {
		t.Fatal(err)
	}
	inv, aside, err := sqlite.Restore(t.Context(), to, p.path, p.now)
	if err != nil || inv.Events != 1 {
		t.Fatalf("%+v, %v", inv, err)
	}
	if _, err := sqlite.Verify(t.Context(), aside); err != nil {
		t.Errorf("what was there before: %v", err)
	}
	p.s = open(t, sqlite.Options{Path: p.path, Now: func() time.Time { return p.now }}) // in the same millisecond
	if on, err := p.s.Sending(t.Context()); err != nil || on {
		t.Errorf("sending %v, %v", on, err)
	}
	o, err := p.s.Outlook(t.Context(), p.now)
	if err != nil || !o.RestoredFrom.Equal(taken) {
		t.Errorf("%+v, %v", o, err)
	}
	p.publish(300)
	if id, _ := posthorn.ParseID(posthorn.EventPrefix, p.refs[2]); id <= lost {
		t.Errorf("event %x was given out again after %x", id, lost)
	}
	if other, err := p.s.CreateTenant(t.Context(), p.change(), "new"); err != nil || other.ID < 1000 {
		t.Errorf("tenant %+v, %v", other, err)
	}
	if err := p.s.SetSending(t.Context(), p.change(), true); err != nil {
		t.Fatal(err)
	}
	if err := p.s.Close(); err != nil {
		t.Fatal(err)
	}
	p.s = open(t, sqlite.Options{Path: p.path}) // once resumed it stays so
	if on, err := p.s.Sending(t.Context()); err != nil || !on {
		t.Errorf("sending %v, %v", on, err)
	}
	if o, err := p.s.Outlook(t.Context(), p.now); err != nil || !o.RestoredFrom.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
}

func isLocked(err error) bool {
	_, ok := errors.AsType[*sqlite.LockedError](err)
	return ok
}

func TestBadBackupsAreRefusedAndNothingIsChanged(t *testing.T) {
	p := newPayloads(t, 300, 300, 9000)
	good := filepath.Join(t.TempDir(), "backup.db")
	if _, err := sqlite.Backup(t.Context(), p.path, good, p.change(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(whole, []byte("mark"))
	pointer := bytes.Clone(whole)
	copy(pointer[i/8192*8192:], bytes.Repeat([]byte{0xff}, 64)) // the head of a page
	for name, spoil := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.WriteFile(path, pointer, 0o600) },
		"cut":     func(path string) error { return os.WriteFile(path, whole[:len(whole)-8192], 0o600) },
		"text":    func(path string) error { return os.WriteFile(path, []byte("a letter to my aunt, and more"), 0o600) },
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"missing": func(path string) error { return nil },
		"lacking": func(path string) error {
			err := os.WriteFile(path, whole, 0o600)
			execute(t, path, `PRAGMA journal_mode = DELETE; DELETE FROM payloads WHERE event = (SELECT max(event) FROM payloads)`)
			return err
		},
		"in use": func(path string) error {
			return errors.Join(os.WriteFile(path, whole, 0o600), os.WriteFile(path+"-wal", []byte("newer"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "backup.db")
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			_, _, err := sqlite.Restore(t.Context(), path, p.path, p.now)
			if err == nil {
				t.Error("it was restored")
			}
			if after, _ := os.ReadFile(p.path); !bytes.Equal(before, after) {
				t.Error("the store was changed")
			}
			if left, _ := filepath.Glob(p.path + ".*"); len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, aside, err := sqlite.Restore(t.Context(), good, filepath.Join(t.TempDir(), "new.db"), p.now); err != nil || aside != "" {
		t.Errorf("into nothing: %q, %v", aside, err)
	}
}

// Outlook tells what is due and whose receiver may be sent to.
func TestOutlookCountsWhatWouldBeSent(t *testing.T) {
	p := newPayloads(t)
	e, err := p.s.CreateEndpoint(t.Context(), p.change(), posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, p.now), Tenant: p.tenant.ID, URL: "https://example.com", Events: []posthorn.Pattern{"*"}, Status: posthorn.StatusActive,
	}, func(int64) (store.Sealed, error) { return store.Sealed{KeyID: "k", Box: []byte("b")}, nil }, 10)
	if err != nil {
		t.Fatal(err)
	}
	set, err := p.s.EndpointSet(t.Context(), p.tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	to := []store.PublishTarget{{Endpoint: e.ID}}
	event := store.NewEvent{Type: "cases.updated", OccurredAt: p.now, Body: posthorn.AppendBody(nil, "", "cases.updated", p.now, []byte("{}")), Targets: to}
	later, behind := event, event
	later.Body, behind.Body = bytes.Clone(event.Body), bytes.Clone(event.Body)
	later.DeliverAt = p.now.Add(time.Hour)
	behind.Targets = []store.PublishTarget{{Endpoint: e.ID, Parked: true}}
	if _, err := p.s.Publish(t.Context(), store.Publication{Tenant: p.tenant.ID, SetVersion: set.Version, At: p.now, BacklogLimit: 10, Events: []store.NewEvent{event, later, behind}}); err != nil {
		t.Fatal(err)
	}
	want := func(at time.Time, open, due int64) {
		t.Helper()
		if o, err := p.s.Outlook(t.Context(), at); err != nil || o.Open != open || o.Due != due {
			t.Errorf("%+v, %v; want %d, %d due", o, err, open, due)
		}
	}
	want(p.now.Add(time.Second), 3, 2)
	want(p.now.Add(2*time.Hour), 3, 3)
	if _, err := p.s.SuspendTenant(t.Context(), p.change(), p.tenant.ID, true); err != nil {
		t.Fatal(err)
	}
	want(p.now.Add(2*time.Hour), 3, 0)
}
