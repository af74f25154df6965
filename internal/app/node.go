// Package app wires the service together and owns its life: it is the only
// package that knows concrete types. [Serve] runs a node for real, [Dev] one with
// a demo tenant, a receiver and sample events around it.
package app

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/api"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/renew"
	"github.com/posthorn/posthorn/internal/replay"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/web"
)

// node is one running service. Its parts are made by newNode, started by start
// and ended by stop, in that order and once each.
type node struct {
	cfg      config.Config
	log      *slog.Logger
	clock    *clock.Clock
	now      func() time.Time // of clock
	store    store.Store
	keys     *secretbox.Keyring
	catalog  *catalog.Catalog
	client   *send.Client
	engine   *lane.Engine
	publish  *publish.Service
	replays  *replay.Worker
	policy   posthorn.Policy
	access   *access.Authenticator
	oidc     *access.OIDC // nil for none
	metrics  *metrics
	api      *http.Server
	ops      *http.Server // nil when off
	listener *connections
	opsLn    net.Listener
	files    *renew.Watch // that somebody else renews
	hangups  chan os.Signal
	pair     *renew.Pair   // what the API is served with; nil without TLS
	turned   chan struct{} // wakes the announcer of turning points
	ready    readiness
	leaving  atomic.Bool   // a stop was asked for: see stayReachable
	stopping chan struct{} // closed when a stop takes no new work any more

	cancel context.CancelFunc // ends the housekeeping
	calm   context.CancelFunc // ends the publishing from the outbox
	wg     sync.WaitGroup
}

// inboxException names dev's inbox, which deliveries may reach although it is a
// listener of our own.
type inboxException []netip.AddrPort

// newNode opens the store and wires the parts. On an error nothing is left open.
// Tests give the network that deliveries go out to another resolver by change.
func newNode(ctx context.Context, cfg config.Config, log *slog.Logger, inbox inboxException, change ...func(*send.Config)) (_ *node, err error) {
	c := clock.New(clock.Options{Driven: config.IsPostgres(cfg.StorePath), Slack: slack(cfg.StorePath), Log: log})
	n := &node{cfg: cfg, log: log, clock: c, now: c.Now, metrics: newMetrics(), files: renew.New(log), hangups: hangups(), turned: make(chan struct{}, 1), stopping: make(chan struct{})}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.keys, err = openKeys(cfg.EncryptionKeys); err != nil {
		return nil, err
	}
	if n.catalog, err = openCatalog(cfg.Catalog); err != nil {
		return nil, err
	}
	if err = n.listen(); err != nil {
		return nil, err
	}
	if n.store, err = openServing(ctx, &cfg, n.clock, log); err != nil {
		return nil, err
	}
	if err = n.noteKeys(ctx); err != nil {
		return nil, err
	}
	if err = n.watchFiles(); err != nil {
		return nil, err
	}
	guard, err := n.egress(inbox)
	if err != nil {
		return nil, err
	}
	for _, f := range change {
		f(&guard)
	}
	if n.client, err = send.New(guard); err != nil {
		return nil, err
	}
	n.policy = posthorn.Policy{Schedule: cfg.RetrySchedule, Jitter: cfg.RetryJitter, LocalRetry: posthorn.DefaultLocalRetry}
	sender := newSender(n.client, n.keys, n.now, log)
	n.engine = lane.New(lane.Config{
		Store:        n.store,
		Sender:       sender,
		Policy:       n.policy,
		MaxInFlight:  cfg.MaxInFlight,
		HostInFlight: cfg.HostInFlight,
		HostRate:     cfg.HostRate,
		Now:          n.now,
		Random:       func() float64 { return rand.Float64()*2 - 1 },
		Observe:      n.observe,
		Log:          log,
	})
	n.publish = publish.New(publish.Config{
		Store:         n.store,
		Lanes:         lanes{n.engine},
		Catalog:       n.catalog,
		Now:           n.now,
		BacklogLimit:  cfg.BacklogLimit,
		Retention:     cfg.RetainOpen(),
		RatePerSecond: cfg.PublishRate,
		Keeping:       keeping(n.store),
		TenantBytes:   cfg.TenantBytes,
		Refused:       n.metrics.overShare.Inc,
		Published:     func(events, _ int) { n.metrics.published.Add(float64(events)) },
	})
	n.replays = replay.New(replay.Config{Store: n.store, Lanes: n.engine, Now: n.now, Log: log})
	cas, err := n.trusted("oidc-ca", cfg.OIDCCA, func(cas *x509.CertPool) { n.oidc.Trust(cas) })
	if err != nil {
		return nil, err
	}
	if n.oidc, err = newOIDC(&cfg, cas, n.clock.Wall, log); err != nil {
		return nil, err
	}
	n.access = access.New(access.Config{Store: n.store, Now: n.now, RatePerSecond: cfg.TokenRate, OIDC: n.oidc})
	n.store.WatchSettling(n.notice)
	n.metrics.watch(n.engine, n.store, n.now)
	n.watchClocks()
	n.metrics.watchHoldings(n.store)
	n.metrics.watchHistory(n.store, n.now)
	n.metrics.watchConnections(n.listener)
	n.metrics.watchLog(log)
	n.metrics.watchRenewals(n.files, n.pair)
	n.metrics.watchOutbox(outbox(n.store), n.now)
	n.metrics.watchUpkeep(n.store)
	n.metrics.watchRoom(keeping(n.store))
	return n, n.serveAPI(send.NewGuard(guard))
}

// openKeys reads the operator's keys. That they are there is config's to check.
func openKeys(spec string) (*secretbox.Keyring, error) {
	keys, err := secretbox.ParseKeys(spec)
	if err != nil {
		return nil, posthorn.Errorf(posthorn.Invalid, "%v", err)
	}
	return keys, nil
}

func openCatalog(path string) (*catalog.Catalog, error) {
	if path == "" {
		return catalog.Builtin(), nil
	}
	return catalog.Load(path)
}

func (n *node) listen() (err error) {
	ln, err := listenOn(n.cfg.Listen, "--listen")
	if err != nil {
		return err
	}
	n.listener = newConnections(ln, n.cfg.MaxConnections)
	if n.cfg.OpsListen != "" {
		n.opsLn, err = listenOn(n.cfg.OpsListen, "--ops-listen")
	}
	return err
}

// egress is what deliveries may reach.
func (n *node) egress(inbox inboxException) (send.Config, error) {
	c := send.Config{
		AllowHTTP:            n.cfg.AllowHTTP,
		AllowPrivate:         n.cfg.AllowPrivate,
		AllowUnderscoreHosts: n.cfg.AllowUnderscoreHosts,
		Own:                  n.ownListeners,
		OwnAllowed:           inbox,
		Proxy:                n.cfg.EgressProxy,
		UserAgent:            "Posthorn/" + posthorn.Version,
		Now:                  n.now,
		Wall:                 n.clock.Wall,
		Log:                  n.log,
	}
	var err error
	c.CAs, err = n.trusted("egress-ca", n.cfg.EgressCA, func(cas *x509.CertPool) { n.client.Trust(cas) })
	return c, err
}

// listeners are those that are open.
func (n *node) listeners() (all []net.Listener) {
	if n.listener != nil {
		all = append(all, n.listener)
	}
	if n.opsLn != nil {
		all = append(all, n.opsLn)
	}
	return all
}

func (n *node) ownListeners() []netip.AddrPort {
	var own []netip.AddrPort
	for _, ln := range n.listeners() {
		if a, ok := ln.Addr().(*net.TCPAddr); ok {
			own = append(own, a.AddrPort())
		}
	}
	return own
}

func (n *node) serveAPI(guard send.Guard) error {
	var box api.Outbox
	if o := outbox(n.store); o != nil {
		box = o // and not a nil of another type
	}
	handler, err := api.New(api.Config{
		Store:          n.store,
		Outbox:         box,
		Publish:        n.publish,
		Catalog:        n.catalog,
		Access:         n.access,
		Keyring:        n.keys,
		CheckURL:       guard.CheckURL,
		Health:         n.laneView,
		Lanes:          n.engine,
		WakeReplays:    n.replays.Wake,
		Now:            n.now,
		Log:            n.log,
		MaxEndpoints:   n.cfg.MaxEndpoints,
		PublicURL:      n.cfg.PublicURL(),
		TrustedProxies: n.cfg.TrustedProxies,
		Retention:      n.cfg.Retention,
		Stopping:       n.stopping,
		Version:        posthorn.Version,
	})
	if err != nil {
		return err
	}
	n.api = &http.Server{
		Handler:           n.guarded(n.listener, marking(n.parting(n.probes(handler)))),
		ConnContext:       n.listener.remember,
		TLSConfig:         n.serverTLS(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streamsOfConnection, MaxReceiveBufferPerConnection: receiveBuffer, MaxReceiveBufferPerStream: receiveBuffer},
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	if n.opsLn != nil {
		n.ops = &http.Server{
			Handler:           n.guarded(n.opsLn, http.NewCrossOriginProtection().Handler(n.opsHandler())),
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      time.Minute,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
		}
	}
	return nil
}

// guarded looks at the host of each request that comes to a listener on loopback, and
// of each that asks for a page.
func (n *node) guarded(ln net.Listener, next http.Handler) http.Handler {
	asks := api.IsPage
	if web.OnLoopback(ln.Addr()) {
		asks = web.Always
	}
	return web.NewHosts(n.cfg.PublicURLs...).Guard(n.log, n.now, asks, next)
}

// With HTTP/2 a connection is one place among max-connections: it has few requests
// at a time, and little of what nobody has read yet.
const (
	streamsOfConnection = 32
	receiveBuffer       = 256 << 10
)

// laneView is what the engine adds to an endpoint's health.
func (n *node) laneView(endpoint int64) api.LaneView {
	s := n.engine.Snapshot(endpoint)
	return api.LaneView{NextProbe: s.NextProbe, HoldUntil: s.HoldUntil}
}

// notice tells everything that remembers rows that they changed. The store calls
// it, and waits for what it returns, before the change is answered, which is what
// "once PATCH is answered no new attempt starts" rests on.
func (n *node) notice(c store.Notice) (settled func()) {
	n.access.Notice(c)
	n.publish.Notice(c)
	settled = n.engine.Notice(c)
	if c.Kind == store.NoticeEndpoint {
		n.client.Forget(c.Endpoint) // its kept connections may lead to an old url
	}
	return settled
}

// observe is called once per attempt, from the engine.
func (n *node) observe(o lane.Observation) {
	n.metrics.observe(&o)
	if o.Work.Replay {
		n.replays.Wake()
	}
	logAttempt(n.log, &o, n.now)
	n.noteTurn(&o)
}

// start begins delivering and answering.
func (n *node) start(ctx context.Context) error {
	if err := n.readBack(ctx); err != nil {
		return err
	}
	if err := n.tellHeld(ctx); err != nil {
		return err
	}
	if err := n.engine.Start(ctx); err != nil {
		return err
	}
	background, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.replays.Start()
	n.wg.Go(func() { n.keepHouse(background) })
	n.wg.Go(func() { n.tellTurns(background) })
	publishing, calm := context.WithCancel(background)
	n.calm = calm
	n.wg.Go(func() { n.publishOutbox(publishing) })
	if n.oidc != nil {
		n.wg.Go(func() { n.oidc.Run(background, n.access.ForgetJWTs) })
	}
	n.wg.Go(func() { n.files.Run(background, n.hangups) })
	n.wg.Go(func() { n.serve(n.api, n.listener) })
	if n.ops != nil {
		n.wg.Go(func() { n.serve(n.ops, n.opsLn) })
	}
	n.ready.set(nil)
	return nil
}

func (n *node) serve(s *http.Server, ln net.Listener) {
	var err error
	if s.TLSConfig != nil {
		err = s.ServeTLS(ln, "", "")
	} else {
		err = s.Serve(ln)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		n.log.Error("a listener stopped", "addr", ln.Addr().String(), "err", err)
	}
}

// stop says that the node is not ready, gives whoever sends to it time to notice,
// and drains: no new requests, no new attempts; what is in flight may end within the
// configured time, the rest is handed back to the store. It returns when everything
// is closed.
func (n *node) stop() error {
	n.stayReachable()
	n.calm()
	close(n.stopping) // streams end; what follows waits for them
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.DrainTimeout)
	defer cancel()
	n.replays.Stop()
	drained := make(chan error, 1)
	go func() { drained <- n.engine.Drain(ctx) }()
	err := n.inTime("requests of clients", n.api.Shutdown(ctx))
	err = errors.Join(err, n.inTime("attempts", <-drained))
	n.cancel()
	if n.ops != nil {
		err = errors.Join(err, n.ops.Close())
	}
	n.api.Close() // whoever did not end within the drain
	n.listener.closeAll()
	n.wg.Wait()
	if ferr := n.access.Flush(context.Background()); ferr != nil {
		n.log.Warn("the tokens' last use was not recorded", "err", ferr)
	}
	return errors.Join(err, n.close())
}

// inTime makes of a drain whose time was over a line in the log: what was cut
// short is handed back, or asked again by its client. Other errors stay.
func (n *node) inTime(what string, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	n.log.Warn("the drain's time was over and what was under way was cut short", "what", what, "err", err)
	return nil
}

// close releases what newNode opened.
func (n *node) close() error {
	var err error
	signal.Stop(n.hangups)
	for _, ln := range n.listeners() {
		ln.Close() // again is harmless
	}
	if n.client != nil {
		n.client.Close()
	}
	if n.store != nil {
		err = n.store.Close()
	}
	return err
}

// abandon closes a node that was not started and returns why.
func (n *node) abandon(why error) error { return errors.Join(why, n.close()) }
