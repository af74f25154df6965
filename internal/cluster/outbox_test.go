package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// grantPublishing is what docs/postgres.md tells operators to grant to a program.
const grantPublishing = `
	CREATE ROLE shop LOGIN;
	GRANT USAGE ON SCHEMA posthorn TO shop;
	GRANT EXECUTE ON FUNCTION posthorn.publish TO shop;
	CREATE TABLE orders (n int PRIMARY KEY);
	GRANT INSERT ON orders TO shop`

// shop is a program that has no right on any table of Posthorn.
func shop(ctx context.Context, t *testing.T, w *world) *pgxpool.Pool {
	t.Helper()
	admin, err := pgx.Connect(ctx, w.db.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, grantPublishing); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(ctx, strings.Replace(w.db.URL(), "user=postgres", "user=shop", 1)+"&pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// order is one transaction of the shop: a row of its own and an event.
func (w *world) order(ctx context.Context, db *pgxpool.Pool, n int, commit bool) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	id, data := fmt.Sprintf("o-%x-%d", w.seed, n), fmt.Sprintf(`{"n":%d,  "note" : "ä", "1":1.50}`, n)
	w.ledger.add(id, &event{tenant: n % tenants, n: n, data: data})
	if _, err := tx.Exec(ctx, `INSERT INTO orders VALUES ($1)`, n); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT posthorn.publish($1, 'cases.updated', $2, $3)`, tenantName(n%tenants), data, id); err != nil {
		return err
	}
	if !commit {
		return nil
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	w.ledger.accept(id, len((&event{}).goesTo()))
	return nil
}

// TestTheOutboxPublishesWhatWasCommitted runs two nodes beside a program that
// publishes within transactions of its own. It measures, so that no other test runs
// beside it.
func TestTheOutboxPublishesWhatWasCommitted(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, fmt.Errorf("the run took longer than two minutes"))
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 2)
	db := shop(ctx, t, w)
	if _, err := db.Exec(ctx, `SELECT 1 FROM posthorn.outbox`); err == nil {
		t.Error("the program can read the outbox; it was to have no right on any table")
	}
	// At 100/s, 99 of 100 are to arrive within 150 ms of their commit. Rounds go on
	// until one has that: on a busy machine the others measure its other work.
	const most, perRound, perSecond, bound = 6, 200, 100, 150 * time.Millisecond
	var p99 []time.Duration
	n := 0
	for len(p99) < 2 || *long && slices.Min(p99) > bound && len(p99) < most && !proof.RaceDetector {
		first, start := n, time.Now()
		var wg sync.WaitGroup
		for ; n < first+perRound; n++ {
			w.pass(time.Until(start.Add(time.Duration(n-first) * time.Second / perSecond)))
			if n%5 == 4 { // is rolled back, and must not arrive
				if err := w.order(ctx, db, n, false); err != nil {
					t.Fatal(err)
				}
				continue
			}
			of := n
			wg.Go(func() {
				if err := w.order(ctx, db, of, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		w.settle(20 * time.Second)
		p99 = append(p99, w.slowest(first, 0.99))
	}
	t.Logf("commit to receipt, p99 of each round: %v", p99)
	if best := slices.Min(p99); best > bound && *long && !proof.RaceDetector { // figures are for the night: others use the machine by day
		t.Errorf("commit to receipt at %d/s has a p99 of %s, want at most %s", perSecond, best, bound)
	}
	s := w.ledger.count()
	if s.duplicates > 0 || s.lost > 0 || s.accepted != n*4/5 {
		t.Errorf("of %d committed, %d are lost, %d came twice", s.accepted, s.lost, s.duplicates)
	}
	for id, e := range w.ledger.events {
		if e.accepted.IsZero() && e.got[steady].tries > 0 {
			t.Errorf("%s arrived, though its transaction was rolled back", id)
		}
	}
	for _, f := range w.ledger.wrong {
		t.Error(f)
	}
	tally.Count(t, "the outbox publishes what was committed, once, and nothing that was rolled back", n)
	if t.Failed() {
		w.explain()
	}
}

// slowest is the time from commit to receipt that a share of the events from
// first on stayed below.
func (w *world) slowest(first int, share float64) time.Duration {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	var all []time.Duration
	for _, e := range w.ledger.events {
		if e.n >= first && !e.accepted.IsZero() && len(e.got[steady].acked) > 0 {
			all = append(all, e.got[steady].acked[0].Sub(e.accepted))
		}
	}
	slices.Sort(all)
	return all[int(float64(len(all))*share)]
}

// TestTheOutboxKeepsWhatIsRefused: an event that the catalogue does not know is
// found by the node only. It is shown, and retried or dropped by an operator.
func TestTheOutboxKeepsWhatIsRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ops := ln.Addr().String()
	ln.Close()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 1, "--ops-listen", ops)
	db := shop(ctx, t, w)
	platform, err := w.nodes[0].Command(ctx, "token", "create", "--platform", "--scope", "admin")
	if err != nil {
		t.Fatal(err)
	}
	admin := proof.API{URL: w.nodes[0].URL(), Token: strings.TrimSpace(platform)}
	publish := func(kind, id, data string) (row string) {
		t.Helper()
		if err := db.QueryRow(ctx, `SELECT posthorn.publish('xpath', $1, $2, $3)::text`, kind, data, id).Scan(&row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	type shown struct {
		ID     string `json:"id"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	}
	list := func() (rows []shown) {
		t.Helper()
		if err := admin.Call(ctx, http.MethodGet, "/outbox", nil, &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	good := func(id string) {
		w.ledger.add(id, &event{tenant: 0, data: `{"n":1}`})
		w.ledger.accept(id, len((&event{}).goesTo()))
		publish("cases.updated", id, `{"n":1}`)
	}
	unknown := publish("cases.nonsense", "a", `{}`)
	twice := publish("cases.updated", "b", `{"a":1,"a":2}`)
	good("c") // the others do not keep it
	w.settle(20 * time.Second)
	conflict := publish("cases.updated", "c", `{"n":2}`)
	err = proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { return len(list()) == 3, nil })
	if err != nil {
		t.Fatalf("%v: %+v", err, list())
	}
	for i, want := range []shown{{conflict, "refused", "used before with other content"}, {twice, "refused", "twice"}, {unknown, "refused", "not in the catalogue"}} {
		if got := list()[i]; got.ID != want.ID || got.State != want.State || !strings.Contains(got.Reason, want.Reason) {
			t.Errorf("the outbox shows %+v, want %+v", got, want)
		}
	}
	resp, err := http.Get("http://" + ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	figures, err := io.ReadAll(resp.Body)
	for _, want := range []string{`posthorn_outbox_events{state="refused"} 3`, `posthorn_outbox_events{state="waiting"} 0`, `posthorn_outbox_oldest_seconds 0`} {
		if !strings.Contains(string(figures), want+"\n") {
			t.Errorf("the metrics lack %s (%v)", want, err)
		}
	}
	for _, args := range [][]string{{"retry", unknown}, {"drop", twice}, {"drop", conflict}} {
		if _, err := w.nodes[0].Command(ctx, "outbox", args[0], args[1], "--token", admin.Token); err != nil {
			t.Fatal(err)
		}
	}
	// It is refused again, as nothing was mended.
	if err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { rows := list(); return len(rows) == 1 && rows[0].ID == unknown, nil }); err != nil {
		t.Fatalf("%v: %+v", err, list())
	}
	for _, f := range w.ledger.wrong {
		t.Error(f)
	}
}
