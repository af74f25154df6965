package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/webhook"
)

// world is one installation, its partners and their receivers.
type world struct {
	*testing.T
	dir       string
	config    lane.Config // what differs from the defaults
	backlog   int         // the backlog limit; 0 for the default
	receivers *receivers
	net       *network
	run       *run // the process that is up
	files     int
	history   *history

	skew  atomic.Int64 // what the machine's clock is ahead of the bubble's
	clock atomic.Pointer[clock.Clock]
	shown struct { // what the service's time was ahead of the bubble's
		sync.Mutex
		ahead time.Duration
	}
	full atomic.Bool // the disk is below its reserve

	tenants   []posthorn.Tenant
	endpoints map[int64]*endpoint
	hosts     int
	began     time.Time
	born      time.Time // before anything else
}

// endpoint is a partner's endpoint as the test made it.
type endpoint struct {
	posthorn.Endpoint
	host   string
	secret string
}

// run is one life of the process.
type run struct {
	store   *sqlite.Store
	engine  *lane.Engine
	publish *publish.Service
	client  *send.Client
	cable   *cable
	gate    *gate
	sure    *clock.Sure
	over    chan struct{} // closed when it ends
	faults  faults
	flights flights
	dead    atomic.Bool
}

// story runs a test in a bubble whose clock stands in 2026, with one tenant.
func story(t *testing.T, fn func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { newWorld(t, dir, lane.Config{Policy: exact()}).tell(fn) })
}

// exact is the default schedule without jitter.
func exact() posthorn.Policy {
	p := posthorn.DefaultPolicy()
	p.Jitter = 0
	return p
}

func newWorld(t *testing.T, dir string, c lane.Config) *world {
	w := &world{T: t, dir: dir, config: c, receivers: newReceivers(), endpoints: map[int64]*endpoint{}, history: newHistory()}
	wait(time.Until(time.Date(2026, 4, 29, 9, 0, 0, 0, time.UTC)))
	w.born = time.Now()
	w.net = &network{receivers: w.receivers}
	return w
}

// tell opens the world, runs the story and holds the checker against it.
func (w *world) tell(fn func(w *world)) {
	for _, c := range w.complaints(fn) {
		w.Error(c)
	}
}

// complaints opens the world, runs the story and returns what the checker says.
func (w *world) complaints(fn func(w *world)) []complaint {
	w.open()
	w.tenant("acme")
	w.began = time.Now()
	fn(w)
	w.stop()
	w.net.close()
	w.history.visits = w.receivers.visits
	if len(w.history.final) == 0 { // nobody has looked
		s, err := sqlite.Open(w.Context(), sqlite.Options{Path: w.path(), Synchronous: "OFF", Poll: -1, Now: w.now})
		w.ok(err)
		defer s.Close()
		w.remember(s)
	}
	return w.history.complaints()
}

// remember reads where all deliveries stand.
func (w *world) remember(s *sqlite.Store) {
	w.Helper()
	var err error
	for _, t := range w.tenants {
		for next := posthorn.ID(0); ; {
			var page []posthorn.Delivery
			page, next, err = s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: t.ID}, store.Page{Before: next, Limit: 1000})
			w.ok(err)
			for _, d := range page {
				w.history.final[d.ID] = d
			}
			if next == 0 {
				break
			}
		}
	}
}

// now is the service's time, as the process that is up reads it. It has no monotonic
// part, so that whatever is compared sees its steps.
func (w *world) now() time.Time {
	w.shown.Lock()
	defer w.shown.Unlock()
	c := w.clock.Load()
	if c == nil {
		return w.machine().Wall
	}
	now := c.Now()
	if ahead := now.Sub(time.Now().Round(0)); ahead != w.shown.ahead {
		w.history.stepped(w.shown.ahead, ahead)
		w.shown.ahead = ahead
	}
	return now
}

// machine reads the machine's clocks.
func (w *world) machine() clock.Reading {
	return clock.Reading{Wall: time.Now().Round(0).Add(time.Duration(w.skew.Load())), Monotonic: time.Since(w.born)}
}

// step moves the machine's clock.
func (w *world) step(d time.Duration) { w.skew.Add(int64(d)) }

func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// until lets time pass until the story is d old.
func (w *world) until(d time.Duration) { wait(time.Until(w.began.Add(d))) }

// ago is the age of the story at t.
func (w *world) age(t time.Time) time.Duration { return t.Sub(w.began) }

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) path() string { return filepath.Join(w.dir, fmt.Sprintf("posthorn-%d.db", w.files)) }

// open starts the process on the current file.
func (w *world) open() {
	w.Helper()
	w.clock.Store(clock.New(clock.Options{Read: w.machine}))
	s, err := sqlite.Open(w.Context(), sqlite.Options{
		Path: w.path(), Synchronous: "OFF", Poll: -1, Now: w.now, Gather: 20,
		FreeSpace: func(string) (uint64, uint64, error) {
			if w.full.Load() {
				return 1 << 20, 1 << 41, nil
			}
			return 1 << 40, 1 << 41, nil
		},
	})
	w.ok(err)
	r := &run{store: s, cable: newCable(w.net), gate: newGate()}
	r.client, err = send.New(send.Config{AllowHTTP: true, Dial: r.cable.Dial, Now: w.now})
	w.ok(err)
	c := w.config
	c.Store, c.Sender, c.Now, c.Observe = seam{s, r, w.history}, sender{r, w}, w.now, w.observe
	r.engine = lane.New(c)
	r.publish = publish.New(publish.Config{
		Store: seam{s, r, w.history}, Lanes: lanes{r.engine}, Catalog: everyType{}, Now: w.now, BacklogLimit: w.backlog,
	})
	s.WatchSettling(func(n store.Notice) (settled func()) {
		r.publish.Notice(n)
		settled = r.engine.Notice(n)
		if n.Kind == store.NoticeEndpoint {
			r.client.Forget(n.Endpoint)
		}
		return settled
	})
	_, err = s.ReadBack(w.Context(), w.now(), w.policy())
	w.ok(err)
	w.ok(r.engine.Start(w.Context()))
	r.sure, r.over = w.clock.Load().Sure(), make(chan struct{})
	go w.watchClock(r)
	w.run = r
}

// policy is the engine's.
func (w *world) policy() posthorn.Policy {
	if len(w.config.Policy.Schedule) == 0 {
		return posthorn.DefaultPolicy()
	}
	return w.config.Policy
}

// watchClock does what the service does when a jump of the clock is believed.
func (w *world) watchClock(r *run) {
	tick := time.NewTicker(minute)
	defer tick.Stop()
	sure := w.clock.Load().Sure()
	for {
		select {
		case <-r.over:
			return
		case <-tick.C:
		}
		if sure.Believed() {
			_, _ = r.store.ReadBack(context.Background(), w.now(), w.policy()) // it may be closed by now
		}
	}
}

// observe notes what the engine made of an attempt: who pauses itself is quiet.
func (w *world) observe(o lane.Observation) {
	if o.Recorded.Paused != "" {
		w.history.quiet(ofEndpoint(o.Work.Endpoint))
	}
}

// stop drains the process as SIGTERM does.
func (w *world) stop() {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	close(w.run.over)
	faulty := w.run.faults.armed() || w.run.engine.Stats().Unrecorded > 0
	err := w.run.engine.Drain(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.Error(err)
	}
	w.run.client.Close()
	w.run.cable.sever()
	w.ok(w.run.store.Close())
	w.history.ended(err != nil || faulty)
}

// crash takes the process's file as it is now, ends the process without its
// noticing, and starts another on the copy.
func (w *world) crash() {
	w.Helper()
	synctest.Wait()
	old, from := w.run, w.path()
	w.files++
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		w.ok(err)
		w.ok(os.WriteFile(w.path()+suffix, b, 0o600))
	}
	close(old.over)
	old.dead.Store(true)
	old.cable.sever()
	old.gate.release()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = old.engine.Drain(now)
	old.client.Close()
	_ = old.store.Close()
	w.history.ended(true)
	w.open()
}

func (w *world) change() store.Change { return store.Change{Actor: "test", At: w.now()} }

func (w *world) tenant(name string) posthorn.Tenant {
	t, err := w.run.store.CreateTenant(w.Context(), w.change(), name)
	w.ok(err)
	w.tenants = append(w.tenants, t)
	return t
}

// endpoint makes an active endpoint of the first tenant for all cases.* events,
// at a host of its own.
func (w *world) endpoint(s posthorn.Settings) *endpoint {
	w.Helper()
	return w.endpointOf(w.tenants[0], s)
}

func (w *world) endpointOf(t posthorn.Tenant, s posthorn.Settings, patterns ...posthorn.Pattern) *endpoint {
	w.Helper()
	if patterns == nil {
		patterns = []posthorn.Pattern{"cases.*"}
	}
	secret := webhook.NewSecret()
	key, err := webhook.ParseSecret(secret)
	w.ok(err)
	host := w.newHost()
	from, now := w.history.tick(), w.now()
	e, err := w.run.store.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, now), Tenant: t.ID, URL: "http://" + host + "/hook",
		Events: patterns, Status: posthorn.StatusActive, Settings: s,
		CreatedAt: now, UpdatedAt: now,
	}, func(int64) (store.Sealed, error) {
		return store.Sealed{KeyID: "none", Box: key, CreatedAt: now}, nil
	}, 0)
	w.ok(err)
	w.history.created(from, e, host, secret)
	ep := &endpoint{Endpoint: e, host: host, secret: secret}
	w.endpoints[e.ID] = ep
	return ep
}

// newHost is a host that no endpoint has had.
func (w *world) newHost() string {
	w.hosts++
	return fmt.Sprintf("r%d.receivers.net", w.hosts)
}

func hostOf(url string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	return host
}

// patch changes an endpoint as the API does.
func (w *world) patch(e *endpoint, fn func(*posthorn.Endpoint)) {
	w.Helper()
	next := e.Endpoint
	fn(&next)
	w.history.changing(next)
	got, err := w.run.store.UpdateEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0, func(p *posthorn.Endpoint) error {
		fn(p)
		return nil
	})
	w.ok(err)
	w.history.changed(got)
	e.Endpoint, e.host = got, hostOf(got.URL)
}

// settings changes an endpoint's settings as the API does.
func (w *world) settings(e *endpoint, s posthorn.Settings) {
	w.Helper()
	next := e.Endpoint
	next.Settings = s
	w.history.changing(next)
	got, err := w.run.store.UpdateSettings(w.Context(), w.change(), e.Tenant, e.Ref, 0, func(p *posthorn.Settings) error {
		*p = s
		return nil
	})
	w.ok(err)
	w.history.changed(got)
	e.Endpoint = got
}

// maxSecrets is how many may sign at a time.
const maxSecrets = 5

var errTooMany = errors.New("too many secrets sign")

// rotate gives the endpoint another secret as the API does; the current one signs
// for the overlap, and without one all former ones end.
func (w *world) rotate(e *endpoint, overlap time.Duration) {
	w.Helper()
	secret := webhook.NewSecret()
	key, err := webhook.ParseSecret(secret)
	w.ok(err)
	now, full, noted := w.now(), false, false
	err = w.run.store.ChangeSecrets(w.Context(), w.change(), e.Tenant, e.Ref, func(_ posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error) {
		want := []store.Sealed{{KeyID: "none", Box: key, CreatedAt: now}}
		if overlap > 0 {
			valid[0].ExpiresAt = now.Add(overlap)
			want = append(want, valid...)
		}
		if full = len(want) > maxSecrets; full {
			return nil, errTooMany
		}
		if !noted { // the writer may ask again
			w.history.rotating(e.ID, secret, now.Add(overlap), overlap > 0)
			noted = true
		}
		return want, nil
	})
	if full {
		count("answer: 409, too many secrets sign")
		return
	}
	w.ok(err)
	w.history.rotated(e.ID)
}

func (w *world) pause(e *endpoint) {
	w.Helper()
	w.patch(e, func(p *posthorn.Endpoint) { p.Status, p.PausedReason = posthorn.StatusPaused, posthorn.PausedByUser })
	w.history.quiet(ofEndpoint(e.ID))
}

func (w *world) resume(e *endpoint) {
	w.Helper()
	synctest.Wait() // an attempt that pauses it by itself may be under way
	w.history.loud(ofEndpoint(e.ID))
	w.patch(e, func(p *posthorn.Endpoint) { p.Status, p.PausedReason = posthorn.StatusActive, "" })
}

func (w *world) delete(e *endpoint) {
	w.Helper()
	from := w.history.tick()
	w.ok(w.run.store.DeleteEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0))
	w.history.deleted(from, e.ID)
}

// suspend suspends a tenant or resumes it.
func (w *world) suspend(t *posthorn.Tenant, on bool) {
	w.Helper()
	if !on {
		w.history.loud(ofTenant(t.ID))
	}
	got, err := w.run.store.SuspendTenant(w.Context(), w.change(), t.ID, on)
	w.ok(err)
	if *t = got; on {
		w.history.quiet(ofTenant(t.ID))
	}
}

// sending turns the brake of the whole installation.
func (w *world) sending(on bool) {
	w.Helper()
	if on {
		w.history.loud(everybody)
	}
	w.ok(w.run.store.SetSending(w.Context(), w.change(), on))
	if !on {
		w.history.quiet(everybody)
	}
}

// stored is the endpoint as the store has it.
func (w *world) stored(e *endpoint) posthorn.Endpoint {
	w.Helper()
	t, err := w.run.store.Target(w.Context(), e.ID)
	w.ok(err)
	return t.Endpoint
}

// published is an accepted event with its deliveries.
type published struct {
	id         posthorn.ID
	ref        string
	deliveries []posthorn.ID
}

// publish accepts an event of the first tenant for now.
func (w *world) publish() published {
	w.Helper()
	p, err := w.publishTo(w.tenants[0].ID, time.Time{})
	w.ok(err)
	return p
}

// publishTo publishes an event of a tenant.
func (w *world) publishTo(tenant int64, deliverAt time.Time) (p published, err error) {
	n := w.history.count()
	data := fmt.Appendf(nil, `{"n":%d,"tenant":%d,"pad":%q}`, n, tenant, strings.Repeat("x", n%700))
	facts, err := w.publishAll(posthorn.Tenant{ID: tenant}, publish.Event{Type: "cases.updated", Data: data, DeliverAt: deliverAt})
	if err != nil {
		return p, err
	}
	f := facts[0]
	p = published{id: f.id, ref: f.ref}
	for range f.targets {
		p.deliveries = append(p.deliveries, f.id+1+posthorn.ID(len(p.deliveries)))
	}
	return p, nil
}

// publishAll publishes events by package publish and notes what was promised.
func (w *world) publishAll(t posthorn.Tenant, events ...publish.Event) (facts []*fact, err error) {
	r, began := w.run, w.history.tick()
	acc, err := r.publish.Publish(w.Context(), t, events, publish.InBatch, nil, nil)
	switch {
	case r.dead.Load():
		return nil, errCrashed // the answer never left the machine
	case err != nil:
		return nil, err
	}
	for _, a := range acc {
		if f := w.history.promise(t.ID, a.Ref, began, a.Repeated, a.Deliveries); f != nil {
			facts = append(facts, f)
		}
	}
	return facts, nil
}

// delivery is where a delivery stands.
func (w *world) delivery(id posthorn.ID) posthorn.Delivery {
	w.Helper()
	d, err := w.run.store.DeliveryByID(w.Context(), w.history.tenantOf(id), id)
	w.ok(err)
	return d
}

// states counts deliveries by the state that users see.
func (w *world) states(ps []published) map[posthorn.ShownState]int {
	w.Helper()
	n := map[posthorn.ShownState]int{}
	for _, p := range ps {
		for _, id := range p.deliveries {
			d := w.delivery(id)
			n[d.Shown()]++
		}
	}
	return n
}

var errCrashed = errors.New("the process crashed")

// flights are the attempts under way.
type flights struct {
	mu  sync.Mutex
	now map[posthorn.ID]bool
}

// begin reports whether no other attempt of the delivery is under way.
func (f *flights) begin(id posthorn.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		f.now = map[posthorn.ID]bool{}
	}
	twice := f.now[id]
	f.now[id] = true
	return !twice
}

func (f *flights) end(id posthorn.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, id)
}

// sender is what app makes of send.Client.
type sender struct {
	run   *run
	world *world
}

func (s sender) Send(ctx context.Context, t *store.Target, w *store.Work, g lane.Gate) posthorn.Attempt {
	if !s.run.flights.begin(w.ID) {
		s.world.history.wrong(kindFlight, "%s", w.ID.Text(posthorn.DeliveryPrefix))
	}
	defer s.run.flights.end(w.ID)
	s.run.gate.pass(beforeAttempt)
	if s.run.dead.Load() {
		return posthorn.Attempt{At: s.world.now(), Class: posthorn.ClassLocal}
	}
	var signers []*webhook.Signer
	for _, sealed := range t.Secrets {
		if sealed.ExpiresAt.IsZero() || sealed.ExpiresAt.After(s.world.now()) {
			signers = append(signers, webhook.NewSigner(sealed.Box))
		}
	}
	a := s.run.client.Send(ctx, send.Request{
		URL: t.Endpoint.URL, Signers: signers, EventRef: w.EventRef(), EventType: w.Type, Delivery: w.ID,
		Attempt: w.Progress.Attempts + 1, Test: w.Kind == posthorn.EventTest, Body: w.Body,
		Timeout: t.Endpoint.Settings.Timeout(), Endpoint: w.Endpoint, Gate: g,
	})
	count("class: %s", a.Class)
	return a
}
