package publish_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

var (
	noon = time.Date(2026, 4, 29, 12, 0, 0, 123_456_789, time.UTC)
	acme = posthorn.Tenant{ID: 7, Name: "acme"}
)

// lanes is an engine that writes down what becomes of every slot. Settling a
// slot twice, or wrongly, fails the test.
type lanes struct {
	t  *testing.T
	mu sync.Mutex
	// parked are the endpoints whose slots are parked.
	parked   map[int64]bool
	panicsOn int64
	// panicsOnAccept is the endpoint whose lane panics when it is handed a
	// delivery; that slot counts as settled.
	panicsOnAccept int64
	open           int
	log            []string // "accept 3 dlv…", in order
	works          []store.Work
	canceled       uint64
}

type slot struct {
	lanes    *lanes
	endpoint int64
	size     int
	parked   bool
	settled  bool
}

func (l *lanes) Reserve(tenant, endpoint int64, size int) publish.Slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if endpoint == l.panicsOn {
		panic("lanes: told to panic")
	}
	l.open++
	return &slot{lanes: l, endpoint: endpoint, size: size, parked: l.parked[endpoint]}
}

func (l *lanes) ReserveParked(endpoint int64) publish.Slot {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	return &slot{lanes: l, endpoint: endpoint, parked: true}
}

func (l *lanes) Canceled() uint64 { return l.canceled }

func (l *lanes) Take(works []store.Work, canceled uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.works = append(l.works, works...)
	l.log = append(l.log, fmt.Sprintf("take %d of %d", len(works), canceled))
}

func (s *slot) Parked() bool { return s.parked }

func (s *slot) settle(how string) {
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	if s.settled {
		s.lanes.t.Errorf("slot of endpoint %d is settled twice", s.endpoint)
	}
	s.settled = true
	s.lanes.open--
	s.lanes.log = append(s.lanes.log, fmt.Sprintf("%s %d", how, s.endpoint))
}

func (s *slot) Accept(w store.Work) {
	if s.parked {
		s.lanes.t.Errorf("a parked slot of endpoint %d was handed a delivery", s.endpoint)
	}
	if w.Size != s.size || w.Endpoint != s.endpoint || len(w.Body) != w.Size {
		s.lanes.t.Errorf("slot of endpoint %d for %d bytes was handed %d bytes for %d", s.endpoint, s.size, w.Size, w.Endpoint)
	}
	if s.endpoint == s.lanes.panicsOnAccept {
		s.lanes.open--
		panic("lanes: told to panic")
	}
	s.settle("accept")
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	s.lanes.works = append(s.lanes.works, w)
}
func (s *slot) Stored()  { s.settle("stored") }
func (s *slot) Release() { s.settle("release") }

// want compares what became of the slots since the last call.
func (l *lanes) want(t *testing.T, log ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if diff := cmp.Diff(log, l.log); diff != "" {
		t.Errorf("slots (-want +got):\n%s", diff)
	}
	if l.open != 0 {
		t.Errorf("%d slots were never settled", l.open)
	}
	l.log = nil
}

// script is a store that answers as told.
type script struct {
	set     store.EndpointSet
	setErr  error
	publish func(ctx context.Context, p store.Publication) ([]store.Accepted, error)
	got     []store.Publication
}

func (s *script) EndpointSet(context.Context, int64) (store.EndpointSet, error) {
	return s.set, s.setErr
}

func (s *script) Publish(ctx context.Context, p store.Publication) ([]store.Accepted, error) {
	s.got = append(s.got, p)
	if s.publish != nil {
		return s.publish(ctx, p)
	}
	return commitAll(p), nil
}

// commitAll accepts every event, with ids a thousand apart.
func commitAll(p store.Publication) []store.Accepted {
	all := make([]store.Accepted, len(p.Events))
	for i, e := range p.Events {
		n := len(e.Targets)
		all[i] = store.Accepted{ID: posthorn.ID(1000 * (i + 1)), OccurredAt: e.OccurredAt, Deliveries: n, Open: n}
	}
	return all
}

func endpoints(patterns ...string) store.EndpointSet {
	set := store.EndpointSet{Version: 1}
	for i, p := range patterns {
		e := posthorn.Endpoint{ID: int64(i + 1), Tenant: acme.ID, Status: posthorn.StatusActive}
		for _, one := range strings.Fields(p) {
			e.Events = append(e.Events, posthorn.Pattern(one))
		}
		set.Endpoints = append(set.Endpoints, e)
	}
	return set
}

type world struct {
	*publish.Service
	store *script
	lanes *lanes
}

func newWorld(t *testing.T, set store.EndpointSet, change ...func(*publish.Config)) *world {
	w := &world{store: &script{set: set}, lanes: &lanes{t: t, parked: map[int64]bool{}}}
	c := publish.Config{
		Store: w.store, Lanes: w.lanes, Catalog: catalog.Builtin(),
		Now: func() time.Time { return noon },
	}
	for _, f := range change {
		f(&c)
	}
	w.Service = publish.New(c)
	return w
}

func (w *world) send(t *testing.T, events ...publish.Event) ([]publish.Accepted, error) {
	t.Helper()
	return w.Publish(t.Context(), acme, events, publish.InBatch, nil, nil)
}

func event(eventType string) publish.Event {
	return publish.Event{Type: eventType, Data: []byte(`{"id":590}`)}
}
