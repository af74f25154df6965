package ill_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

func TestTheNthExecutionIsStruck(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	w.exec(c, insert, 1, "")
	s := w.Strike(ill.Fault{Statement: "INSERT", Nth: 2})
	w.exec(c, insert, 2, "")
	w.exec(c, `SELECT 1`)
	w.notStruck(s)
	if _, err := c.Exec(t.Context(), insert, 3, ""); err == nil {
		t.Error("the second passed")
	}
	w.struck(s)
	w.exec(w.node("node"), insert, 4, "") // it happens once
}

func TestACommitIsStruckByWhatItCommits(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	transaction := func(n int, query string, args ...any) error {
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
		w.exec(c, insert, n, "")
		return tx.Commit(t.Context())
	}
	w.exec(c, `SELECT 41`)
	s := w.Strike(ill.Fault{Statement: "commit", Within: "SELECT 4", At: ill.Answer})
	for n, query := range []string{`SELECT 1`, `SELECT 2`} {
		if err := transaction(n, query); err != nil {
			t.Fatal(err)
		}
		w.exec(c, `SELECT 42`) // in none
	}
	w.notStruck(s)
	if err := transaction(2, `SELECT 4`); err == nil {
		t.Error("the answer to the commit came")
	}
	w.struck(s)
	if w.kept(2) != 1 {
		t.Error("not committed")
	}
}

func TestACommitInAPipelineIsStruckByWhatItCommits(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	s := w.Strike(ill.Fault{Statement: "COMMIT", Within: "INSERT INTO kept", At: ill.Query})
	c := w.node("node")
	var b pgx.Batch
	for _, query := range []string{"BEGIN", "SELECT 1", "COMMIT"} {
		b.Queue(query)
	}
	if err := c.SendBatch(t.Context(), &b).Close(); err != nil {
		t.Fatal(err)
	}
	w.notStruck(s)
	if err := ways["transaction"](t.Context(), c, 1, ""); err == nil {
		t.Error("committed")
	}
	w.struck(s)
	w.eventually("the server knows", func() bool { return w.sessions("node") == 0 })
	if w.kept(1) != 0 {
		t.Error("committed")
	}
}

func TestOnePurposeIsStruckAndOthersPass(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	hot, other := w.node("hot-1"), w.node("other")
	s := w.Strike(ill.Fault{Statement: "INSERT", Purpose: "hot", Do: ill.Hold})
	w.exec(other, insert, 1, "")
	w.notStruck(s)
	call := beside(func() error { return ways["prepared"](t.Context(), hot, 2, "") })
	w.struck(s)
	w.exec(other, insert, 3, "")
	w.exec(w.node("hot-2"), insert, 4, "")
	w.waiting(call)
	s.Release()
	if err := w.result(call); err != nil {
		t.Error(err)
	}
}

func TestParametersAreStruck(t *testing.T) {
	t.Parallel()
	address := pgtest.Database(t, "")
	for way, write := range ways {
		if way == "copy" {
			continue // what is copied is no parameter
		}
		t.Run(way, func(t *testing.T) {
			w := newWardIn(t, address)
			c := w.node("node")
			s := w.Strike(ill.Fault{Bytes: "trap", At: ill.Answer})
			if err := write(t.Context(), c, 1, "harmless"); err != nil {
				t.Fatal(err)
			}
			w.notStruck(s)
			if err := write(t.Context(), c, 2, "a trap here"); err == nil {
				t.Error("it passed")
			}
			w.struck(s)
			if w.kept(2) != 1 {
				t.Error("not written")
			}
		})
	}
}

func TestSeveralStrikesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	before := w.Strike(ill.Fault{Statement: "INSERT", At: ill.Query, Do: ill.Hold})
	after := w.Strike(ill.Fault{Statement: "INSERT", At: ill.Answer, Do: ill.Hold})
	lost := w.Strike(ill.Fault{Statement: "SELECT 7"})
	gone := w.Strike(ill.Fault{Statement: "INSERT"})
	gone.Disarm()
	call := beside(func() error { return ways["prepared"](t.Context(), c, 1, "") })
	w.struck(before)
	w.notStruck(after)
	before.Release()
	w.struck(after)
	if w.kept(1) != 1 {
		t.Error("not written")
	}
	w.waiting(call)
	after.Release()
	if err := w.result(call); err != nil {
		t.Error(err)
	}
	w.notStruck(lost)
	if _, err := c.Exec(t.Context(), `SELECT 7`); err == nil {
		t.Error("it passed")
	}
	w.struck(lost)
	w.notStruck(gone)
}

func TestExecutionsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c, other := w.node("node-1"), w.node("other")
	for _, write := range ways {
		if err := write(t.Context(), c, 0, ""); err != nil { // prepares
			t.Fatal(err)
		}
	}
	stop := w.Record("node")
	for _, way := range []string{"prepared", "unnamed", "transaction"} {
		if err := ways[way](t.Context(), c, 1, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(other, `SELECT 1`)
	got := stop()
	w.exec(c, `SELECT 2`)
	want := []ill.Execution{{Text: insert, Purpose: "node-1"}, {Text: insert, Purpose: "node-1"},
		{Text: "BEGIN", Purpose: "node-1"}, {Text: insert, Purpose: "node-1"}, {Text: "COMMIT", Purpose: "node-1"}}
	if !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
}

func TestACancellationPasses(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	ctx, giveUp := context.WithCancel(t.Context())
	call := beside(func() error {
		_, err := c.Exec(ctx, `SELECT pg_sleep(600)`)
		return err
	})
	w.eventually("the server acts", func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'node' AND datname = current_database() AND wait_event = 'PgSleep'`) == 1
	})
	giveUp()
	if err := w.result(call); err == nil {
		t.Error("slept")
	}
	w.eventually("the server ended it", func() bool { return w.sessions("node") == 0 })
}
