package cluster

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

var (
	rate = flag.Float64("rate", 250, "events to publish a second")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "for what is done and when, in the long form")
	long = flag.Bool("long", os.Getenv("POSTHORN_TORTURE") == "long", "a minute of load and faults at random")
)

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(proof.WithBinary(&binary, m.Run))
}

// drivesOnly skips a test that takes long under the race detector, which the binary that
// it drives has not.
func drivesOnly(t *testing.T) {
	t.Helper()
	if proof.RaceDetector {
		t.Skip("the race detector sees nothing of the binary that this test drives for long")
	}
}

const (
	tenants = 2
	// all stands for every node.
	all = -1
)

func tenantName(n int) string { return [tenants]string{"xpath", "globex"}[n] }

// target is one of each tenant's endpoints. The first two get every event of its
// tenant but those of the line.
type target int

const (
	steady  target = iota // always acknowledges
	flaky                 // refuses some first attempts, never twice in a row
	ordered               // keeps publish order; flaky, and quicker
	targets
)

func (t target) String() string { return [targets]string{"steady", "flaky", "ordered"}[t] }

// world is a database, nodes on it, and receivers.
type world struct {
	t      *testing.T
	ctx    context.Context
	seed   uint64
	db     *pgtest.Server
	args   []string // of every node
	nodes  []*proof.Server
	wires  []*ill.Wire
	client []*http.Client // by node
	tokens [tenants]string
	verify [tenants][targets]*standardwebhooks.Webhook
	ledger *ledger
	takes  time.Duration // what receivers need for an answer
	former int           // the node of the former version; -1 for none

	connections atomic.Int64 // open at the receivers
	refusals    atomic.Int64 // the flaky receivers' requests
	refused     sync.Map     // ids that a flaky receiver refused
}

// newWorld starts so many nodes on a database, each behind a wire of its own.
func newWorld(ctx context.Context, t *testing.T, db *pgtest.Server, nodes int, args ...string) *world {
	return newWorldAt(ctx, t, db, "", nodes, args...)
}

// newWorldAt starts nodes that all find the database by an address, or each by a
// wire of its own when there is none; with a schedule short enough for retries to
// be made within the test.
func newWorldAt(ctx context.Context, t *testing.T, db *pgtest.Server, address string, nodes int, args ...string) *world {
	t.Helper()
	return newWorldOf(ctx, t, db, address, slices.Repeat([]string{binary}, nodes), args...)
}

// newWorldOf is newWorldAt with a node of each binary, started in their order.
func newWorldOf(ctx context.Context, t *testing.T, db *pgtest.Server, address string, binaries []string, args ...string) *world {
	t.Helper()
	nodes := len(binaries)
	w := &world{t: t, ctx: ctx, former: -1, seed: *seed, db: db, ledger: &ledger{events: map[string]*event{}}}
	receiver := httptest.NewUnstartedServer(http.HandlerFunc(w.receive))
	receiver.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			w.connections.Add(1)
		case http.StateClosed:
			w.connections.Add(-1)
		}
	}
	receiver.Start()
	t.Cleanup(func() { receiver.CloseClientConnections(); receiver.Close() })
	args = append([]string{"--retry-schedule", "1s,1s,1s,2s,2s,2s,4s,4s", "--retry-jitter", "0.2", "--log-level", "info"}, args...)
	w.args = args
	for _, binary := range binaries {
		if address != "" {
			w.joinAs(binary, address)
			continue
		}
		wire := ill.New(t, db.Dir())
		w.wires = append(w.wires, wire)
		w.joinAs(binary, wire.TCP("postgres"))
	}
	for n := range tenants {
		token, err := w.nodes[0].Token(ctx, tenantName(n), "webhooks:read", "webhooks:write", "events:publish")
		if err != nil {
			t.Fatal(err)
		}
		w.tokens[n] = token
		for e := range targets {
			types := "cases.*"
			if e == ordered {
				types = "assignments.*"
			}
			made, err := w.patient(n%nodes, n).CreateEndpoint(ctx, fmt.Sprintf("%s/%d/%d", receiver.URL, n, e), "active", types)
			if err == nil && e == ordered {
				err = w.patient(n%nodes, n).Call(ctx, http.MethodPatch, "/endpoints/"+made.ID+"/settings", []byte(`{"ordered":true}`), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if w.verify[n][e], err = standardwebhooks.NewWebhook(made.Secret); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// join adds a node that finds the database by an address.
func (w *world) join(address string) {
	w.t.Helper()
	w.joinAs(binary, address)
}

func (w *world) joinAs(binary, address string) {
	w.t.Helper()
	o := proof.Options{Binary: binary, Dir: w.t.TempDir(), Database: address, Args: w.args}
	if len(w.nodes) > 0 {
		o.Keys = w.nodes[0].Keys()
	}
	n, err := proof.Start(w.ctx, o)
	if err != nil {
		w.t.Fatalf("node %d: %v", len(w.nodes), err)
	}
	w.t.Cleanup(n.Kill)
	w.nodes = append(w.nodes, n)
	w.client = append(w.client, &http.Client{Timeout: time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: publishers}})
}

// readyz is what a node says of itself; 0 for no answer.
func (w *world) readyz(node int) (code int, says string) {
	return readyz(w.client[node], w.nodes[node])
}

func readyz(hc *http.Client, node *proof.Server) (code int, says string) {
	resp, err := hc.Get(node.URL() + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

// api is a tenant's view of a node, which gives up after a second.
func (w *world) api(node, tenant int) proof.API {
	return proof.API{URL: w.nodes[node].URL(), Token: w.tokens[tenant], HTTP: w.client[node]}
}

// patient is a tenant's view of a node that answers as slowly as the machine is.
func (w *world) patient(node, tenant int) proof.API {
	return proof.API{URL: w.nodes[node].URL(), Token: w.tokens[tenant]}
}

// receive is all receivers; the path says which.
func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	var tenant int
	var t target
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &tenant, &t); err != nil || tenant >= tenants || t >= targets {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // a kill in the middle of a request
	}
	id := r.Header.Get("webhook-id")
	if strings.HasPrefix(id, movesID) {
		return
	}
	if err := w.verify[tenant][t].Verify(body, r.Header); err != nil {
		w.ledger.mu.Lock()
		w.ledger.fault("tenant %d received %s with a signature that does not verify: %v", tenant, id, err)
		w.ledger.mu.Unlock()
	}
	came, takes := time.Now(), w.takes
	if t == ordered {
		takes /= 5
	}
	_, data, _ := strings.Cut(string(body), `,"data":`)
	acknowledge := t == steady || !w.refuse(fmt.Sprint(tenant, id))
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		acknowledge = false // nobody is there to see it
	}
	w.ledger.receive(tenant, t, id, strings.TrimSuffix(data, "}"), came, acknowledge)
	if !acknowledge {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
}

// refuse reports whether a flaky receiver fails this attempt: every tenth request,
// unless it failed that event before.
func (w *world) refuse(id string) bool {
	if w.refusals.Add(1)%10 != 0 {
		return false
	}
	_, again := w.refused.LoadOrStore(id, true)
	return !again
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
		w.t.Fatalf("%v", context.Cause(w.ctx))
	}
}

// ready waits until a node says that it is.
func (w *world) ready(node int) {
	w.t.Helper()
	if err := w.nodes[node].Ready(w.ctx); err != nil {
		w.t.Fatalf("node %d: %v", node, err)
	}
}

// settle waits until all that was accepted has arrived and every node's log says
// so.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, limit, fmt.Errorf("not all arrived within %s", limit))
	defer cancel()
	if err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { return w.ledger.missing() == 0, nil }); err != nil {
		w.t.Errorf("%v: %d deliveries are missing", err, w.ledger.missing())
		w.explain()
		return
	}
	for node := range w.nodes {
		for tenant := range tenants {
			var open []struct{}
			err := proof.Until(ctx, 50*time.Millisecond, func() (bool, error) {
				err := w.patient(node, tenant).Call(ctx, http.MethodGet, "/deliveries?limit=250&state=pending", nil, &open)
				return len(open) == 0, err
			})
			if err != nil {
				w.t.Errorf("all has arrived, but node %d shows %d deliveries as pending: %v", node, len(open), err)
				w.explain()
				return
			}
		}
	}
}

// explain says what the database holds and the nodes logged.
func (w *world) explain() {
	w.t.Helper()
	c, err := pgx.Connect(context.WithoutCancel(w.ctx), w.db.URL())
	if err != nil {
		w.t.Log(err)
		return
	}
	defer c.Close(context.WithoutCancel(w.ctx))
	for _, query := range []string{`SELECT r::text FROM posthorn.runs r`, `SELECT (d.id, d.endpoint, d.run, d.next_at, d.tries)::text FROM posthorn.due d LIMIT 20`,
		`SELECT (pid, state, wait_event_type, wait_event, query)::text FROM pg_stat_activity WHERE application_name LIKE 'posthorn%' AND state <> 'idle'`} {
		rows, err := c.Query(context.WithoutCancel(w.ctx), query)
		if err != nil {
			w.t.Log(err)
			return
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		w.t.Logf("%s: %v\n%s", query, err, strings.Join(lines, "\n"))
	}
	for i, n := range w.nodes {
		log, err := n.Log()
		if err != nil {
			w.t.Log(err)
			continue
		}
		var said []string
		for line := range strings.Lines(string(log)) {
			if !strings.Contains(line, `"msg":"attempt"`) && !strings.Contains(line, `"msg":"request"`) && !strings.Contains(line, `"msg":"endpoint"`) &&
				!strings.Contains(line, `"msg":"a result could not be recorded"`) {
				said = append(said, line)
			}
		}
		w.t.Logf("node %d, now process %d, logged:\n%s", i, n.PID(), strings.Join(said[max(0, len(said)-60):], ""))
	}
}

// judge prints the figures and fails for what must not be.
func (w *world) judge(p *load) sums {
	w.t.Helper()
	s := w.ledger.count()
	w.t.Logf("%d nodes, %d faults: %d events accepted, %d deliveries, %d of them in order: %d lost, %d retried, %d came twice, %d of those unexplained; %d requests refused, %d without an answer",
		len(w.nodes), len(w.ledger.faults), s.accepted, s.deliveries, s.inLine, s.lost, s.retried, s.duplicates, s.unexplained, p.refused.Load(), p.broken.Load())
	for _, f := range w.ledger.wrong {
		w.t.Error(f)
	}
	if len(w.ledger.wrong) > 0 {
		w.explain()
	}
	for i, n := range w.nodes {
		log, err := n.Log()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, bad := range []string{"panic: ", "DATA RACE", "nobody held them"} {
			// The former version forgot what came to it while it was stopping.
			known := i == w.former && bad == "nobody held them"
			if at := bytes.Index(log, []byte(bad)); at >= 0 && !known {
				w.t.Errorf("node %d logged %s", i, log[at:min(len(log), at+4096)])
			}
		}
	}
	return s
}
