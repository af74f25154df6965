package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var logged = []posthorn.Attempt{
	{Number: 1, At: time.Date(2026, 4, 29, 9, 10, 0, 123456000, time.UTC), Class: posthorn.ClassLocal, Detail: "too many open files"},
	{Number: 1, At: time.Date(2026, 4, 29, 9, 10, 5, 0, time.UTC), Duration: 15 * time.Second, Class: posthorn.ClassTimeout,
		Timings: posthorn.Timings{DNS: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Microsecond}},
	{Number: 2, At: time.Date(2026, 4, 29, 9, 15, 5, 0, time.UTC), Duration: 7 * time.Microsecond, Class: posthorn.ClassHTTPStatus, Status: 503,
		Headers: []posthorn.Header{{Name: "Retry-After", Value: "120"}, {Name: "Server", Value: ""}},
		Snippet: []byte("\x00\xff not text"), BodyNote: "truncated", Manual: true},
	{Number: 3, At: time.Date(2026, 4, 29, 9, 20, 0, 0, time.UTC), Class: posthorn.ClassOK, Status: 200},
}

func TestAttemptsComeBackAsTheyWere(t *testing.T) {
	var log []byte
	for i := range logged {
		var err error
		if log, err = store.AppendAttempt(log, &logged[i]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Attempts(log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(logged, got); diff != "" {
		t.Error(diff)
	}
	if got, err := store.Attempts(nil); err != nil || got != nil {
		t.Errorf("the empty log: %v, %v", got, err)
	}
}

// TestAttemptLogFormat pins version 1: files in the field hold it.
func TestAttemptLogFormat(t *testing.T) {
	log, err := store.AppendAttempt(nil, &posthorn.Attempt{Number: 1, At: time.Unix(0, 0), Duration: time.Millisecond, Status: 204})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%x", log), "010b04000100d00fcc01000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFirstTenAndLastFortyAreKept(t *testing.T) {
	var log []byte
	for n := 1; n <= 1000; n++ {
		var err error
		if log, err = store.AppendAttempt(log, &posthorn.Attempt{Number: n, Detail: strings.Repeat("x", n%7), Class: posthorn.ClassDNS}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Attempts(log)
	if err != nil || len(got) != store.KeptFirst+store.KeptLast {
		t.Fatalf("%d kept, %v", len(got), err)
	}
	for i, a := range got {
		want := i + 1
		if i >= store.KeptFirst {
			want = 1000 - store.KeptLast - store.KeptFirst + i + 1
		}
		if a.Number != want {
			t.Errorf("place %d holds attempt %d, want %d", i, a.Number, want)
		}
	}
}

func FuzzAttempts(f *testing.F) {
	var log []byte
	for i := range logged {
		log, _ = store.AppendAttempt(log, &logged[i])
		f.Add(log)
	}
	f.Add([]byte{2})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, log []byte) {
		attempts, err := store.Attempts(log)
		if err != nil {
			if !errors.Is(err, store.ErrAttemptLog) {
				t.Errorf("got %v", err)
			}
			return
		}
		// What can be read can be written and read again.
		var again []byte
		for i := range attempts {
			if again, err = store.AppendAttempt(again, &attempts[i]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := store.Attempts(again)
		if err != nil {
			t.Fatal(err)
		}
		if len(attempts) <= store.KeptFirst+store.KeptLast {
			if diff := cmp.Diff(attempts, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}
