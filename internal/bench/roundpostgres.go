package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn/internal/proof"
)

// pgRound takes every figure of PostgreSQL's table once, each beside the embedded
// store's on the same machine.
type pgRound struct {
	round
	embedded, after, one, two Report
	outbox                    Latency
	claims                    statement
	counting                  bool // pg_stat_statements is there
	pending                   int
	takeover                  time.Duration
}

// takePostgres takes the table of a PostgreSQL.
func (t *Table) takePostgres(ctx context.Context, p Plan) error {
	for i := range p.Runs {
		r := pgRound{round: round{plan: p, ctx: ctx, prefix: fmt.Sprintf("run %d of %d: ", i+1, p.Runs)}}
		r.take()
		if r.err != nil {
			return r.err
		}
		t.add(r.rows())
	}
	return nil
}

func (r *pgRound) take() {
	on := func(nodes int, set func(*Config)) func(*Config) {
		return func(c *Config) {
			c.Store, c.Nodes = r.plan.Base.Store, nodes
			set(c)
		}
	}
	usual := func(*Config) {}
	r.embedded = r.run("the embedded store", usual)
	r.one = r.run("one node", on(1, usual))
	r.two = r.run("two nodes", on(2, usual))
	r.after = r.run("the embedded store again", usual)
	r.slow = r.run("100/s", on(1, func(c *Config) { c.Rate, c.Duration = 100, 2*c.Duration }))
	r.with("the outbox, 100/s", on(1, func(c *Config) { c.Rate, c.Duration = 100, 2*c.Duration }), r.measureOutbox)
	r.with("claims", on(1, func(c *Config) { c.Endpoints = 100 }), r.measureClaims)
	r.with("takeover", on(2, func(c *Config) { c.Endpoints, c.Hang = 2, 1 }), r.measureTakeover)
}

// with runs a measurement on a node of its own.
func (r *pgRound) with(what string, set func(*Config), measure func(*node) error) {
	if r.err != nil {
		return
	}
	c := r.config(what)
	set(&c)
	n, err := newNode(r.ctx, c)
	if err == nil {
		err = measure(n)
		n.Close()
	}
	if err != nil {
		r.err = fmt.Errorf("%s: %w", what, err)
	}
}

// measureOutbox publishes by the SQL function and takes the time from before the
// commit to the receipt.
func (r *pgRound) measureOutbox(n *node) error {
	c := n.c
	pool, err := pgxpool.New(r.ctx, n.database.url)
	if err != nil {
		return err
	}
	defer pool.Close()
	l := newLedger(c, c.events())
	n.receiver.ledger.Store(l)
	defer watch(c, "the outbox, 100/s", l)()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for {
		first := int(l.next.Add(1)) - 1
		due := time.Duration(float64(first) / c.Rate * float64(time.Second))
		if due >= c.Duration || first >= len(l.due) || !pauseUntil(r.ctx, l.start.Add(due)) {
			break
		}
		wg.Go(func() {
			body := []byte(data(c.BodySize))
			digits(body[1+len(numberKey):][:numberWidth], first)
			l.due[first] = l.now()
			if _, e := pool.Exec(r.ctx, `SELECT posthorn.publish('bench0', $1, $2)`, eventType(0), string(body)); e != nil {
				mu.Lock()
				defer mu.Unlock()
				err = e
				return
			}
			l.accepted[first] = l.now()
		})
	}
	wg.Wait()
	if err == nil {
		err = l.settle(r.ctx)
	}
	report := l.report()
	if err == nil && report.Lost > 0 {
		err = fmt.Errorf("%d events did not arrive", report.Lost)
	}
	r.outbox = report.Receipt
	return err
}

// measureClaims has many deliveries come due at once while a snapshot is held,
// which keeps the database from removing what is done with.
func (r *pgRound) measureClaims(n *node) error {
	if r.pending = 1_000_000; r.plan.Quick {
		r.pending /= 10
	}
	r.counting = n.database.counting
	if !r.counting {
		return nil
	}
	c := n.c
	c.Conns, c.Batch, c.Duration = 4, 500, time.Hour
	due := time.Now().Add(time.Duration(r.pending/10_000+5) * time.Second).UTC()
	l := newLedger(c, r.pending)
	n.receiver.ledger.Store(l)
	c.tell("preparing: %d deliveries that come due", r.pending)
	g := generator{config: c, ledger: l, request: publishing(c, n.url, n.tokens, shape{members: fmt.Sprintf(`,"deliver_at":%q`, due.Format(time.RFC3339))})}
	if err := g.run(r.ctx); err != nil {
		return err
	}
	holder, err := pgx.Connect(r.ctx, n.database.url)
	if err != nil {
		return err
	}
	defer holder.Close(context.WithoutCancel(r.ctx))
	if _, err := holder.Exec(r.ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class`); err != nil {
		return err
	}
	pauseUntil(r.ctx, due)
	n.database.forget(r.ctx)
	c.tell("claiming beside a held snapshot")
	length := 20 * time.Second
	if r.plan.Quick {
		length = 8 * time.Second
	}
	pauseUntil(r.ctx, time.Now().Add(length))
	r.claims, err = n.database.ofKind(r.ctx, claimPart)
	return err
}

// measureTakeover kills a node in the middle of an attempt and takes the time until
// the other one makes it.
func (r *pgRound) measureTakeover(n *node) error {
	before := n.receiver.hung.Load() // by newNode: one attempt of the first node hangs
	n.c.tell("takeover")
	n.server.Kill()
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	err := proof.Until(ctx, time.Millisecond, func() (bool, error) { return n.receiver.hung.Load() > before, nil })
	r.takeover = time.Since(began)
	return err
}

func (r *pgRound) rows() []Row {
	embedded := (r.embedded.DeliveredPerSecond + r.after.DeliveredPerSecond) / 2
	one, two := r.one.DeliveredPerSecond, r.two.DeliveredPerSecond
	rows := []Row{
		info("single publishes on the embedded store, before and after", embedded, "/s"),
		info("processors that other processes (PostgreSQL is not one of them) kept busy then", r.embedded.Others, ""),
		atLeast("single publishes, one node, to the embedded store", one/embedded, 0.60, "times", "%.0f/s", one),
		atLeast("single publishes, two nodes, to the embedded store", two/embedded, 0.45, "times", "%.0f/s", two),
		atMost("publish to receipt at 100/s, p50", r.slow.Receipt.P50, 3, "ms", ""),
		atMost("publish to receipt at 100/s, p99", r.slow.Receipt.P99, 10, "ms", ""),
		atMost("outbox: commit to receipt at 100/s, p99", r.outbox.P99, 150, "ms", "p50 %.1f ms", r.outbox.P50),
		atMost("log (WAL) per delivery", r.one.Database.WAL/1024, 2.5, "KiB", ""),
		atMost("takeover of a dead node's work", r.takeover.Seconds(), 11, "s", "the lease is 10 s"),
	}
	if !r.counting {
		return append(rows, info("statements and claims were not counted: load pg_stat_statements", 0, ""))
	}
	return append(rows,
		atMost("statements of a group of results", r.one.Database.PerResult, 2.05, "", "of a group of publishes 1; the rest are results for what was settled meanwhile"),
		atMost(fmt.Sprintf("%d due and a held snapshot: a claim, mean", r.pending), r.claims.mean, 10, "ms",
			"max %.1f ms; %d claims of %d rows", r.claims.most, r.claims.calls, r.claims.rows/max(r.claims.calls, 1)))
}
