package app

import (
	"context"
	"database/sql"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
)

// holdWrites keeps the store's file locked, as a disk would that takes no writes
// for a while.
func holdWrites(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: path, RawQuery: "_pragma=busy_timeout(5000)"}).String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if _, err := db.Exec("ROLLBACK"); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	t.Cleanup(release)
	return release
}

// publishReply is what became of one publish.
type publishReply struct {
	status     int
	took       time.Duration
	retryAfter string
	id         string
}

// storm publishes large events from many clients at once and sends what became of
// each to the channel.
func (s *service) storm(ctx context.Context, token string, clients, size int, replies chan<- publishReply) {
	body := `{"type":"cases.closed","data":{"filler":"` + strings.Repeat("x", size) + `"}}`
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: clients}}
	for range clients {
		go func() {
			began := time.Now()
			r, err := http.NewRequestWithContext(ctx, "POST", s.base+"/v2.3/webhooks/events", strings.NewReader(body))
			if err != nil {
				replies <- publishReply{}
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err != nil {
				replies <- publishReply{}
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			replies <- publishReply{resp.StatusCode, time.Since(began), resp.Header.Get("Retry-After"), between(string(b), `"id":"`, `"`)}
		}()
	}
}

// TestOverloadIsRefusedEarlyAndHonestly holds the store back while more is
// published than may wait. What does not fit is refused at once with a time to come
// again; what waits is answered in bounded time; memory is bounded; and what was
// answered 202 is there, all of it and nothing else.
func TestOverloadIsRefusedEarlyAndHonestly(t *testing.T) {
	s := serveForTest(t)
	// The share of a token is not what is tried here: several tokens publish.
	const tokens, each, size = 4, 150, 200 << 10 // 120 MB, where 64 MiB may wait
	var texts []string
	for range tokens {
		texts = append(texts, s.token(t, "acme"))
	}
	before := heap()
	release := holdWrites(t, s.path)
	began, held := time.Now(), time.Duration(0) // as long as the store is
	const all = tokens * each
	replies := make(chan publishReply, all)
	for _, token := range texts {
		s.storm(t.Context(), token, each, size, replies)
	}
	got := map[int]int{}
	early := 0
	accepted := map[string]bool{}
	var most int64
	take := func(r publishReply) {
		got[r.status]++
		switch r.status {
		case http.StatusAccepted:
			accepted[r.id] = true
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			if r.retryAfter == "" {
				t.Errorf("%d without Retry-After", r.status)
			}
		default:
			t.Errorf("a publish was answered %d", r.status)
		}
		if over := r.took - held; over > 15*time.Second {
			t.Errorf("a publish was answered %d, %s after the store came back", r.status, over)
		}
	}
	next := func(atMost time.Duration) bool {
		deadline := time.NewTimer(atMost)
		defer deadline.Stop()
		select {
		case r := <-replies:
			take(r)
			return true
		case <-deadline.C:
			return false
		}
	}
	for wait := 20 * time.Second; next(wait); wait = time.Second { // then nothing is answered any more: the rest waits for the store
		early++
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, int64(m.HeapAlloc)-before)
	}
	if early == 0 || got[http.StatusAccepted] != 0 {
		t.Fatalf("while the store takes nothing: %d answers, %v", early, got)
	}
	held = time.Since(began)
	release()
	for n := early; n < all; n++ {
		if !next(15 * time.Second) {
			t.Fatalf("%d publishes have no answer", all-n)
		}
	}
	t.Logf("%d publishes: %v; %d were refused before the store came back; the heap grew by at most %d MiB", all, got, early, most>>20)
	if most > 400<<20 {
		t.Errorf("the heap grew by %d MiB", most>>20)
	}
	kept := s.eventIDs(t, texts[0])
	for id := range accepted {
		if !kept[id] {
			t.Errorf("%s was answered 202 and is not there", id)
		}
	}
	if len(kept) != len(accepted) {
		t.Errorf("%d events are there, %d were answered 202", len(kept), len(accepted))
	}
	tally.Count(t, "publishing under overload: 503 early with Retry-After, never after a 202", all)
}

// eventIDs lists all events of the token's tenant.
func (s *service) eventIDs(t *testing.T, token string) map[string]bool {
	t.Helper()
	kept := map[string]bool{}
	for cursor := ""; ; {
		status, _, body := s.request(t, token, "GET", "/events?limit=250"+cursor, "", "")
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		for part := range strings.SplitSeq(body, `"id":"evt_`) {
			if id, _, ok := strings.Cut(part, `"`); ok && len(id) == 26 {
				kept["evt_"+id] = true
			}
		}
		next := between(body, `"next_cursor":"`, `"`)
		if next == "" {
			return kept
		}
		cursor = "&cursor=" + next
	}
}
