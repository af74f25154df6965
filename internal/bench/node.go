package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// node is the service under test with what a load needs on it, and the receiver.
type node struct {
	c        Config
	receiver *receiver
	server   *proof.Server   // nil for one that runs by itself
	others   []*proof.Server // that share its database
	database *database       // nil for the embedded store
	dir      string
	url      string
	tokens   []string // by tenant
	http     *http.Client
	made     []string // endpoints to be deleted from a node that is not ours
}

// newNode starts a server on a new store, or takes the one that the load names,
// and makes tenants, endpoints and backlog.
func newNode(ctx context.Context, c Config) (*node, error) {
	n := &node{c: c, url: c.Server, tokens: []string{c.Token}}
	n.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: setters}}
	var err error
	if n.receiver, err = newReceiver(c); err != nil {
		return nil, err
	}
	if err = n.prepare(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *node) prepare(ctx context.Context) error {
	if n.url == "" {
		if err := n.serve(ctx); err != nil {
			return err
		}
	}
	if err := n.makeEndpoints(ctx); err != nil {
		return err
	}
	if err := n.makeBacklog(ctx); err != nil {
		return err
	}
	return n.stick(ctx)
}

// serve starts a server of our own, with a token for each tenant.
func (n *node) serve(ctx context.Context) (err error) {
	if n.dir, err = os.MkdirTemp(n.c.Dir, "posthorn-bench-"); err != nil {
		return err
	}
	args := append([]string{"--max-endpoints", "1000000", "--backlog-limit", "100000000"}, n.c.HostLimits...)
	args = append(args, n.c.ServeArgs...)
	options := proof.Options{Binary: n.c.Binary, Dir: n.dir, Args: args}
	if n.c.Store != "" {
		if n.database, err = newDatabase(ctx, n.c.Store); err != nil {
			return err
		}
		options.Database = n.database.url
	}
	if n.server, err = proof.Start(ctx, options); err != nil {
		return err
	}
	n.url = n.server.URL()
	for i := 1; i < n.c.Nodes; i++ {
		o := options
		o.Keys, o.Dir = n.server.Keys(), filepath.Join(n.dir, fmt.Sprint(i))
		if err := os.Mkdir(o.Dir, 0o700); err != nil {
			return err
		}
		other, err := proof.Start(ctx, o)
		if err != nil {
			return err
		}
		n.others = append(n.others, other)
	}
	n.tokens = make([]string, n.c.Tenants)
	platform, err := n.server.Command(ctx, "token", "create", "--store", n.server.Store(), "--platform",
		"--scope", "admin", "--scope", "webhooks:read", "--scope", "webhooks:write", "--scope", "events:publish")
	if err != nil {
		return err
	}
	admin := n.api(strings.TrimSpace(platform))
	return parallel(ctx, n.c.Tenants, func(ctx context.Context, i int) (err error) {
		n.tokens[i], err = newTenant(ctx, admin, fmt.Sprintf("bench%d", i))
		return err
	})
}

func newTenant(ctx context.Context, admin proof.API, name string) (token string, err error) {
	if err := admin.Call(ctx, http.MethodPost, "/tenants", []byte(`{"name":"`+name+`"}`), nil); err != nil {
		return "", err
	}
	var t struct {
		Token string `json:"token"`
	}
	err = admin.Call(ctx, http.MethodPost, "/tokens",
		[]byte(`{"tenant":"`+name+`","scopes":["webhooks:read","webhooks:write","events:publish"]}`), &t)
	return t.Token, err
}

func (n *node) api(token string) proof.API {
	return proof.API{URL: n.url, Token: token, HTTP: n.http}
}

func (n *node) makeEndpoints(ctx context.Context) error {
	n.c.tell("preparing: %d tenants, %d endpoints", n.c.Tenants, n.c.Endpoints)
	var mu sync.Mutex
	per := n.c.perTenant()
	return parallel(ctx, n.c.Endpoints, func(ctx context.Context, i int) error {
		e, err := n.api(n.tokens[i/per]).CreateEndpoint(ctx, n.receiver.url(i), "active", eventType(i%per/n.c.FanOut))
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		n.made = append(n.made, e.ID)
		return nil
	})
}

// backlogEndpoints is how many paused endpoints a backlog lies behind.
const backlogEndpoints = 100

// makeBacklog has deliveries pending before the load begins: one half held by
// paused endpoints, which are never dialled, the other due in two hours.
func (n *node) makeBacklog(ctx context.Context) error {
	if n.c.Backlog == 0 {
		return nil
	}
	api := n.api(n.tokens[0])
	first := maxGroups - backlogEndpoints // types beyond the load's own
	if err := parallel(ctx, backlogEndpoints, func(ctx context.Context, i int) error {
		_, err := api.CreateEndpoint(ctx, fmt.Sprintf("https://partner.example.com/hooks/%d", i), "paused", eventType(first+i))
		return err
	}); err != nil {
		return err
	}
	later := fmt.Sprintf(`,"deliver_at":%q`, time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339))
	for _, members := range []string{"", later} {
		c := n.c.plain()
		c.Endpoints, c.Conns, c.Batch, c.Duration, c.BodySize = backlogEndpoints, 4, 500, time.Hour, n.c.BodySize
		l := newLedger(c, max(n.c.Backlog/2/c.Batch, 1)*c.Batch)
		g := generator{config: c, ledger: l, request: publishing(c, n.url, n.tokens, shape{members: members, firstType: first})}
		n.c.tell("preparing: %d pending deliveries", len(l.due))
		if err := g.run(ctx); err != nil {
			return fmt.Errorf("making a backlog: %w%s", err, n.logTail())
		}
		if accepted := l.report().Accepted; accepted != len(l.due) {
			return fmt.Errorf("only %d of %d events of the backlog were accepted, refused by status: %v", accepted, len(l.due), l.refused)
		}
	}
	return nil
}

// noMoreHang is for how long no endpoint more hangs once all do that may.
const noMoreHang = 2 * time.Second

// stick gives each endpoint that hangs an event and waits until all hang, so
// that the load meets the state and not its beginning. Of one tenant no more hang than
// it may have connections to the receiver's address: it waits until no more come.
func (n *node) stick(ctx context.Context) error {
	hang, per := n.c.Hang/n.c.Tenants, n.c.perTenant()
	if hang == 0 {
		return nil
	}
	n.c.tell("preparing: %d endpoints hang", n.c.Hang)
	none := strings.Repeat("9", numberWidth) // the ledger has no such event
	err := parallel(ctx, n.c.Hang, func(ctx context.Context, i int) error {
		tenant, group := i/hang, (per-hang+i%hang)/n.c.FanOut
		body := fmt.Sprintf(`{"type":%q,"data":{"n":%q}}`, eventType(group), none)
		return n.api(n.tokens[tenant]).Call(ctx, http.MethodPost, "/events", []byte(body), nil)
	})
	if err != nil {
		return err
	}
	hanging, since := int64(0), time.Now()
	return proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		if now := n.receiver.hanging.Load(); now > hanging {
			hanging, since = now, time.Now()
		}
		return hanging >= int64(n.c.Hang) || hanging > 0 && time.Since(since) > noMoreHang, nil
	})
}

// pid is the server's process; -1 when it is not ours.
func (n *node) pid() int {
	if n.server == nil {
		return -1
	}
	return n.server.PID()
}

func (n *node) logTail() string {
	if n.server == nil {
		return ""
	}
	return "\n" + n.server.LogTail()
}

func (n *node) describe(c Config) string {
	how := "as fast as answers come"
	if c.Rate > 0 {
		how = fmt.Sprintf("%g events/s", c.Rate)
	}
	if c.Batch > 1 {
		how += fmt.Sprintf(", batches of %d", c.Batch)
	}
	if n.database != nil {
		how += fmt.Sprintf(", %d nodes on PostgreSQL,", n.c.Nodes)
	}
	return fmt.Sprintf("%s to %d endpoints", how, c.Endpoints)
}

// publishing is [publishing] to all nodes in turn.
func (n *node) publishing(c Config) func() request {
	makers := []func() request{publishing(c, n.url, n.tokens, shape{})}
	for _, other := range n.others {
		makers = append(makers, publishing(c, other.URL(), n.tokens, shape{}))
	}
	var next atomic.Int64
	return func() request { return makers[int(next.Add(1)-1)%len(makers)]() }
}

// usage is the processor time of all nodes and of this process.
func (n *node) usage() usage {
	u := usageOf(n.pid())
	for _, other := range n.others {
		u.server += cpuTime(other.PID())
	}
	return u
}

// Close ends the server and removes its store; from a node that is not ours it
// removes the endpoints.
func (n *node) Close() {
	for _, other := range n.others {
		other.Kill()
	}
	if n.server != nil {
		n.server.Kill()
	} else if n.c.Server != "" {
		api := n.api(n.c.Token)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = parallel(ctx, len(n.made), func(ctx context.Context, i int) error { // what stays answers nobody
			return api.Call(ctx, http.MethodDelete, "/endpoints/"+n.made[i], nil, nil)
		})
	}
	n.receiver.Close()
	n.http.CloseIdleConnections()
	if n.database != nil {
		_ = n.database.close() // what stays is named posthorn_bench_…
	}
	if n.dir != "" {
		os.RemoveAll(n.dir)
	}
}

// setters is how many requests at a time prepare a node.
const setters = 32

// parallel calls fn for 0 to n-1 and returns the first error.
func parallel(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(setters, n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
