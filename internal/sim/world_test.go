package sim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
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
	receivers *receivers
	net       *network
	run       *run // the process that is up
	crashes   int
	drains    int // each may cut attempts short
	files     int

	tenants   []posthorn.Tenant
	endpoints map[int64]*endpoint
	began     time.Time
	ledger    ledger
}

// endpoint is a partner's endpoint as the test made it.
type endpoint struct {
	posthorn.Endpoint
	host   string
	secret string
}

// run is one life of the process.
type run struct {
	store  *sqlite.Store
	engine *lane.Engine
	client *send.Client
	cable  *cable
	gate   *gate
	dead   atomic.Bool
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
	w := &world{T: t, dir: dir, config: c, receivers: newReceivers(), endpoints: map[int64]*endpoint{}}
	wait(time.Until(time.Date(2026, 4, 29, 9, 0, 0, 0, time.UTC)))
	w.net = newNetwork(w.receivers)
	return w
}

// tell opens the world, runs the story and holds the checker against it.
func (w *world) tell(fn func(w *world)) {
	w.open()
	w.tenant("acme")
	w.began = time.Now()
	fn(w)
	w.stop()
	w.net.close()
	w.check()
}

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
	s, err := sqlite.Open(w.Context(), sqlite.Options{
		Path: w.path(), Synchronous: "OFF", Poll: -1,
		FreeSpace: func(string) (uint64, uint64, error) { return 1 << 40, 1 << 41, nil },
	})
	w.ok(err)
	r := &run{store: s, cable: &cable{net: w.net}, gate: newGate()}
	r.client, err = send.New(send.Config{AllowHTTP: true, Dial: r.cable.Dial})
	w.ok(err)
	c := w.config
	c.Store, c.Sender = gatedStore{s, r}, sender{r}
	r.engine = lane.New(c)
	s.Watch(r.engine.Notice)
	w.ok(r.engine.Start(w.Context()))
	w.run = r
}

// stop drains the process as SIGTERM does.
func (w *world) stop() {
	w.Helper()
	w.drains++
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if err := w.run.engine.Drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		w.Error(err)
	}
	w.run.client.Close()
	w.run.cable.sever()
	w.ok(w.run.store.Close())
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
	old.dead.Store(true)
	old.cable.sever()
	old.gate.release()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = old.engine.Drain(now)
	old.client.Close()
	_ = old.store.Close()
	w.crashes++
	w.open()
}

func (w *world) change() store.Change { return store.Change{Actor: "test", At: time.Now()} }

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

func (w *world) endpointOf(t posthorn.Tenant, s posthorn.Settings) *endpoint {
	w.Helper()
	secret := webhook.NewSecret()
	key, err := webhook.ParseSecret(secret)
	w.ok(err)
	host := fmt.Sprintf("r%d.receivers.net", len(w.endpoints)+1)
	e, err := w.run.store.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, time.Now()), Tenant: t.ID, URL: "http://" + host + "/hook",
		Events: []posthorn.Pattern{"cases.*"}, Status: posthorn.StatusActive, Settings: s,
		CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}, func(int64) (store.Sealed, error) {
		return store.Sealed{KeyID: "none", Box: key, CreatedAt: time.Now()}, nil
	}, 0)
	w.ok(err)
	ep := &endpoint{Endpoint: e, host: host, secret: secret}
	w.endpoints[e.ID] = ep
	return ep
}

// patch changes an endpoint as the API does.
func (w *world) patch(e *endpoint, fn func(*posthorn.Endpoint)) {
	w.Helper()
	_, err := w.run.store.UpdateEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0, func(p *posthorn.Endpoint) error {
		fn(p)
		return nil
	})
	w.ok(err)
}

func (w *world) pause(e *endpoint) {
	w.Helper()
	w.patch(e, func(p *posthorn.Endpoint) { p.Status, p.PausedReason = posthorn.StatusPaused, posthorn.PausedByUser })
	w.ledger.quiet(e.ID, time.Now())
}

func (w *world) resume(e *endpoint) {
	w.Helper()
	w.ledger.loud(e.ID)
	w.patch(e, func(p *posthorn.Endpoint) { p.Status, p.PausedReason = posthorn.StatusActive, "" })
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

// publishTo does what package publish does: match, reserve, commit, hand over.
func (w *world) publishTo(tenant int64, deliverAt time.Time) (p published, err error) {
	s, r := w.run.store, w.run
	for {
		set, err := s.EndpointSet(w.Context(), tenant)
		if err != nil {
			return p, err
		}
		p, err = w.publishMatched(r, tenant, set, deliverAt)
		if !errors.Is(err, store.ErrStale) {
			return p, err
		}
	}
}

func (w *world) publishMatched(r *run, tenant int64, set store.EndpointSet, deliverAt time.Time) (p published, err error) {
	at := time.Now()
	data := fmt.Sprintf(`{"n":%d,"tenant":%d,"pad":%q}`, w.ledger.count(), tenant, strings.Repeat("x", w.ledger.count()%700))
	ev := store.NewEvent{
		Type: "cases.updated", Hash: sha256.Sum256([]byte(data)), OccurredAt: at, DeliverAt: deliverAt,
		Body: posthorn.AppendBody(nil, "", "cases.updated", at, []byte(data)),
	}
	var slots []lane.Slot
	for _, e := range set.Endpoints {
		if e.Matches(ev.Type) {
			slot := r.engine.Reserve(tenant, e.ID, len(ev.Body))
			slots = append(slots, slot)
			ev.Targets = append(ev.Targets, store.PublishTarget{Endpoint: e.ID, Parked: slot.Parked()})
		}
	}
	r.gate.pass(beforePublish)
	if r.dead.Load() {
		return p, errCrashed
	}
	acc, err := r.store.Publish(w.Context(), store.Publication{
		Tenant: tenant, SetVersion: set.Version, At: at, Events: []store.NewEvent{ev},
	})
	if err != nil {
		for _, s := range slots {
			s.Release()
		}
		return p, err
	}
	a := acc[0]
	p = published{id: a.ID, ref: a.ID.Text(posthorn.EventPrefix)}
	for i := range slots {
		p.deliveries = append(p.deliveries, a.ID+1+posthorn.ID(i))
	}
	w.ledger.accept(p, tenant, at, ev)
	r.gate.pass(afterPublish)
	for i, s := range slots {
		if s.Parked() || i >= a.Open || deliverAt.After(at) {
			s.Stored()
			continue
		}
		s.Accept(store.Work{
			ID: p.deliveries[i], Event: a.ID, Type: ev.Type, Tenant: tenant, Endpoint: ev.Targets[i].Endpoint,
			Progress: posthorn.Progress{NextAt: at}, AcceptedAt: at, Size: len(ev.Body), Body: ev.Body,
		})
	}
	return p, nil
}

// delivery is where a delivery stands.
func (w *world) delivery(id posthorn.ID) posthorn.Delivery {
	w.Helper()
	tenant := w.ledger.tenantOf(id)
	d, err := w.run.store.DeliveryByID(w.Context(), tenant, id)
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

// sender is what app makes of send.Client.
type sender struct{ run *run }

func (s sender) Send(ctx context.Context, t *store.Target, w *store.Work) posthorn.Attempt {
	s.run.gate.pass(beforeAttempt)
	if s.run.dead.Load() {
		return posthorn.Attempt{At: time.Now(), Class: posthorn.ClassLocal}
	}
	var keys [][]byte
	for _, sealed := range t.Secrets {
		if sealed.ExpiresAt.IsZero() || sealed.ExpiresAt.After(time.Now()) {
			keys = append(keys, sealed.Box)
		}
	}
	return s.run.client.Send(ctx, send.Request{
		URL: t.Endpoint.URL, Keys: keys, EventRef: w.EventRef(), EventType: w.Type, Delivery: w.ID,
		Attempt: w.Progress.Attempts + 1, Test: w.Kind == posthorn.EventTest, Body: w.Body,
		Timeout: t.Endpoint.Settings.Timeout(), Endpoint: w.Endpoint,
	})
}
