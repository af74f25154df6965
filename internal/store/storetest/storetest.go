// Package storetest holds every store to the contract of package store. Each
// test is named after what it promises.
package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Run runs the suite. open returns an empty store that serves, and its database; it
// is closed with the test.
func Run(t *testing.T, open func(t *testing.T) (store.Store, Raw)) {
	for _, group := range [][]promise{
		tenantPromises, tokenPromises, endpointPromises, secretPromises, headerPromises, sealingPromises, publishPromises,
		queuePromises, linePromises, recordPromises, redeliveryPromises, replayPromises, finalPromises, turnPromises, logPromises, pagePromises, statsPromises, streamPromises, sweepPromises,
		clockPromises, erasePromises, exportPromises, auditPromises, newerPromises, keptPromises, walkPromises,
	} {
		for _, p := range group {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				s, raw := open(t)
				w := newWorld(t, s)
				w.raw = raw
				p.test(w)
			})
		}
	}
}

type promise struct {
	name string
	test func(w *world)
}

// world is a store with a tenant, and short words to act on it.
type world struct {
	*testing.T
	s      store.Store
	raw    Raw // of the tests of [Run]
	now    time.Time
	tenant posthorn.Tenant
	refs   int

	mu      sync.Mutex
	notices []store.Notice
}

func newWorld(t *testing.T, s store.Store) *world {
	// The time is near the real one, as ids never begin before the store's clock.
	return newWorldAt(t, s, time.Now().Truncate(time.Millisecond).UTC())
}

func newWorldAt(t *testing.T, s store.Store, now time.Time) *world {
	w := &world{T: t, s: s, now: now}
	s.Watch(func(n store.Notice) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notices = append(w.notices, n)
	})
	w.tenant = w.newTenant("acme")
	return w
}

func (w *world) change() store.Change { return store.Change{Actor: "test", At: w.now} }

// noticed returns and forgets what the watcher was told.
func (w *world) noticed() []store.Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.notices
	w.notices = nil
	return n
}

func (w *world) newTenant(name string) posthorn.Tenant {
	w.Helper()
	t, err := w.s.CreateTenant(w.Context(), w.change(), name)
	w.ok(err)
	return t
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) is(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Fatalf("got error %v, want %v", err, want)
	}
}

// endpoint makes an active endpoint of the tenant that wants everything.
func (w *world) endpoint() posthorn.Endpoint {
	w.Helper()
	return w.endpointOf(w.tenant)
}

func (w *world) endpointOf(t posthorn.Tenant) posthorn.Endpoint {
	w.Helper()
	w.refs++
	e, err := w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, w.now), Tenant: t.ID,
		URL: fmt.Sprintf("https://example.com/%d", w.refs), Events: []posthorn.Pattern{"*"}, Status: posthorn.StatusActive,
		CreatedAt: w.now, UpdatedAt: w.now,
	}, func(id int64) (store.Sealed, error) {
		return store.Sealed{KeyID: "k1", Box: fmt.Appendf(nil, "secret of %d", id), CreatedAt: w.now}, nil
	}, 1000)
	w.ok(err)
	return e
}

// event is a publication's event for the endpoints.
func (w *world) event(key string, endpoints ...posthorn.Endpoint) store.NewEvent {
	const typ, data = "cases.updated", `{"case_id":590}`
	e := store.NewEvent{
		Key: key, Type: typ, OccurredAt: w.now, Hash: sha256.Sum256([]byte(typ + data)),
		Body: posthorn.AppendBody(nil, key, typ, w.now, []byte(data)),
	}
	for _, to := range endpoints {
		e.Targets = append(e.Targets, store.PublishTarget{Endpoint: to.ID})
	}
	return e
}

// later makes the event one that is delivered later.
func later(e store.NewEvent, at time.Time) store.NewEvent {
	e.DeliverAt = at
	return e
}

// parked makes all deliveries of the event parked ones.
func parked(e store.NewEvent) store.NewEvent {
	for i := range e.Targets {
		e.Targets[i].Parked = true
	}
	return e
}

func (w *world) setVersion(tenant posthorn.Tenant) int64 {
	w.Helper()
	set, err := w.s.EndpointSet(w.Context(), tenant.ID)
	w.ok(err)
	return set.Version
}

func (w *world) publication(events ...store.NewEvent) store.Publication {
	w.Helper()
	return store.Publication{
		Tenant: w.tenant.ID, SetVersion: w.setVersion(w.tenant), At: w.now, BacklogLimit: 1_000_000, Events: events,
	}
}

func (w *world) publish(events ...store.NewEvent) []store.Accepted {
	w.Helper()
	a, err := w.s.Publish(w.Context(), w.publication(events...))
	w.ok(err)
	return a
}

// send publishes one event to the endpoint and returns its delivery.
func (w *world) send(to posthorn.Endpoint) posthorn.ID {
	w.Helper()
	return w.publish(w.event("", to))[0].ID + 1
}

func (w *world) delivery(id posthorn.ID) posthorn.Delivery {
	w.Helper()
	d, err := w.s.DeliveryByID(w.Context(), w.tenant.ID, id)
	w.ok(err)
	return d
}

func (w *world) shown(id posthorn.ID, want posthorn.ShownState, reason posthorn.Reason) {
	w.Helper()
	d := w.delivery(id)
	if d.Shown() != want || d.Reason != reason {
		w.Errorf("delivery is %s %q, want %s %q", d.Shown(), d.Reason, want, reason)
	}
}

// exact is a schedule of three waits with no jitter.
var exact = posthorn.Policy{Schedule: []time.Duration{time.Minute, time.Hour, 24 * time.Hour}, LocalRetry: 5 * time.Second}

func succeeds() posthorn.Attempt { return posthorn.Attempt{Class: posthorn.ClassOK, Status: 200} }

func fails() posthorn.Attempt { return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 500} }

// result is that of an attempt that ends now.
func (w *world) result(id posthorn.ID, to posthorn.Endpoint, tries int, a posthorn.Attempt) store.Result {
	a.At = w.now
	a.Number = tries + 1
	return store.Result{
		ID: id, Endpoint: to.ID, Tenant: to.Tenant, Tries: tries, Attempt: a, EndedAt: w.now, Policy: exact,
	}
}

func (w *world) record(r store.Result) store.Recorded {
	w.Helper()
	rec, err := record(w.s, r)
	w.ok(err)
	return rec
}

func record(s store.Store, r store.Result) (store.Recorded, error) {
	type answer struct {
		rec store.Recorded
		err error
	}
	c := make(chan answer, 1)
	s.Record(r, func(rec store.Recorded, err error) { c <- answer{rec, err} })
	a := <-c
	return a.rec, a.err
}

func (w *world) claimDue(limit int) []store.Work {
	w.Helper()
	work, _, err := w.s.ClaimDue(w.Context(), w.now, limit)
	w.ok(err)
	return work
}

func (w *world) pause(e posthorn.Endpoint) { w.Helper(); w.setStatus(e, posthorn.StatusPaused) }

func (w *world) setStatus(e posthorn.Endpoint, status posthorn.EndpointStatus) posthorn.Endpoint {
	w.Helper()
	e, err := w.s.UpdateEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0, func(e *posthorn.Endpoint) error {
		e.Status = status
		return nil
	})
	w.ok(err)
	return e
}

// sweep sweeps until nothing is left to do and returns what became of rows.
func (w *world) sweep(r store.Retention) store.Swept {
	w.Helper()
	sum := Sweep(w, w.s, w.now, r)
	return store.Swept{Canceled: sum.Canceled, Expired: sum.Expired, Events: sum.Events, Deliveries: sum.Deliveries, Keys: sum.Keys}
}

func ids(work []store.Work) (list []posthorn.ID) {
	for _, w := range work {
		list = append(list, w.ID)
	}
	return list
}

// holds names whatever holdings of the deliveries there are.
func holds(ids ...posthorn.ID) []store.Hold {
	list := make([]store.Hold, len(ids))
	for i, id := range ids {
		list[i] = store.Hold{ID: id}
	}
	return list
}
