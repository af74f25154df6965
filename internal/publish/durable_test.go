package publish_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// durable is a service over the real store.
type durable struct {
	*publish.Service
	store  *sqlite.Store
	lanes  *lanes
	tenant posthorn.Tenant
}

func newDurable(t *testing.T, change ...func(*publish.Config)) *durable {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: filepath.Join(t.TempDir(), "posthorn.db"), Role: sqlite.Serve, Synchronous: "OFF",
		FreeSpace: func(string) (free, total uint64, err error) { return 1 << 40, 1 << 41, nil },
		Now:       func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &durable{store: s, lanes: &lanes{t: t, parked: map[int64]bool{}}}
	c := publish.Config{Store: s, Lanes: d.lanes, Catalog: catalog.Builtin(), Now: func() time.Time { return noon }}
	for _, f := range change {
		f(&c)
	}
	d.Service = publish.New(c)
	s.Watch(d.Notice)
	t.Cleanup(func() {
		if d.lanes.open != 0 {
			t.Errorf("%d slots were never settled", d.lanes.open)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if d.tenant, err = s.CreateTenant(t.Context(), byTest, "acme"); err != nil {
		t.Fatal(err)
	}
	return d
}

var byTest = store.Change{Actor: "cli", At: noon}

func (d *durable) endpoint(t testing.TB, patterns ...posthorn.Pattern) posthorn.Endpoint {
	t.Helper()
	ref := posthorn.NewRef(posthorn.EndpointPrefix, noon)
	e, err := d.store.CreateEndpoint(context.Background(), byTest, posthorn.Endpoint{
		Ref: ref, Tenant: d.tenant.ID,
		URL: "https://partner.example.com/" + ref, Events: patterns, Status: posthorn.StatusActive,
		CreatedAt: noon, UpdatedAt: noon,
	}, func(int64) (store.Sealed, error) {
		return store.Sealed{KeyID: "k1", Box: []byte("box"), CreatedAt: noon}, nil
	}, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (d *durable) send(t testing.TB, events ...publish.Event) ([]publish.Accepted, error) {
	t.Helper()
	return d.Publish(t.Context(), d.tenant, events, publish.InBatch, nil, nil)
}

func (d *durable) stored(t testing.TB, ref string) posthorn.Event {
	t.Helper()
	e, err := d.store.EventByRef(t.Context(), d.tenant.ID, ref)
	if err != nil {
		t.Fatalf("event %s: %v", ref, err)
	}
	return e
}

func (d *durable) count(t testing.TB) int {
	t.Helper()
	events, _, err := d.store.Events(t.Context(), store.EventFilter{Tenant: d.tenant.ID}, store.Page{Limit: 250})
	if err != nil {
		t.Fatal(err)
	}
	return len(events)
}

func TestDataIsDeliveredByteForByte(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "cases.*")
	const data = "{ \"n\":1.0, \"big\": 12345678901234567890123, \"html\":\"\\u003cb\\u003e\",\t\"é\":\"\\u00e9\\u0000\" , \"e\":1E+2}"
	events, err := d.ParseBatch([]byte(`{"events":[{"type":"cases.created","data":` + data + `},{"id":"mine","type":"cases.updated","data":` + data + `}]}`))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := d.send(t, events...)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range accepted {
		want := `{"id":"` + a.Ref + `","type":"` + a.Type + `","timestamp":"2026-04-29T12:00:00.123Z","data":` + data + `}`
		e := d.stored(t, a.Ref)
		if string(e.Body) != want || string(e.Data()) != data {
			t.Errorf("stored  %s\nwant    %s", e.Body, want)
		}
		w := d.lanes.works[i]
		if string(w.Body) != want || w.EventRef() != a.Ref {
			t.Errorf("%s was handed over as %s", a.Ref, w.Body)
		}
		delivery, err := d.store.DeliveryByID(t.Context(), d.tenant.ID, w.ID)
		if err != nil || delivery.Event != w.Event {
			t.Errorf("delivery %d is %+v, %v", w.ID, delivery, err)
		}
	}
}

func TestSameIdIsPublishedOnce(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "*")
	e := event("cases.created")
	e.ID, e.Timestamp = "mine", noon.Add(-time.Hour)
	first, err := d.send(t, e)
	if err != nil {
		t.Fatal(err)
	}
	d.lanes.want(t, "accept 1")
	d.endpoint(t, "*") // what came later does not matter to what was
	e.Timestamp = noon
	again, err := d.send(t, e)
	if err != nil {
		t.Fatal(err)
	}
	d.lanes.want(t, "release 1")
	first[0].Repeated = true
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the answer differs (-first +again):\n%s", diff)
	}
	if n := d.count(t); n != 1 {
		t.Errorf("%d events are stored", n)
	}
}

func TestSameIdWithOtherContentIsAConflict(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "*")
	e := event("cases.created")
	e.ID = "mine"
	if _, err := d.send(t, e); err != nil {
		t.Fatal(err)
	}
	d.lanes.want(t, "accept 1")
	otherType, otherData, otherTime := e, e, e
	otherType.Type = "cases.updated"
	otherData.Data = []byte(`{"id": 590}`)
	otherTime.DeliverAt = noon.Add(time.Hour)
	for name, other := range map[string]publish.Event{"type": otherType, "data": otherData, "deliver_at": otherTime} {
		_, err := d.send(t, event("assignments.created"), other)
		fault, _ := errors.AsType[*posthorn.Error](err)
		if fault == nil || fault.Code != posthorn.Conflict || fault.Faults[0].Pointer != "/events/1/id" {
			t.Errorf("other %s: %v, want a conflict at /events/1/id", name, err)
		}
		d.lanes.want(t, "release 1", "release 1")
	}
	if n := d.count(t); n != 1 {
		t.Errorf("%d events are stored: a refused batch left something", n)
	}
}

func TestSameIdTwiceInABatch(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "*")
	e := event("cases.created")
	e.ID = "mine"
	got, err := d.send(t, e, event("cases.updated"), e)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Repeated || !got[2].Repeated || got[2].Ref != got[0].Ref || got[2].Deliveries != 1 {
		t.Errorf("got %+v", got)
	}
	d.lanes.want(t, "accept 1", "accept 1", "release 1")

	e.ID = "other"
	changed := e
	changed.Data = []byte(`{}`)
	if _, err := d.send(t, e, changed); code(err) != "conflict" || !strings.Contains(err.Error(), "/events/1/id") {
		t.Errorf("got %v", err)
	}
	d.lanes.want(t, "release 1", "release 1")
	if n := d.count(t); n != 2 {
		t.Errorf("%d events are stored, want 2", n)
	}
}

func TestIdempotencyKeyAnswersAsBefore(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "*")
	once := func(key, content string) *store.Once {
		o := &store.Once{Tenant: d.tenant.ID, Route: "POST /events", Key: key, Expires: noon.Add(24 * time.Hour)}
		copy(o.Hash[:], content)
		return o
	}
	answer := func(a []publish.Accepted) []byte { return fmt.Appendf(nil, "%s %d", a[0].Ref, a[0].Deliveries) }
	try := func(o *store.Once) ([]publish.Accepted, error) {
		return d.Publish(t.Context(), d.tenant, []publish.Event{event("cases.created")}, nil, o, answer)
	}
	first, err := try(once("k", "a"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = try(once("k", "a"))
	again, ok := errors.AsType[*store.ErrRepeated](err)
	if !ok || string(again.Answer) != string(answer(first)) {
		t.Errorf("got %v, want the answer %q", err, answer(first))
	}
	if _, err := try(once("k", "b")); code(err) != "invalid" || !strings.Contains(err.Error(), "Idempotency-Key") {
		t.Errorf("other content: %v", err)
	}
	if _, err := try(once("l", "a")); err != nil {
		t.Errorf("another key: %v", err)
	}
	d.lanes.want(t, "accept 1", "release 1", "release 1", "accept 1")
}

func TestFullBacklogExpiresWhatIsNew(t *testing.T) {
	d := newDurable(t, func(c *publish.Config) { c.BacklogLimit = 3 })
	d.endpoint(t, "*")
	d.endpoint(t, "*")
	first, err := d.send(t, event("cases.created"), event("cases.updated"))
	if err != nil {
		t.Fatal(err)
	}
	d.lanes.want(t, "accept 1", "accept 2", "accept 1", "stored 2")
	if first[1].Deliveries != 2 {
		t.Errorf("deliveries = %d: the expired one counts", first[1].Deliveries)
	}
	deliveries, _, err := d.store.Deliveries(t.Context(),
		store.DeliveryFilter{Tenant: d.tenant.ID, State: "expired"}, store.Page{Limit: 10})
	if err != nil || len(deliveries) != 1 || deliveries[0].Reason != posthorn.ReasonBacklogFull || deliveries[0].EventRef != first[1].Ref {
		t.Errorf("expired: %+v, %v", deliveries, err)
	}
}

func TestSuspensionAndDeletionAreFelt(t *testing.T) {
	d := newDurable(t)
	d.endpoint(t, "*")
	if _, err := d.send(t, event("cases.created")); err != nil {
		t.Fatal(err)
	}
	d.lanes.want(t, "accept 1")
	if err := d.store.DeleteTenant(t.Context(), byTest, d.tenant.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.send(t, event("cases.created")); code(err) != "not_found" {
		t.Errorf("publishing for a deleted tenant: %v", err)
	}
}

// An endpoint sees every event whose publish began after its creation was
// answered, whatever else goes on.
func TestNewEndpointMissesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := newDurable(t)
	d.endpoint(t, "*")
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	for range 4 {
		publishers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := d.send(t, event("cases.created")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(seed, 1))
	have := 1
	for range 40 {
		if random.IntN(3) > 0 {
			d.endpoint(t, "cases.*")
			have++
		}
		got, err := d.send(t, event("cases.created"))
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Deliveries != have {
			t.Fatalf("seed %d: %d endpoints got an event that was published after %d were there", seed, got[0].Deliveries, have)
		}
	}
	close(stop)
	publishers.Wait()
}

func BenchmarkPublish(b *testing.B) {
	for _, endpoints := range []int{1, 10} {
		b.Run(fmt.Sprintf("%d endpoints", endpoints), func(b *testing.B) {
			w := newWorld(&testing.T{}, endpointsOf(endpoints))
			w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
				w.store.got, w.lanes.log, w.lanes.works = nil, nil, nil
				return commitAll(p), nil
			}
			events := []publish.Event{event("cases.created")}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Publish(b.Context(), acme, events, nil, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func endpointsOf(n int) store.EndpointSet {
	patterns := make([]string, n)
	for i := range patterns {
		patterns[i] = "cases.*"
	}
	return endpoints(patterns...)
}
