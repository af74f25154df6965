package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// packed is the log of the attempts as this version writes it.
func packed(t testing.TB, attempts ...posthorn.Attempt) (log []byte) {
	t.Helper()
	for i := range attempts {
		var err error
		if log, err = store.AppendAttempt(log, &attempts[i]); err != nil {
			t.Fatal(err)
		}
	}
	return log
}

// entries are those of a log, each with its length.
func entries(t testing.TB, log []byte) (all [][]byte) {
	t.Helper()
	for at := 1; at < len(log); {
		size, n := binary.Uvarint(log[at:])
		if n <= 0 || size > uint64(len(log)-at-n) {
			t.Fatalf("%x has no entry at %d", log, at)
		}
		next := at + n + int(size)
		all = append(all, log[at:next])
		at = next
	}
	return all
}

// newer is the log as a later version would have written it: another version byte,
// and each entry with flags of its own and something at its end. flags has the
// bits that this version does not know.
func newer(t testing.TB, log []byte, flags byte, rest []byte) []byte {
	t.Helper()
	b := []byte{log[0] + 1}
	for _, e := range entries(t, log) {
		_, n := binary.Uvarint(e)
		fields := append(append([]byte(nil), e[n:]...), rest...)
		fields[0] |= flags
		b = append(binary.AppendUvarint(b, uint64(len(fields))), fields...)
	}
	return b
}

var more = posthorn.Attempt{Number: 9, At: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), Class: posthorn.ClassDNS, Detail: "no such host"}

func TestALogOfANewerVersionIsReadAndAppendedTo(t *testing.T) {
	log := newer(t, packed(t, logged...), 0xf0, []byte("what comes next"))
	got, err := store.Attempts(log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(logged, got); diff != "" {
		t.Error(diff)
	}
	before := bytes.Clone(log)
	log, err = store.AppendAttempt(log, &more)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(log, before) {
		t.Errorf("%x does not begin with %x", log, before)
	}
	if got, err = store.Attempts(log); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(append([]posthorn.Attempt(nil), logged...), more), got); diff != "" {
		t.Error(diff)
	}
}

func TestAClassOfANewerVersionIsKept(t *testing.T) {
	a := more
	a.Class = 200
	log := packed(t, a)
	got, err := store.Attempts(log)
	if err != nil || len(got) != 1 || got[0].Class != 200 || got[0].Succeeded() || got[0].Class.String() != "other" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestTheMiddleOfANewerLogIsDroppedWhole(t *testing.T) {
	var log []byte
	for n := range store.KeptFirst + store.KeptLast {
		log = append(log, packed(t, posthorn.Attempt{Number: n + 1})[min(len(log), 1):]...)
	}
	log = newer(t, log, 0x80, []byte{7})
	want := entries(t, bytes.Clone(log))
	log, err := store.AppendAttempt(log, &more)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, log)
	want = append(want[:store.KeptFirst:store.KeptFirst], want[store.KeptFirst+1:]...)
	if log[0] != 2 || len(got) != len(want)+1 {
		t.Fatalf("version %d, %d entries, want %d", log[0], len(got), len(want)+1)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("entry %d is %x, was %x", i, got[i], want[i])
		}
	}
}

func TestErasingKeepsWhatANewerVersionAdded(t *testing.T) {
	rest := []byte("what comes next")
	log := newer(t, packed(t, logged...), 0xf0, rest)
	clean := store.EraseAnswers(bytes.Clone(log))
	if bytes.Contains(clean, []byte("not text")) || bytes.Contains(clean, []byte("Retry-After")) {
		t.Errorf("%q holds an answer", clean)
	}
	all := entries(t, clean)
	if clean[0] != 2 || len(all) != len(logged) {
		t.Fatalf("version %d, %d entries", clean[0], len(all))
	}
	for i, e := range all {
		_, n := binary.Uvarint(e)
		if e[n]&0xf0 != 0xf0 || !bytes.HasSuffix(e, rest) {
			t.Errorf("entry %d lost what a newer version wrote: %x", i, e)
		}
	}
	want := append([]posthorn.Attempt(nil), logged...)
	for i := range want {
		store.WithoutAnswer(&want[i])
	}
	got, err := store.Attempts(clean)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// TestABrokenLogTakesFurtherAttempts: what is whole of it is kept; no result is
// refused for what is not.
func TestABrokenLogTakesFurtherAttempts(t *testing.T) {
	whole := packed(t, logged...)
	for name, c := range map[string]struct {
		log  []byte
		kept int
	}{
		"an entry is cut off":    {whole[:len(whole)-1], len(logged) - 1},
		"a length has no end":    {append(bytes.Clone(whole), bytes.Repeat([]byte{0xff}, 11)...), len(logged)},
		"a length is too large":  {append(bytes.Clone(whole), 0x7f), len(logged)},
		"there is no version":    {append([]byte{0}, whole[1:]...), 0},
		"all of it is something": {[]byte{0, 1, 2, 3}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := store.Attempts(c.log); !errors.Is(err, store.ErrAttemptLog) {
				t.Errorf("it was read: %v", err)
			}
			log, err := store.AppendAttempt(bytes.Clone(c.log), &more)
			if !errors.Is(err, store.ErrAttemptLog) {
				t.Errorf("nobody is told: %v", err)
			}
			got, err := store.Attempts(log)
			if err != nil {
				t.Fatal(err)
			}
			want := append(append([]posthorn.Attempt(nil), logged[:c.kept]...), more)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzNewerLog holds the readers and writers of this version to what a later one
// may write.
func FuzzNewerLog(f *testing.F) {
	f.Add(byte(0xf0), byte(200), []byte("rest"), uint8(3), "detail", []byte("answer"))
	f.Add(byte(0), byte(0), []byte{}, uint8(60), "", []byte{})
	f.Fuzz(func(t *testing.T, flags, class byte, rest []byte, n uint8, detail string, snippet []byte) {
		var want []posthorn.Attempt
		log := []byte{1}
		for i := range int(n) + 1 {
			a := posthorn.Attempt{Number: i, At: more.At.Add(time.Duration(i) * time.Second), Class: posthorn.Class(class), Detail: detail}
			if i%3 == 0 && len(snippet) > 0 {
				a.Status, a.Snippet = 500+i, snippet
			}
			want = append(want, a)
			log = append(log, packed(t, a)[1:]...) // more than are kept: a later version may keep more
		}
		log = newer(t, log, flags&0xf0, rest)
		got, err := store.Attempts(log)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		before := entries(t, bytes.Clone(log))
		if len(before) >= store.KeptFirst+store.KeptLast {
			before = append(before[:store.KeptFirst:store.KeptFirst], before[store.KeptFirst+1:]...)
		}
		version := log[0]
		log, err = store.AppendAttempt(log, &more)
		if err != nil || log[0] != version {
			t.Fatalf("version %d became %d, %v", version, log[0], err)
		}
		after := entries(t, log)
		if len(after) != len(before)+1 {
			t.Fatalf("%d entries became %d", len(before), len(after))
		}
		for i := range before {
			if !bytes.Equal(before[i], after[i]) {
				t.Fatalf("entry %d was %x and is %x", i, before[i], after[i])
			}
		}
		clean := store.EraseAnswers(bytes.Clone(log))
		if got, err = store.Attempts(clean); err != nil || len(got) != len(after) {
			t.Fatalf("%d of %d after erasing, %v", len(got), len(after), err)
		}
		for i, a := range got {
			if a.Snippet != nil || strings.Contains(detail, "\x00") && a.Detail == "" {
				t.Fatalf("attempt %d after erasing: %+v", i, a)
			}
		}
	})
}
