package sqlite_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// holdFile keeps a snapshot of the file as another program does.
func holdFile(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`BEGIN`); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := db.QueryRow(`SELECT count(*) FROM events`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatal(what)
		case <-tick.C:
		}
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func all(int) bool { return true }

func (p *payloads) erase(i int) store.Erased {
	p.Helper()
	e, err := p.s.ErasePayload(p.Context(), p.change(), p.tenant.ID, p.refs[i])
	if err != nil {
		p.Fatal(err)
	}
	return e
}

// erasing is what the event and the list of events say.
func (p *payloads) erasing(i int) bool {
	p.Helper()
	e, err := p.s.EventByRef(p.Context(), p.tenant.ID, p.refs[i])
	if err != nil || e.ErasedAt.IsZero() || e.Body != nil {
		p.Fatalf("%+v, %v", e, err)
	}
	list, _, err := p.s.Events(p.Context(), store.EventFilter{Tenant: p.tenant.ID}, store.Page{Limit: 100})
	if err != nil {
		p.Fatal(err)
	}
	for _, l := range list {
		if l.ID == e.ID && l.Erasing && !e.Erasing {
			p.Fatal("the list says erasing and the event before it did not")
		}
		if l.ID == e.ID && e.Erasing && !l.Erasing { // it may be done by now
			if e, err = p.s.EventByRef(p.Context(), p.tenant.ID, p.refs[i]); err != nil || e.Erasing {
				p.Fatalf("the list does not say that it is erasing: %v", err)
			}
		}
	}
	return e.Erasing
}

// While somebody keeps a snapshot no commit waits for the log's end, neither one of
// publishing nor one of an erasure or of retention: the writer tries it now and then
// and at once goes on.
func TestNoCommitWaitsForAReader(t *testing.T) {
	p := newPayloads(t, 500, 500, 500)
	p.s.SetPatience(time.Millisecond)
	release := holdFile(t, p.path)
	if e := p.erase(0); !e.Event.Erasing {
		t.Error("the log was emptied under a reader: the test shows nothing")
	}
	p.pass(24 * time.Hour)
	storetest.Sweep(t, p.s, p.now, store.Retention{Events: 30 * 24 * time.Hour, Payloads: time.Hour})
	const commits = 100
	before := p.s.EmptyingAttempts()
	late := time.After(100 * time.Second)
	for n := range commits {
		select {
		case <-late:
			t.Fatalf("%d commits in 100 s", n)
		default:
			p.publish(50)
		}
	}
	if n := p.s.EmptyingAttempts() - before; n > 40 {
		t.Errorf("the writer tried to empty the log %d times in %d commits", n, commits)
	}
	// An attempt itself takes no time: with a time-out, of 200 ms say, these take 100 s.
	late = time.After(60 * time.Second)
	for n := range 500 {
		select {
		case <-late:
			t.Fatalf("%d attempts in 60 s: they wait for the reader", n)
		default:
		}
		if emptied, err := p.s.CutLog(); emptied || err != nil {
			t.Fatal(emptied, err)
		}
	}
	if !p.erasing(0) {
		t.Error("it does not say that it is erasing")
	}
	release()
	erased := func(i int) bool { return i < 3 }
	until(t, "the log was not emptied", func() bool { return !p.erasing(0) })
	if n := p.found(erased); n != 0 {
		t.Errorf("%d erased payloads are still there", n)
	}
}

// A reader that ends in time is waited for by who erases, and by nobody else.
func TestErasureIsDoneWhenTheReaderEnds(t *testing.T) {
	p := newPayloads(t, 500, 500)
	p.s.SetPatience(time.Minute)
	release := holdFile(t, p.path)
	done := make(chan store.Erased, 1)
	go func() {
		e, err := p.s.ErasePayload(t.Context(), p.change(), p.tenant.ID, p.refs[0])
		if err != nil {
			t.Error(err)
		}
		done <- e
	}()
	until(t, "it was not tried", func() bool { return p.s.EmptyingAttempts() > 2 })
	p.publish(50) // meanwhile
	release()
	if e := <-done; e.Event.Erasing || p.erasing(0) {
		t.Error("it says that it is erasing")
	}
	if p.found(func(i int) bool { return i == 0 }) != 0 {
		t.Error("it is still there")
	}
}

// Of short readers of the own process there may always be one, beside commits of which
// each gives the next reader a snapshot that is in the way.
func TestReadersOfTheServiceDoNotKeepTheLog(t *testing.T) {
	p := newPayloads(t, make([]int, 300)...)
	p.s.SetPatience(time.Minute)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	repeat := func(do func() error) {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 8 {
		repeat(func() error {
			_, _, err := p.s.Events(t.Context(), store.EventFilter{}, store.Page{Limit: 250})
			return err
		})
	}
	repeat(func() error { return p.s.Ping(t.Context()) })
	for i := range 3 {
		if e := p.erase(i); e.Event.Erasing {
			t.Error("readers kept the log")
		}
	}
	close(stop)
	busy.Wait()
}

// The next start empties a log that was not emptied, and until then it says so.
func TestErasureSurvivesTheProcess(t *testing.T) {
	for _, held := range []bool{false, true} {
		p := newPayloads(t, 500)
		p.s.SetPatience(time.Millisecond)
		release := holdFile(t, p.path)
		if e := p.erase(0); !e.Event.Erasing {
			t.Error("the log was emptied under a reader: the test shows nothing")
		}
		// As the power takes it, but for the reader who goes on where it is held.
		path := p.path
		if !held {
			path = filepath.Join(t.TempDir(), "copy.db")
			for _, suffix := range []string{"", "-wal"} {
				copyTo(t, p.path+suffix, path+suffix)
			}
			release()
		}
		if err := p.s.Close(); err != nil {
			t.Fatal(err)
		}
		p.path = path
		if p.found(all) != 1 {
			t.Fatal("nothing of it is left: the test shows nothing")
		}
		p.s = open(t, sqlite.Options{Path: path, Poll: 10 * time.Millisecond})
		if held {
			if !p.erasing(0) {
				t.Error("it does not say that it is erasing")
			}
			p.s.SetPatience(time.Millisecond)
			if e := p.erase(0); !e.Event.Erasing {
				t.Error("it says that it is done")
			}
			release()
		}
		until(t, "it is still there", func() bool { return !p.erasing(0) })
		if p.found(all) != 0 {
			t.Error("it is still there")
		}
		until(t, "the file's mark is still there", func() bool { return !p.s.Marked(t) })
	}
}

// What became of an erasure of which only a part is done: the log was emptied, and more
// is erased before that is written down.
func TestAnErasureIsNotTakenForAnotherOne(t *testing.T) {
	p := newPayloads(t, 500, 500)
	p.erase(0)
	until(t, "the file's mark is still there", func() bool { return !p.s.Marked(t) })
	p.s.SetPatience(time.Millisecond)
	release := holdFile(t, p.path)
	defer release()
	p.pass(time.Second)
	if e := p.erase(1); !e.Event.Erasing {
		t.Error("the second is said to be done")
	}
	if p.erasing(0) {
		t.Error("the first is said to be erasing again")
	}
	if e := p.erase(1); !e.Event.Erasing {
		t.Error("said again, the second is said to be done")
	}
	if !p.s.Marked(t) {
		t.Error("the next start would not know")
	}
	if _, err := p.s.ErasePayload(t.Context(), p.change(), p.tenant.ID, "unknown"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
