package ill_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store/postgres/ill"
)

func TestADroppedQueryIsNotDone(t *testing.T) {
	eachWay(t, func(w *ward, _ *pgx.Conn, statement string, write func(context.Context, int) error) {
		s := w.Strike(ill.Fault{Statement: statement, At: ill.Query, Do: ill.Drop})
		if err := write(w.Context(), 1); err == nil {
			w.Error("the node was not told")
		}
		w.struck(s)
		w.eventually("the server knows", func() bool { return w.sessions("node") == 0 })
		if w.kept(1) != 0 {
			w.Error("it was done")
		}
	})
}

func TestADroppedAnswerIsOfWhatWasDone(t *testing.T) {
	eachWay(t, func(w *ward, _ *pgx.Conn, statement string, write func(context.Context, int) error) {
		s := w.Strike(ill.Fault{Statement: statement, At: ill.Answer, Do: ill.Drop})
		if err := write(w.Context(), 1); err == nil {
			w.Error("the node was not told")
		}
		w.struck(s)
		if w.kept(1) != 1 {
			w.Error("it was not done")
		}
		w.eventually("the server knows", func() bool { return w.sessions("node") == 0 })
	})
}

func TestAHeldQueryIsDoneWhenItIsReleased(t *testing.T) {
	eachWay(t, func(w *ward, _ *pgx.Conn, statement string, write func(context.Context, int) error) {
		s := w.Strike(ill.Fault{Statement: statement, At: ill.Query, Do: ill.Hold})
		call := beside(func() error { return write(w.Context(), 1) })
		w.struck(s)
		if w.kept(1) != 0 {
			w.Error("it was done")
		}
		w.waiting(call)
		s.Release()
		s.Release()
		if err := w.result(call); err != nil || w.kept(1) != 1 {
			w.Errorf("released: %d rows, %v", w.kept(1), err)
		}
		if err := write(w.Context(), 2); err != nil {
			w.Errorf("and then: %v", err)
		}
	})
}

func TestAHeldAnswerIsOfWhatWasDone(t *testing.T) {
	eachWay(t, func(w *ward, _ *pgx.Conn, statement string, write func(context.Context, int) error) {
		s := w.Strike(ill.Fault{Statement: statement, At: ill.Answer, Do: ill.Hold})
		call := beside(func() error { return write(w.Context(), 1) })
		w.struck(s)
		if w.kept(1) != 1 {
			w.Error("it was not done")
		}
		w.waiting(call)
		s.Release()
		if err := w.result(call); err != nil {
			w.Errorf("released: %v", err)
		}
		if err := write(w.Context(), 2); err != nil {
			w.Errorf("and then: %v", err)
		}
	})
}

func TestADelayPasses(t *testing.T) {
	for name, at := range map[string]ill.Moment{"query": ill.Query, "answer": ill.Answer} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(w *ward, _ *pgx.Conn, statement string, write func(context.Context, int) error) {
				const wait = 50 * time.Millisecond
				s := w.Strike(ill.Fault{Statement: statement, At: at, Do: ill.Delay, For: wait})
				began := time.Now()
				if err := write(w.Context(), 1); err != nil || w.kept(1) != 1 {
					w.Errorf("%d rows, %v", w.kept(1), err)
				}
				if took := time.Since(began); took < wait {
					w.Errorf("it took %v", took)
				}
				w.struck(s)
			})
		})
	}
}

func TestASilencedConnectionStaysOpen(t *testing.T) {
	for name, at := range map[string]ill.Moment{"query": ill.Query, "answer": ill.Answer} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(w *ward, c *pgx.Conn, statement string, write func(context.Context, int) error) {
				s := w.Strike(ill.Fault{Statement: statement, At: at, Do: ill.Silence})
				ctx, giveUp := context.WithCancel(w.Context())
				call := beside(func() error { return write(ctx, 1) })
				w.struck(s)
				done := 0
				if at == ill.Answer {
					done = 1
				}
				if w.kept(1) != done {
					w.Errorf("%d rows", w.kept(1))
				}
				w.waiting(call)
				giveUp()
				if err := w.result(call); !errors.Is(err, context.Canceled) {
					w.Errorf("the node was told: %v", err)
				}
				_ = c.PgConn().Conn().Close() // it does not wait for a goodbye
				w.left(s)
				w.Set(ill.Silent)
				w.Set(ill.Open)
				if err := w.node("other").Ping(w.Context()); err != nil {
					w.Errorf("other connections do not pass: %v", err)
				}
				if w.sessions("node") != 1 {
					w.Error("the server was told")
				}
				s.Release()
				w.eventually("the server knows", func() bool { return w.sessions("node") == 0 })
				if w.kept(1) != done {
					w.Errorf("then %d rows", w.kept(1))
				}
			})
		})
	}
}

func TestAQueryPassesLateAfterItsNodeGaveUp(t *testing.T) {
	for name, dies := range map[string]bool{"goodbye": false, "death": true} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(w *ward, c *pgx.Conn, statement string, write func(context.Context, int) error) {
				if statement == "copy" {
					w.Skip("a node that is gone sends no rows")
				}
				s := w.Strike(ill.Fault{Statement: statement, At: ill.Query, Do: ill.Hold})
				ctx, giveUp := context.WithCancel(w.Context())
				call := beside(func() error { return write(ctx, 1) })
				w.struck(s)
				if dies {
					w.dead.Store(true)
					_ = c.PgConn().Conn().Close()
				}
				giveUp()
				if err := w.result(call); err == nil {
					w.Error("written")
				}
				w.left(s)
				if w.kept(1) != 0 || w.sessions("node") != 1 {
					w.Errorf("%d rows, %d sessions", w.kept(1), w.sessions("node"))
				}
				s.Release()
				w.eventually("the row is there", func() bool { return w.kept(1) == 1 })
				w.eventually("the connection is closed", func() bool { return w.sessions("node") == 0 })
			})
		})
	}
}

func TestAHeldAnswerKeepsTheServersSideOpen(t *testing.T) {
	eachWay(t, func(w *ward, c *pgx.Conn, statement string, write func(context.Context, int) error) {
		s := w.Strike(ill.Fault{Statement: statement, At: ill.Answer, Do: ill.Hold})
		ctx, giveUp := context.WithCancel(w.Context())
		call := beside(func() error { return write(ctx, 1) })
		w.struck(s)
		giveUp()
		if err := w.result(call); err == nil {
			w.Error("written")
		}
		_ = c.PgConn().Conn().Close()
		w.left(s)
		if err := w.node("other").Ping(w.Context()); err != nil {
			w.Errorf("other connections do not pass: %v", err)
		}
		if w.kept(1) != 1 || w.sessions("node") != 1 {
			w.Errorf("%d rows, %d sessions", w.kept(1), w.sessions("node"))
		}
		s.Release()
		w.eventually("the connection is closed", func() bool { return w.sessions("node") == 0 })
	})
}

// TestAServerThatGoesIsHeardOf ends the server's side under what is held.
func TestAServerThatGoesIsHeardOf(t *testing.T) {
	eachWay(t, func(w *ward, c *pgx.Conn, statement string, write func(context.Context, int) error) {
		held := w.Strike(ill.Fault{Statement: statement, At: ill.Query, Do: ill.Hold})
		answer := w.Strike(ill.Fault{Statement: statement, At: ill.Answer, Do: ill.Hold})
		call := beside(func() error { return write(w.Context(), 1) })
		w.struck(held)
		w.count(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'node'`)
		if err := w.result(call); err == nil {
			w.Error("written")
		}
		held.Release()
		w.notStruck(answer)
		if w.kept(1) != 0 {
			w.Error("it was done")
		}
	})
}
