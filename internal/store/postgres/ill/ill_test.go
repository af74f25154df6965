package ill_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// ward is a database with a table, a wire to it and a way past the wire.
type ward struct {
	testing.TB
	*ill.Wire
	database string
	past     *pgx.Conn
	dead     atomic.Bool // the node is: it sends no cancellation
}

func newWard(t testing.TB) *ward {
	t.Helper()
	return newWardIn(t, pgtest.Database(t, ""))
}

// newWardIn is a ward in a database that another one has left: a database takes
// much longer to make than a wire.
func newWardIn(t testing.TB, address string) *ward {
	t.Helper()
	dir := pgtest.Socket(t)
	if dir == "" {
		t.Skip("POSTHORN_TEST_POSTGRES names a server without a socket in reach")
	}
	w := &ward{TB: t, database: pgtest.Name(address)}
	w.past = w.dial(address)
	w.eventually("the one before has left", func() bool { return w.sessions("node")+w.sessions("other") == 0 })
	w.exec(w.past, `DROP TABLE IF EXISTS kept`)
	w.exec(w.past, `CREATE TABLE kept (n int, said text)`)
	w.Wire = ill.New(t, dir)
	return w
}

func (w *ward) dial(address string) *pgx.Conn {
	w.Helper()
	config, err := pgx.ParseConfig(address)
	if err != nil {
		w.Fatal(err)
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if w.dead.Load() {
			return nil, net.ErrClosed
		}
		return dial(ctx, network, address)
	}
	c, err := pgx.ConnectConfig(w.Context(), config)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody waits for a server that is silent
		_ = c.Close(ctx)
	})
	return c
}

// node connects through the wire, for a purpose.
func (w *ward) node(purpose string) *pgx.Conn {
	w.Helper()
	return w.dial(w.URL(w.database) + "&application_name=" + purpose)
}

// count is what a query past the wire counts.
func (w *ward) count(query string, args ...any) (n int) {
	w.Helper()
	if err := w.past.QueryRow(context.WithoutCancel(w.Context()), query, args...).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

// kept is how often a row is stored.
func (w *ward) kept(n int) int {
	w.Helper()
	return w.count(`SELECT count(*) FROM kept WHERE n = $1`, n)
}

// sessions are those that the server has for a purpose.
func (w *ward) sessions(purpose string) int {
	w.Helper()
	return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`, purpose)
}

func (w *ward) exec(c *pgx.Conn, query string, args ...any) {
	w.Helper()
	if _, err := c.Exec(w.Context(), query, args...); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

func (w *ward) eventually(what string, is func() bool) {
	w.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(until) {
			w.Fatalf("waited in vain until %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (w *ward) struck(s *ill.Strike) {
	w.Helper()
	select {
	case <-s.Struck():
	case <-time.After(20 * time.Second):
		w.Fatal("the fault did not happen")
	}
}

// left waits until the node has given up the connection that was struck.
func (w *ward) left(s *ill.Strike) {
	w.Helper()
	select {
	case <-s.Left():
	case <-time.After(20 * time.Second):
		w.Fatal("the node has not given up")
	}
}

func (w *ward) notStruck(s *ill.Strike) {
	w.Helper()
	select {
	case <-s.Struck():
		w.Fatal("the fault happened")
	default:
	}
}

// result waits for a call that runs beside the test.
func (w *ward) result(call <-chan error) error {
	w.Helper()
	select {
	case err := <-call:
		return err
	case <-time.After(20 * time.Second):
		w.Fatal("the call does not return")
		return nil
	}
}

func (w *ward) waiting(call <-chan error) {
	w.Helper()
	select {
	case err := <-call:
		w.Fatalf("the call returned: %v", err)
	default:
	}
}

func beside(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return done
}

const insert = `INSERT INTO kept (n, said) VALUES ($1, $2)`

// ways are those in which a driver has a statement executed.
var ways = map[string]func(ctx context.Context, c *pgx.Conn, n int, said string) error{
	"prepared": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		_, err := c.Exec(ctx, insert, n, said)
		return err
	},
	"unnamed": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		_, err := c.Exec(ctx, insert, pgx.QueryExecModeExec, n, said)
		return err
	},
	"simple": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		_, err := c.Exec(ctx, insert, pgx.QueryExecModeSimpleProtocol, n, said)
		return err
	},
	"pipeline": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		var b pgx.Batch
		b.Queue(`SELECT repeat('x', 100000), pg_sleep(0.02)`) // takes time, and its answer does not wait for the end of the pipeline
		b.Queue(insert, n, said)
		b.Queue(`SELECT 1`)
		return c.SendBatch(ctx, &b).Close()
	},
	"transaction": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		var b pgx.Batch
		b.Queue("BEGIN")
		b.Queue(insert, n, said)
		b.Queue("COMMIT")
		return c.SendBatch(ctx, &b).Close()
	},
	"copy": func(ctx context.Context, c *pgx.Conn, n int, said string) error {
		_, err := c.CopyFrom(ctx, pgx.Identifier{"kept"}, []string{"n", "said"}, pgx.CopyFromRows([][]any{{n, said}}))
		return err
	},
}

// eachWay runs a test with a connection whose statements are known, and the part
// of the text that names the statement that writes.
func eachWay(t *testing.T, test func(w *ward, c *pgx.Conn, statement string, write func(ctx context.Context, n int) error)) {
	t.Parallel()
	address := pgtest.Database(t, "")
	for way, write := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWardIn(t, address)
			c := w.node("node")
			if err := write(t.Context(), c, 0, "before"); err != nil {
				t.Fatal(err)
			}
			statement := "INSERT INTO kept"
			if way == "copy" {
				statement = "copy"
			}
			test(w, c, statement, func(ctx context.Context, n int) error { return write(ctx, c, n, "text") })
		})
	}
}
