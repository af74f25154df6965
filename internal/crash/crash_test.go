package crash

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

var (
	kills = flag.Int("kills", usualKills(), "how often to kill the server")
	rate  = flag.Float64("rate", 1500, "events to publish a second")
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "for the moments of the kills")
)

// usualKills is 2, and 20 in the long form of "make torture".
func usualKills() int {
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		return 20
	}
	return 2
}

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for servers and retries more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(proof.WithBinary(&binary, m.Run))
}

// world is a server with the scenario's receivers and endpoints.
type world struct {
	t         *testing.T
	ctx       context.Context
	server    *proof.Server
	api       proof.API
	ledger    *ledger
	endpoints [targets]proof.Endpoint
	verifiers [targets]*standardwebhooks.Webhook
	receivers net.Addr
	// connections counts those that the receivers have open.
	connections atomic.Int64
	// stuck makes the healthy receiver accept and never answer.
	stuck atomic.Bool
	// sinceFailure counts the flaky receiver's requests since its last 503.
	sinceFailure atomic.Int64
	// mayLogErrors is set where the disk fails, which is an error to be logged.
	mayLogErrors bool
	badSince     time.Time // when the disk began to fail; zero for never
	seen         sync.Map  // ids that the flaky receiver has refused
}

// newWorld starts server and receivers. The retry schedule is short enough for
// retries to be waiting at every kill and to be made within the test.
func newWorld(ctx context.Context, t *testing.T, binary string, args ...string) *world {
	t.Helper()
	return newWorldOn(ctx, t, proof.Options{Binary: binary, Dir: t.TempDir(), Args: args})
}

// newWorldOn is newWorld with a say in where the store is.
func newWorldOn(ctx context.Context, t *testing.T, o proof.Options) *world {
	t.Helper()
	w := &world{t: t, ctx: ctx, ledger: newLedger()}
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
	w.receivers = receiver.Listener.Addr()
	t.Cleanup(func() { receiver.CloseClientConnections(); receiver.Close() })
	var err error
	o.Args = append(o.Args, "--retry-schedule", "1s,1s,1s,2s,2s,2s,4s,4s", "--retry-jitter", "0.2", "--log-level", "warn")
	if w.server, err = proof.Start(ctx, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Kill)
	token, err := w.server.Token(ctx, "xpath", "webhooks:read", "webhooks:write", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	w.api = proof.API{URL: w.server.URL(), Token: token}
	for e := range targets {
		status := "active"
		if e == held {
			status = "paused"
		}
		if w.endpoints[e], err = w.api.CreateEndpoint(ctx, receiver.URL+"/"+e.String(), status, types[e]...); err != nil {
			t.Fatal(err)
		}
		if w.verifiers[e], err = standardwebhooks.NewWebhook(w.endpoints[e].Secret); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// receive is all four receivers; the path says which.
func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	t := targets
	for e := range targets {
		if r.URL.Path == "/"+e.String() {
			t = e
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || t == targets {
		return // a kill in the middle of a request
	}
	id := r.Header.Get("webhook-id")
	if err := w.verifiers[t].Verify(body, r.Header); err != nil {
		w.ledger.mu.Lock()
		w.ledger.fault("%s received %s with a signature that does not verify: %v", t, id, err)
		w.ledger.mu.Unlock()
	}
	if t == healthy && w.stuck.Load() {
		<-r.Context().Done()
		return
	}
	head, data, _ := strings.Cut(string(body), `,"data":`)
	kind, _, _ := strings.Cut(strings.TrimPrefix(head, `{"id":"`+id+`","type":"`), `"`)
	acknowledge := t != flaky || !w.refuse(id)
	w.ledger.received(t, id, kind, strings.TrimSuffix(data, "}"), acknowledge)
	if !acknowledge {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
}

// refuse reports whether the flaky receiver fails this attempt: the first of an
// event, unless one of the last three requests failed. (Five failures in a row
// would make the server probe the endpoint, which is another test.)
func (w *world) refuse(id string) bool {
	if w.sinceFailure.Add(1) < 4 {
		return false
	}
	if _, again := w.seen.LoadOrStore(id, true); again {
		return false
	}
	w.sinceFailure.Store(0)
	return true
}

func (w *world) setStatus(e target, status string) {
	w.t.Helper()
	if err := w.api.SetStatus(w.ctx, w.endpoints[e].ID, status); err != nil {
		w.t.Fatal(err)
	}
}

// kill ends the process by SIGKILL.
func (w *world) kill() {
	w.t.Helper()
	w.server.Kill()
	w.gone()
}

// gone waits until the receivers have read what the process sent that has ended: what
// they get from then on is of the next one.
func (w *world) gone() {
	w.t.Helper()
	w.fence()
	if err := proof.Until(w.ctx, time.Millisecond, func() (bool, error) { return w.connections.Load() == 0, nil }); err != nil {
		w.t.Fatalf("%d connections of the dead process stay open: %v", w.connections.Load(), err)
	}
	w.ledger.killed()
}

// fence returns when the receivers have accepted every connection that was made
// before: they are accepted in order.
func (w *world) fence() {
	w.t.Helper()
	c, err := net.Dial("tcp", w.receivers.String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /nobody HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) relaunch() {
	w.t.Helper()
	if err := w.server.Launch(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ready() {
	w.t.Helper()
	if err := w.server.Ready(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// publish waits until n more events were accepted.
func (w *world) publish(p *load, n int) {
	w.t.Helper()
	goal := p.answered.Load() + int64(n)
	err := proof.Until(w.ctx, time.Millisecond, func() (bool, error) {
		if err := p.pace.Wrong(); err != nil {
			return false, err
		}
		return p.answered.Load() >= goal, nil
	})
	if err != nil {
		w.t.Fatalf("while publishing: %v\n%s", err, w.server.LogTail())
	}
}

// until waits for a condition as long as the test may take.
func (w *world) until(cond func() (bool, error)) {
	w.t.Helper()
	if err := proof.Until(w.ctx, 5*time.Millisecond, cond); err != nil {
		w.t.Fatalf("%v\n%s", err, w.server.LogTail())
	}
}

// moment lets a random time pass in which the server comes up.
func (w *world) moment(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
		w.t.Fatal(context.Cause(w.ctx))
	}
}

// settle waits until all that was accepted has arrived and the log says so, and
// reports what has not.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, limit, fmt.Errorf("not all arrived within %s", limit))
	defer cancel()
	err := proof.Until(ctx, 50*time.Millisecond, func() (bool, error) { return w.ledger.missing() == 0, nil })
	if err != nil {
		w.t.Errorf("%v: %d deliveries are missing", err, w.ledger.missing())
		w.explainMissing()
		return
	}
	if err := w.nothingOpen(ctx); err != nil {
		w.t.Errorf("all has arrived, but %v", err)
	}
}

// nothingOpen waits until the log shows every delivery as finished.
func (w *world) nothingOpen(ctx context.Context) error {
	for _, state := range []string{"pending", "held"} {
		var open []struct{}
		err := proof.Until(ctx, 50*time.Millisecond, func() (bool, error) {
			err := w.api.Call(ctx, http.MethodGet, "/deliveries?limit=250&state="+state, nil, &open)
			return len(open) == 0, err
		})
		if err != nil {
			return fmt.Errorf("the log still shows %d deliveries as %s: %w", len(open), state, err)
		}
	}
	return nil
}

// explainMissing says what the service's own log holds about some that are lost.
func (w *world) explainMissing() {
	w.t.Helper()
	rows, _ := w.ledger.count()
	for e, r := range rows {
		for _, id := range r.ids[:min(len(r.ids), 3)] {
			var shown struct {
				Log jsontext.Value `json:"delivery_log"`
			}
			err := w.api.Call(context.WithoutCancel(w.ctx), http.MethodGet, "/events/"+id, nil, &shown)
			w.t.Logf("%s misses %s; the service's log: %s %v", target(e), id, shown.Log, err)
		}
	}
	w.t.Log(w.server.LogTail())
}

// judge prints the table, counts for the promise and fails for what must not be.
func (w *world) judge(p *load, promise string) {
	w.t.Helper()
	rows, accepted := w.ledger.count()
	deliveries := 0
	for _, r := range rows {
		deliveries += r.accepted
	}
	tally.Count(w.t, promise, deliveries)
	w.t.Logf("%d kills, %d events accepted, %d requests cut off or refused\n%s",
		len(w.ledger.kills), accepted, p.broken.Load(), table(rows))
	for e, r := range rows {
		if r.lost > 0 {
			w.t.Errorf("%s: %d of %d deliveries lost", target(e), r.lost, r.accepted)
		}
		if r.unexplained > 0 {
			w.t.Errorf("%s: %d deliveries came twice without a kill between", target(e), r.unexplained)
		}
		if r.oldest > 0 {
			w.t.Logf("%s: the oldest acknowledgement that a kill made forgotten was %s old", target(e), r.oldest.Round(time.Millisecond))
		}
	}
	for _, f := range w.ledger.faults {
		w.t.Error(f)
	}
	log, err := w.server.Log()
	if err != nil {
		w.t.Fatal(err)
	}
	never := []string{"panic: ", "DATA RACE", `"level":"ERROR"`}
	if w.mayLogErrors {
		never = never[:2]
	}
	for _, bad := range never {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			w.t.Errorf("the server logged %s\n%s", bad, log[i:min(len(log), i+4096)])
		}
	}
}

func TestCrashLosesNothing(t *testing.T) {
	t.Parallel()
	limit := time.Minute + time.Duration(*kills)*10*time.Second
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the run took longer than %s", limit))
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	w := newWorld(ctx, t, binary)
	p := startLoad(ctx, w.api, w.ledger, *rate, fmt.Sprintf("crash-%x", *seed))

	var underLoad time.Duration
	for i := range *kills {
		up := time.Now()
		w.publish(p, 400+random.IntN(1600))
		// The lane that is paused at one kill drains at the next.
		w.setStatus(toggled, [...]string{"paused", "active"}[i%2])
		w.publish(p, random.IntN(400))
		w.kill()
		underLoad += time.Since(up)
		w.relaunch()
		if random.IntN(4) == 0 { // once more, while it is coming up
			w.moment(time.Duration(random.IntN(150)) * time.Millisecond)
			w.kill()
			w.relaunch()
		}
		w.ready()
	}
	up := time.Now()
	w.publish(p, 500)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	underLoad += time.Since(up)
	w.setStatus(toggled, "active")
	w.setStatus(held, "active")
	w.settle(30*time.Second + time.Duration(*kills)*5*time.Second)
	w.judge(p, "what was answered 202 arrives, though the process is killed")
	perSecond := float64(p.answered.Load()) / underLoad.Seconds()
	t.Logf("%.0f events/s were accepted while the server ran", perSecond)
	// A short run on a busy machine proves less, and is no reason to fail.
	if perSecond < 1000 && *kills >= 20 {
		t.Error("the proof asks for 1,000 events/s")
	}
}
