package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// socket is the folder of the shared server's socket.
func socket(t *testing.T) string {
	t.Helper()
	dir := pgtest.Socket(t)
	if dir == "" {
		t.Skip("POSTHORN_TEST_POSTGRES names a server without a socket in reach; this test parts a node from it")
	}
	return dir
}

// TestAnAnswerThatIsLostIsFoundOut breaks the connection at a statement, before
// or after the database got it, and holds the store to its word: no error and
// done, or an error and nothing done.
func TestAnAnswerThatIsLostIsFoundOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	s := c.node(w.URL(pgtest.Name(c.url)))
	c.publish(s) // prepares the statements
	id := c.publish(s)
	if _, err := record(s, c.result(c.publish(s), posthorn.ClassOK)); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, after := range []bool{true, false} {
		at := ill.Query
		if after {
			at = ill.Answer
		}
		broken := func(t *testing.T, s *ill.Strike) {
			t.Helper()
			select {
			case <-s.Struck():
				cases++
			default:
				t.Fatal("the connection was not broken")
			}
		}
		t.Run(fmt.Sprintf("publish,after=%v", after), func(t *testing.T) {
			pub := c.publication(s, "")
			pub.Events[0].Source = "trap-source"
			lost := w.Strike(ill.Fault{Bytes: "trap-source", At: at, Do: ill.Drop})
			got, err := s.Publish(t.Context(), pub)
			broken(t, lost)
			if (err == nil) != after {
				t.Errorf("published with %v", err)
			}
			if err == nil && !c.may(s, got[0].ID+1) {
				t.Error("the delivery is not this node's to attempt")
			}
			stored, _, err := s.Events(t.Context(), store.EventFilter{Tenant: c.tenant.ID}, store.Page{Limit: 1000})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, e := range stored {
				if e.Source == "trap-source" {
					n++
				}
			}
			if n != 1 { // of the first case, and of that alone
				t.Errorf("%d stored", n)
			}
		})
		t.Run(fmt.Sprintf("change,after=%v", after), func(t *testing.T) {
			name := fmt.Sprintf("tenant-%v", after)
			lost := w.Strike(ill.Fault{Statement: "COMMIT", At: at, Do: ill.Drop})
			_, err := s.CreateTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, name)
			broken(t, lost)
			if (err == nil) != after {
				t.Errorf("created with %v", err)
			}
			_, found := s.TenantByName(t.Context(), name)
			if (found == nil) != after {
				t.Errorf("then found: %v", found)
			}
		})
		t.Run(fmt.Sprintf("result,after=%v", after), func(t *testing.T) {
			r := c.result(id, posthorn.ClassHTTPStatus)
			r.Attempt.Detail = "trap-detail"
			d, err := s.DeliveryByID(t.Context(), c.tenant.ID, id)
			if err != nil {
				t.Fatal(err)
			}
			r.Tries = d.Progress.Tries
			lost := w.Strike(ill.Fault{Bytes: "trap-detail", At: at, Do: ill.Drop})
			rec, err := record(s, r)
			broken(t, lost)
			if (err == nil) != after || rec.Lost {
				t.Errorf("recorded %+v with %v", rec, err)
			}
			now, err := s.DeliveryByID(t.Context(), c.tenant.ID, id)
			if err != nil {
				t.Fatal(err)
			}
			if (now.Progress.Tries == r.Tries+1) != after {
				t.Errorf("%d tries after %d", now.Progress.Tries, r.Tries)
			}
		})
	}
	tally.Count(t, "a commit whose answer was lost is found out: done and no error, or an error and nothing done", cases)
}

// TestARestartOfTheDatabaseIsRiddenOut crashes the server under nodes that
// publish and record.
func TestARestartOfTheDatabaseIsRiddenOut(t *testing.T) {
	t.Parallel()
	pgtest.URL(t) // skips
	server, err := pgtest.Start()
	if err != nil {
		if errors.Is(err, pgtest.ErrNotInstalled) {
			t.Skip("no binaries to start a server from that may be crashed")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := postgres.Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, server.URL())
	nodes := []*postgres.Store{c.nodeFor(c.url, 10*time.Second), c.nodeFor(c.url, 10*time.Second)}
	stop := make(chan struct{})
	var mu sync.Mutex
	accepted, refused := map[string]posthorn.ID{}, map[string]error{}
	finished := map[posthorn.ID]bool{}
	var wg sync.WaitGroup
	for n, s := range nodes {
		for w := range 3 {
			p := c.publication(s)
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					p, key := p, fmt.Sprintf("%d-%d-%d", n, w, i)
					p.At = time.Now()
					p.Events = []store.NewEvent{c.event(key)}
					got, err := s.Publish(t.Context(), p)
					mu.Lock()
					if err != nil {
						refused[key] = err
					} else {
						accepted[key] = got[0].ID
					}
					mu.Unlock()
					if err != nil {
						if !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("publish: %v", err)
							return
						}
						<-time.After(20 * time.Millisecond)
						continue
					}
					id := got[0].ID + 1
					if !s.MayAttempt(t.Context(), store.Hold{ID: id}) {
						t.Error("a delivery was taken although its node lives")
						return
					}
					rec, err := record(s, c.result(id, posthorn.ClassOK))
					for ; err != nil; rec, err = record(s, c.result(id, posthorn.ClassOK)) {
						if !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("record: %v", err)
							return
						}
						<-time.After(20 * time.Millisecond)
					}
					if rec.Lost {
						t.Errorf("the result of %x is lost although its node lives", id)
						return
					}
					mu.Lock()
					finished[id] = true
					mu.Unlock()
				}
			})
		}
	}
	const crashes = 2
	for range crashes {
		mu.Lock()
		before := len(finished)
		mu.Unlock()
		c.eventually("deliveries finish", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(finished) >= before+100
		})
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Run(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range nodes {
		c.eventually("the node is ready again", func() bool { return s.Ping(t.Context()) == nil })
	}
	close(stop)
	wg.Wait()
	t.Logf("accepted %d, refused %d", len(accepted), len(refused))
	for key, id := range accepted {
		e, err := nodes[0].EventByRef(t.Context(), c.tenant.ID, key)
		if err != nil || e.ID != id {
			t.Fatalf("%s was accepted as %x and is %x, %v", key, id, e.ID, err)
		}
		d, err := nodes[0].DeliveryByID(t.Context(), c.tenant.ID, id+1)
		if err != nil || finished[id+1] && d.Shown() != "succeeded" || d.Progress.Tries > 1 {
			t.Fatalf("%s: %s after %d tries, %v", key, d.Shown(), d.Progress.Tries, err)
		}
	}
	for key, why := range refused {
		if e, err := nodes[0].EventByRef(t.Context(), c.tenant.ID, key); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%s was refused (%v) and is stored as %x, %v", key, why, e.ID, err)
		}
	}
	tally.Count(t, "a crash of the database loses nothing that was accepted and keeps nothing that was refused", len(accepted)+len(refused))
}

// TestAStatementWithoutItsNodeIsEnded cuts a node off while its publish waits
// in the database, for what another does with its key: it must not be stored after it was said to have
// failed.
func TestAStatementWithoutItsNodeIsEnded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	w := ill.New(t, socket(t))
	s := c.node(w.URL(pgtest.Name(c.url)))
	c.publish(s)
	lock, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close(context.Background())
	exec := func(query string) {
		t.Helper()
		if _, err := lock.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	count := func(query string) (n int) {
		t.Helper()
		if err := lock.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	pub := c.publication(s, "key")
	exec("BEGIN")
	exec(fmt.Sprintf("INSERT INTO posthorn.idempotency (tenant, kind, key, hash, event, expires) VALUES (%d, 1, 'key', '', 0, 0)", c.tenant.ID))
	failed := make(chan error)
	go func() {
		_, err := s.Publish(t.Context(), pub)
		failed <- err
	}()
	c.eventually("the publish waits for the key", func() bool {
		return count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
	w.Set(ill.Broken)
	cut := time.Now() // the driver sends a cancellation, which must not arrive
	c.eventually("the cut lasted", func() bool { return time.Since(cut) > time.Second })
	w.Set(ill.Open)
	if err := <-failed; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("published with %v", err)
	}
	exec("ROLLBACK") // now it could go on
	exec("BEGIN")
	exec("LOCK TABLE posthorn.events IN EXCLUSIVE MODE") // waits for whoever inserts
	if n := count("SELECT count(*) FROM posthorn.events"); n != 1 {
		t.Errorf("%d events are stored, want the first alone", n)
	}
	exec("COMMIT")
}
