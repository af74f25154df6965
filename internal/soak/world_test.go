package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// retention is the shortest there is. Nothing is judged by its age before the service has
// run for an hour, and nothing is deleted until its final state has stood for another: after
// retentionShows events must be gone.
const (
	retention      = time.Hour
	retentionShows = store.SureAfter + store.ExpiredShown + 10*time.Minute
)

// The retry schedule is short enough for a delivery to fail for good while the run lasts.
var args = []string{
	"--retry-schedule", "1s,2s,4s,8s,8s,8s", "--retry-jitter", "0.2", "--log-level", "warn",
	"--retention", retention.String(), "--audit-retention", "1d", "--shutdown-delay", "0s",
}

// hostileAddress is where the hostile tenant's connections come from: what counts by
// address counts for it alone.
const hostileAddress = "127.0.0.66"

// world is a service, its tenants and their receivers.
type world struct {
	t      *testing.T
	ctx    context.Context
	span   time.Duration
	server *proof.Server
	ops    string
	temp   string // what the service finds as TMPDIR
	db     *pgtest.Server
	began  time.Time

	platform  proof.API
	tenants   []*tenant // the orderly ones
	hostile   *tenant
	receivers string // their URL
	ledger    *ledger
	mood      mood

	over chan struct{} // closed when nothing more is begun

	mu     sync.Mutex
	random *rand.Rand
	doors  map[string]*door // by path
	done   map[string]int   // what was done, by name
	notes  []string         // refusals that somebody may meet, a few
}

// tenant is one with its token.
type tenant struct {
	name      string
	api       proof.API
	endpoints map[kind]proof.Endpoint
}

func newWorld(ctx context.Context, t *testing.T, span time.Duration) *world {
	t.Helper()
	w := &world{t: t, ctx: ctx, span: span, ledger: newLedger(), began: time.Now(), temp: t.TempDir(),
		random: rand.New(rand.NewPCG(*seed, 0)), doors: map[string]*door{}, done: map[string]int{}}
	w.receivers = w.receive()
	o := proof.Options{Binary: binary, Dir: t.TempDir()}
	if *onPostgres {
		w.db = pgtest.ThrowAway(t)
		o.Database = w.db.URL()
	}
	t.Setenv("TMPDIR", w.temp) // for the service: the database has its own
	w.ops = freeAddress(t)
	o.Args = append(slices.Clone(args), "--ops-listen", w.ops, "--pprof")
	var err error
	if w.server, err = proof.Start(ctx, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Kill)
	token, err := w.server.Command(ctx, "token", "create", "--platform", "--scope", "admin", "--scope", "webhooks:read", "--scope", "webhooks:write", "--scope", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	w.platform = proof.API{URL: w.server.URL(), Token: strings.TrimSpace(token), HTTP: client("")}
	for _, name := range []string{"xpath", "globex", "initech"} {
		w.tenants = append(w.tenants, w.tenant(name, ""))
	}
	for _, tn := range w.tenants {
		for _, k := range orderly {
			w.must(w.open(ctx, tn, k))
		}
	}
	w.hostile = w.tenant("mallory", hostileAddress)
	return w
}

// tenant makes a tenant whose requests come from an address.
func (w *world) tenant(name, from string) *tenant {
	w.t.Helper()
	token, err := w.server.Token(w.ctx, name, "webhooks:read", "webhooks:write", "events:publish")
	w.must(err)
	return &tenant{name: name, endpoints: map[kind]proof.Endpoint{},
		api: proof.API{URL: w.server.URL(), Token: token, HTTP: client(from)}}
}

// client is one whose connections come from an address; "" for any. It is more patient than
// the service, which closes a connection when an answer takes a minute: how slow a busy
// machine is does not fail a run.
func client(from string) *http.Client {
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 16}}
}

// open makes an endpoint of the tenant, of which the receiver knows the secret before
// anything is sent to it.
func (w *world) open(ctx context.Context, tn *tenant, k kind) error {
	made, err := w.openAs(ctx, tn, string(k), k)
	if err == nil {
		tn.endpoints[k] = made
	}
	return err
}

func (w *world) openAs(ctx context.Context, tn *tenant, name string, k kind) (proof.Endpoint, error) {
	path := "/" + tn.name + "/" + name
	made, err := tn.api.CreateEndpoint(ctx, w.receivers+path, "paused", k.types()...)
	if err != nil {
		return made, err
	}
	w.door(path, tn, k).trusts(made.Secret)
	if settings := k.settings(w.short()); settings != "" {
		if err := tn.api.Call(ctx, http.MethodPatch, "/endpoints/"+made.ID+"/settings", []byte(settings), nil); err != nil {
			return made, err
		}
	}
	return made, tn.api.SetStatus(ctx, made.ID, "active")
}

// short reports whether there is no time to wait for what takes long.
func (w *world) short() bool { return w.span < time.Minute }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// pick is a random number below n.
func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

// anyTenant is one of the orderly ones.
func (w *world) anyTenant() *tenant { return w.tenants[w.pick(len(w.tenants))] }

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	if err := wait(w.ctx, d); err != nil {
		w.t.Fatal(err)
	}
	select {
	case <-w.server.Exited():
		w.t.Fatalf("posthorn serve ended\n%s", w.server.LogTail())
	default:
	}
}

// wait lets time pass, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// settle has all that waits sent, and returns when nothing is open.
func (w *world) settle() {
	w.t.Helper()
	w.calm()
	var err error
	for _, tn := range w.tenants {
		w.must(tn.api.SetStatus(w.ctx, tn.endpoints[toggled].ID, "active"))
		for _, id := range tn.endpoints {
			// What a receiver that was down has waiting goes out now.
			err = tn.api.Call(w.ctx, http.MethodPatch, "/endpoints/"+id.ID+"/settings", []byte(`{"rate_per_second":null,"filter":null}`), nil)
			w.must(err)
		}
	}
	w.must(w.closeHostile(w.ctx))
	ctx, cancel := context.WithTimeoutCause(w.ctx, 3*time.Minute, fmt.Errorf("not all is in a final state within three minutes"))
	defer cancel()
	var m metrics
	err = proof.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		m, err = w.metrics()
		return err == nil && m["posthorn_deliveries_open"] == 0 && m["posthorn_attempts_in_flight"] == 0 && m["posthorn_results_unrecorded"] == 0, err
	})
	if err != nil {
		w.t.Fatalf("%v: %v open, %v in flight\n%s", err, m["posthorn_deliveries_open"], m["posthorn_attempts_in_flight"], w.server.LogTail())
	}
}
