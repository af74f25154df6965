package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestAPatchLoopDelaysNobodyElsesOutbox: what one tenant left in the outbox is
// published as soon as ever, however busily another one publishes there and changes
// its endpoints.
func TestAPatchLoopDelaysNobodyElsesOutbox(t *testing.T) {
	url := pgtest.Database(t, "")
	s := serveStore(t, "unused", "POSTHORN_STORE="+url)
	s.path = url
	arrived := make(chan struct{}, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quiet" {
			arrived <- struct{}{}
		}
	}))
	defer receiver.Close()
	busy, quiet := s.tenant(t, "busy"), s.tenant(t, "quiet")
	var patched []string // many, so that matching again takes a while
	for i := range 400 {
		e, err := busy.CreateEndpoint(t.Context(), client.NewEndpoint{URL: fmt.Sprintf("%s/busy/%d", receiver.URL, i), Events: []string{"assignments.*"}})
		if err != nil {
			t.Fatal(err)
		}
		if i < 8 {
			patched = append(patched, e.ID)
		}
	}
	if _, err := quiet.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver.URL + "/quiet", Events: []string{"cases.*"}}); err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// How long the quiet tenant's events take to their receiver, sorted.
	measure := func() (took []time.Duration) {
		t.Helper()
		for range 40 {
			began := time.Now()
			if _, err := db.Exec(t.Context(), `SELECT posthorn.publish('quiet', 'cases.updated', '{}')`); err != nil {
				t.Fatal(err)
			}
			select {
			case <-arrived:
			case <-time.After(3 * time.Minute):
				t.Fatal("an event of the outbox does not arrive")
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took
	}
	// Changes alone take processors from everybody: what counts is what the busy
	// tenant's events, which must be matched again and again, add to that. A machine that
	// is busy with others for one of the two shows nothing: it is looked at three times.
	stop := patching(t, busy, patched...)
	defer stop()
	measure()
	for try := 1; ; try++ {
		alone := measure()
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		load.Go(func() {
			for ctx.Err() == nil {
				_, _ = db.Exec(ctx, `SELECT posthorn.publish('busy', 'cases.updated', '{}') FROM generate_series(1, 3)`)
				pauseForTest(ctx, 20*time.Millisecond)
			}
		})
		beside := measure()
		cancel()
		load.Wait()
		t.Logf("alone median %s, slowest %s; beside the outbox of who makes changes median %s, slowest %s", alone[20], alone[39], beside[20], beside[39])
		if beside[20] <= 3*alone[20]+20*time.Millisecond {
			return
		}
		if try == 3 {
			t.Fatalf("the median went from %s to %s", alone[20], beside[20])
		}
	}
}
