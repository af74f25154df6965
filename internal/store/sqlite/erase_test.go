package sqlite_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// payloads is a store with events whose bodies can be found in its files.
type payloads struct {
	*testing.T
	s      *sqlite.Store
	path   string
	now    time.Time
	clock  clock // shows now to the store
	tenant posthorn.Tenant
	refs   []string
	marks  [][]byte // what each event's body is full of
}

func newPayloads(t *testing.T, sizes ...int) *payloads {
	p := &payloads{T: t, path: filepath.Join(t.TempDir(), "posthorn.db"), now: time.Now().UTC()}
	p.pass(0)
	p.s = open(t, sqlite.Options{Path: p.path, Now: p.clock.shown, Poll: 10 * time.Millisecond})
	var err error
	if p.tenant, err = p.s.CreateTenant(t.Context(), p.change(), "acme"); err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		p.publish(size)
	}
	return p
}

// clock is read by the store's goroutines.
type clock struct{ nanos atomic.Int64 }

func (c *clock) shown() time.Time { return time.Unix(0, c.nanos.Load()).UTC() }

func (p *payloads) pass(d time.Duration) {
	p.now = p.now.Add(d)
	p.clock.nanos.Store(p.now.UnixNano())
}

func (p *payloads) change() store.Change { return store.Change{Actor: "test", At: p.now} }

func (p *payloads) publish(size int) {
	p.Helper()
	var b [12]byte
	rand.Read(b[:])
	mark := hex.AppendEncode([]byte("mark"), b[:])
	set, err := p.s.EndpointSet(p.Context(), p.tenant.ID)
	if err != nil {
		p.Fatal(err)
	}
	data := fmt.Appendf(nil, `{"x":"%s"}`, bytes.Repeat(mark, max(1, size/len(mark))))
	a, err := p.s.Publish(p.Context(), store.Publication{Tenant: p.tenant.ID, SetVersion: set.Version, At: p.now, Events: []store.NewEvent{{
		Type: "cases.updated", OccurredAt: p.now, Body: posthorn.AppendBody(nil, "", "cases.updated", p.now, data),
	}}})
	if err != nil {
		p.Fatal(err)
	}
	p.refs, p.marks = append(p.refs, a[0].ID.Text(posthorn.EventPrefix)), append(p.marks, mark)
}

// files are the bytes of the database and its log.
func (p *payloads) files() []byte {
	p.Helper()
	var all []byte
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(p.path + suffix)
		if err != nil {
			p.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// found counts the events of whose bodies something is in the files.
func (p *payloads) found(of func(i int) bool) (n int) {
	p.Helper()
	there := map[string]bool{}
	for all := p.files(); ; {
		i := bytes.Index(all, []byte("mark"))
		if i < 0 || len(all)-i < markLength {
			break
		}
		there[string(all[i:i+markLength])] = true
		all = all[i+4:]
	}
	for i, mark := range p.marks {
		if of(i) && there[string(mark)] {
			n++
		}
	}
	return n
}

const markLength = len("mark") + 24

// Bodies of all sizes: within a page, over several, of many pages.
func sizes(rng *mathrand.Rand, n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = []int{64, 300, 1500, 4000, 9000, 70_000}[rng.IntN(6)] + rng.IntN(200)
	}
	return list
}

func TestErasedPayloadsAreInNeitherFileNorLog(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	rng := mathrand.New(mathrand.NewPCG(seed, 0))
	// Small ones beside large ones: where many share a page, they are moved the most.
	list := sizes(rng, 100)
	for range 900 {
		list = append(list, 30+rng.IntN(600))
	}
	p := newPayloads(t, list...)
	all := func(int) bool { return true }
	if n := p.found(all); n != len(p.refs) {
		t.Fatalf("only %d of %d payloads are found before: the search is broken", n, len(p.refs))
	}
	erased := make([]bool, len(p.refs))
	for n, i := range rng.Perm(len(p.refs))[:900] {
		if _, err := p.s.ErasePayload(t.Context(), p.change(), p.tenant.ID, p.refs[i]); err != nil {
			t.Fatal(err)
		}
		erased[i] = true
		if n%50 > 0 {
			continue
		}
		if n := p.found(func(i int) bool { return erased[i] }); n != 0 {
			t.Fatalf("%d erased payloads are still there", n)
		}
	}
	if n := p.found(func(i int) bool { return erased[i] }); n != 0 {
		t.Errorf("%d erased payloads are still there", n)
	}
	if n := p.found(func(i int) bool { return !erased[i] }); n != 100 {
		t.Errorf("%d of 100 others are there", n)
	}
}

// A reader that holds on to the log delays the erasure from it, and no longer
// than it reads.
func TestErasureWaitsForReadersInTheBackground(t *testing.T) {
	p := newPayloads(t, 500)
	p.s.SetPatience(time.Millisecond)
	release := p.s.HoldSnapshot(t)
	if _, err := p.s.ErasePayload(t.Context(), p.change(), p.tenant.ID, p.refs[0]); err != nil {
		t.Fatal(err)
	}
	all := func(int) bool { return true }
	if p.found(all) != 1 {
		t.Fatal("the reader held nothing up: the test shows nothing")
	}
	release()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.found(all) != 0 {
		select {
		case <-deadline:
			t.Fatal("it is still there")
		case <-tick.C:
		}
	}
}

func TestDeletedTenantsAndOldPayloadsAreInNeitherFileNorLog(t *testing.T) {
	for name, act := range map[string]func(p *payloads) (store.Retention, bool){
		"tenant": func(p *payloads) (store.Retention, bool) {
			if err := p.s.DeleteTenant(p.Context(), p.change(), p.tenant.ID); err != nil {
				p.Fatal(err)
			}
			return store.Retention{Events: 30 * 24 * time.Hour}, true
		},
		"payloads": func(p *payloads) (store.Retention, bool) {
			p.pass(24 * time.Hour)
			return store.Retention{Events: 30 * 24 * time.Hour, Payloads: time.Hour}, false
		},
		"events": func(p *payloads) (store.Retention, bool) {
			p.pass(24 * time.Hour)
			return store.Retention{Events: time.Hour}, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			rng := mathrand.New(mathrand.NewPCG(1, 2))
			p := newPayloads(t, sizes(rng, 300)...)
			keep, deleted := act(p)
			storetest.Sweep(t, p.s, p.now, keep)
			if n := p.found(func(int) bool { return true }); n != 0 {
				t.Errorf("%d of %d payloads are still there", n, len(p.refs))
			}
			if d, err := p.s.Deletions(t.Context(), 0, 1); deleted && (err != nil || len(d) != 1 || d[0].CompletedAt.IsZero()) {
				t.Errorf("the account is not complete: %+v, %v", d, err)
			}
		})
	}
}

// Rows move between pages as their neighbours go; no copy of them may stay where
// they were.
func TestNothingErasedStaysWhileTimeGoesOn(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	rng := mathrand.New(mathrand.NewPCG(seed, 0))
	p := newPayloads(t)
	gone := map[int]bool{}
	keep := store.Retention{Events: 20 * time.Hour, Payloads: 10 * time.Hour}
	var hours []int // when each was published
	for hour := range 30 {
		for range 300 {
			p.publish(30 + rng.IntN(1200))
			hours = append(hours, hour)
		}
		p.pass(time.Hour)
		for range 60 {
			i := len(p.refs) - 1 - rng.IntN(min(len(p.refs), 2900))
			if _, err := p.s.ErasePayload(t.Context(), p.change(), p.tenant.ID, p.refs[i]); err != nil {
				t.Fatal(err)
			}
			gone[i] = true
		}
		storetest.Sweep(t, p.s, p.now, keep)
		if n := p.found(func(i int) bool { return gone[i] || hours[i] < hour-12 }); n != 0 {
			t.Fatalf("in hour %d %d payloads are there that should not be", hour, n)
		}
	}
	if n := p.found(func(i int) bool { return !gone[i] && hours[i] > 22 }); n < 1000 {
		t.Errorf("only %d of the newest are there", n)
	}
}
