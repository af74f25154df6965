// Package publish accepts events: it reads them strictly, checks them against
// the catalogue, finds the endpoints that they go to, and commits event and
// deliveries in one step. When Publish returns without an error, all of it is
// durable and under way.
//
// An endpoint sees every event whose publish began after the endpoint's creation
// or change was answered: the commit compares the version of the tenant's
// endpoints with the one that was matched, and Publish matches again when it
// moved; the last time within the commit, so that no publish fails for changes, however
// fast they come.
package publish

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Store is what publishing needs of the store.
type Store interface {
	EndpointSet(ctx context.Context, tenant int64) (store.EndpointSet, error)
	Publish(ctx context.Context, p store.Publication) ([]store.Accepted, error)
}

// Lanes is the delivery engine, as far as publishing sees it.
type Lanes interface {
	// Reserve takes a place in the queue of the endpoint's lane for a body of size
	// bytes, or says by a parked slot that there is none. Every slot is settled
	// once, by one of its methods.
	Reserve(tenant, endpoint int64, size int) Slot
	// ReserveParked takes the place of a delivery for an owned lane, which is
	// stored behind the lane's backlog in any case.
	ReserveParked(endpoint int64) Slot
	// Take hands over deliveries that are committed and owned by this process and
	// stand outside the queue: a test is attempted before all that waits. canceled is
	// what Canceled said before the commit.
	Take(works []store.Work, canceled uint64)
	Canceled() uint64
}

// Slot is a place in a lane's queue.
type Slot interface {
	// Parked reports that the delivery is to be stored behind the lane's backlog.
	Parked() bool
	// Accept hands over a delivery that is committed and owned by this process.
	Accept(w store.Work)
	// Stored tells that the delivery is committed but not handed over: parked,
	// expired, or waiting for its time.
	Stored()
	// Release tells that nothing was committed.
	Release()
}

// Catalog is what publishing asks of the catalogue.
type Catalog interface {
	Publishable(name string) bool
	Suggest(name string) string
}

// Config holds what a Service works with. Zero limits mean the defaults.
type Config struct {
	Store   Store
	Lanes   Lanes
	Catalog Catalog
	Now     func() time.Time
	// BacklogLimit bounds a tenant's open deliveries; 1,000,000.
	BacklogLimit int
	// MaxDeliveries bounds the deliveries of one request; 20,000.
	MaxDeliveries int
	// Retention is how long events are kept; 30 days. An event may be delayed by
	// up to half of it.
	Retention time.Duration
	// RatePerSecond bounds the events that a tenant publishes; 0 for no bound. A
	// whole batch may come at once.
	RatePerSecond float64
	// FilterBurst is the time of a processor that a tenant's filters may take at once,
	// of which a quarter of passing time comes back; 1 second.
	FilterBurst time.Duration
	// Keeping tells what tenants keep and how much room there is; nil for no bounds.
	// TenantBytes bounds what a tenant keeps; 0 for no bound.
	Keeping     Keeping
	TenantBytes int64
	// Refused is told of each publish that is refused because its tenant keeps too much;
	// or nil.
	Refused func()
	// Published is told of what was accepted, for the metrics; or nil.
	Published func(events, deliveries int)
}

// Service accepts events. It is safe for concurrent use.
type Service struct {
	cfg     Config
	indexes indexes

	mu       sync.Mutex
	limiters map[int64]*rate.Limiter

	filterTime *filterTime
	followers  followers
}

// New returns a Service.
func New(c Config) *Service {
	if c.BacklogLimit == 0 {
		c.BacklogLimit = 1_000_000
	}
	if c.MaxDeliveries == 0 {
		c.MaxDeliveries = 20_000
	}
	if c.Retention == 0 {
		c.Retention = 30 * 24 * time.Hour
	}
	if c.FilterBurst == 0 {
		c.FilterBurst = filterBurst
	}
	if c.Refused == nil {
		c.Refused = func() {}
	}
	if c.Published == nil {
		c.Published = func(int, int) {}
	}
	return &Service{
		cfg:        c,
		indexes:    indexes{source: c.Store.EndpointSet, programs: programs{most: programsWeight}, of: make(map[int64]*loading)},
		limiters:   make(map[int64]*rate.Limiter),
		filterTime: newFilterTime(c.FilterBurst),
	}
}

// ParseEvent reads a body as the function of that name does, and finds in the
// same step what [Service.Publish] would refuse, so that the user is told of all
// faults at once.
func (s *Service) ParseEvent(body []byte) (Event, error) { return parseEvent(body, s.checker()) }

// ParseBatch is to the function ParseBatch what ParseEvent is to ParseEvent.
func (s *Service) ParseBatch(body []byte) ([]Event, error) { return parseBatch(body, s.checker()) }

// ParseNDJSON is to the function ParseNDJSON what ParseEvent is to ParseEvent.
func (s *Service) ParseNDJSON(body []byte) ([]Event, error) { return parseNDJSON(body, s.checker()) }

// ParseCloudEvent is to the function ParseCloudEvent what ParseEvent is to ParseEvent.
func (s *Service) ParseCloudEvent(body []byte) (Event, error) {
	return parseCloudEvent(body, s.checker())
}

// ParseCloudEvents is to the function ParseCloudEvents what ParseEvent is to
// ParseEvent.
func (s *Service) ParseCloudEvents(body []byte) ([]Event, error) {
	return parseCloudEvents(body, s.checker())
}

// ParseBinary is to the function ParseBinary what ParseEvent is to ParseEvent.
func (s *Service) ParseBinary(headers map[string][]string, body []byte) (Event, error) {
	return parseBinary(headers, body, s.checker())
}

// Accepted is what became of one event.
type Accepted struct {
	// Ref is the id that users see.
	Ref, Type  string
	Timestamp  time.Time
	Deliveries int
	// Repeated tells that the event's id was known with the same content: what is
	// said here was said then, and nothing new is delivered.
	Repeated bool
}

// maxMatches is how often a publish matches before its commit. If the tenant's
// endpoints changed under it each time, it matches within the commit.
const maxMatches = 3

// Publish stores the events of one request of tenant t, all or none, and hands
// their deliveries to the lanes. pointer gives the JSON pointer of event i, for
// faults; nil when the event is the body. once, when not nil, makes the request
// idempotent by an Idempotency-Key, with what answer returns as its answer;
// answer is called within the commit.
//
// The errors are *posthorn.Error, or *store.ErrRepeated when once was seen
// before. A caller that goes away once the commit has begun does not undo it.
func (s *Service) Publish(ctx context.Context, t posthorn.Tenant, events []Event, pointer func(i int) string, once *store.Once, answer func([]Accepted) []byte) ([]Accepted, error) {
	return s.publish(ctx, t, events, pointer, store.Publication{Once: once}, answer)
}

// publish is Publish for what stands in p already.
func (s *Service) publish(ctx context.Context, t posthorn.Tenant, events []Event, pointer func(i int) string, p store.Publication, answer func([]Accepted) []byte) ([]Accepted, error) {
	now := s.cfg.Now()
	if t.Suspended() {
		return nil, suspended(t)
	}
	if err := s.validate(t, events, pointer, now); err != nil {
		return nil, err
	}
	p.Tenant, p.At, p.Events, p.BacklogLimit = t.ID, now, make([]store.NewEvent, len(events)), s.cfg.BacklogLimit
	if err := render(&p, events, pointer); err != nil {
		return nil, err
	}
	if err := s.room(&p); err != nil {
		return nil, s.explain(err, pointer)
	}
	if err := s.limit(t, len(events), now); err != nil {
		return nil, err
	}
	if answer != nil {
		p.Answer = func(a []store.Accepted) []byte { return answer(accepted(p.Events, a)) }
	}
	stored, err := s.commit(ctx, &p, 0)
	if err != nil {
		return nil, s.explain(err, pointer)
	}
	s.count(stored)
	return accepted(p.Events, stored), nil
}

// Operational publishes an event of Posthorn's own, such as
// "webhooks.endpoint.failing", to those of the tenant's endpoints that ask for
// it, and never to the endpoint that it is about. once keeps it from being
// published twice. What becomes of its deliveries leads to no further operational
// event: see [posthorn.Health.ObserveKind]. Errors are the store's.
func (s *Service) Operational(ctx context.Context, tenant int64, eventType string, at time.Time, data []byte, about int64, once *store.Once) error {
	p := store.Publication{
		Tenant: tenant, At: s.cfg.Now(), BacklogLimit: s.cfg.BacklogLimit, Once: once,
		Events: []store.NewEvent{{Type: eventType, Kind: posthorn.EventOperational}},
	}
	e := &p.Events[0]
	e.OccurredAt = at.UTC().Truncate(time.Millisecond)
	e.Body = posthorn.AppendBody(nil, "", eventType, e.OccurredAt, data)
	_, err := s.commit(ctx, &p, about)
	return err
}

// render makes the rows' content of the events.
func render(p *store.Publication, events []Event, pointer func(i int) string) error {
	var large []posthorn.Fault
	for i := range events {
		e, row := &events[i], &p.Events[i]
		*row = store.NewEvent{
			Key: e.ID, Type: e.Type, OccurredAt: e.Timestamp.UTC().Truncate(time.Millisecond),
			Source: e.Source, Subject: e.Subject, SourceID: e.SourceID,
		}
		if e.Test {
			row.Kind = posthorn.EventTest
		}
		if e.Timestamp.IsZero() {
			row.OccurredAt = p.At.UTC().Truncate(time.Millisecond)
		}
		deliverAt := ceilMillisecond(e.DeliverAt)
		if deliverAt.After(p.At) {
			row.DeliverAt = deliverAt // one that is past is sent now
		}
		if e.ID != "" {
			row.Hash = contentHash(e.Type, deliverAt, e.Data)
		}
		size := posthorn.BodyOverhead + max(len(e.ID), posthorn.GeneratedRefLength) + len(e.Type) + len(e.Data)
		row.Body = posthorn.AppendBody(make([]byte, 0, size), e.ID, e.Type, row.OccurredAt, e.Data)
		if n := len(row.Body); n > MaxEventSize {
			large = append(large, posthorn.Fault{
				Pointer: place{pointer, i}.String(),
				Detail:  fmt.Sprintf("is %d bytes as delivered; at most %d", n, MaxEventSize),
			})
		}
	}
	if len(large) > 0 {
		return &posthorn.Error{
			Code:    posthorn.TooLarge,
			Message: "An event is too large; send less in data, such as the id of what changed.",
			Faults:  large,
		}
	}
	return nil
}

// ceilMillisecond rounds up: the first attempt must not be early.
func ceilMillisecond(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Add(time.Millisecond - time.Nanosecond).Truncate(time.Millisecond)
}

// contentHash is what a repeated id is compared by. The parts are apart: a type
// holds no NUL, and the time has a fixed size.
func contentHash(eventType string, deliverAt time.Time, data []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write([]byte(eventType))
	var at [9]byte // NUL, then the time
	if !deliverAt.IsZero() {
		binary.BigEndian.PutUint64(at[1:], uint64(deliverAt.UnixMilli()))
	}
	h.Write(at[:])
	h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// commit matches, reserves and stores p, and hands over what is committed.
func (s *Service) commit(ctx context.Context, p *store.Publication, about int64) ([]store.Accepted, error) {
	m := matching{about: about, meter: meter{time: s.filterTime, tenant: p.Tenant}}
	for try := 1; ; try++ {
		if m.again = try > 1; m.again && m.sifted == nil {
			m.sifted = sifted{}
		}
		x, err := s.indexes.get(ctx, p.Tenant)
		if err != nil {
			return nil, err
		}
		// Posthorn's own events wait for nothing: those of other tenants come after them.
		m.sifting, m.patient = maxSifting, about == 0
		if err := s.target(ctx, p, x.index, &m); err != nil {
			return nil, err
		}
		within := try > maxMatches
		stored, err := s.store(ctx, p, &m, within)
		if err == nil {
			s.followers.wake(p.Tenant)
		}
		if within || !errors.Is(err, store.ErrStale) {
			return stored, err
		}
		s.indexes.drop(p.Tenant, x)
	}
}

// matching is what one publish keeps from one match to the next.
type matching struct {
	about   int64 // the endpoint that gets none of it
	again   bool  // it is not the first
	sifted  sifted
	sifting time.Duration // what filters may take
	patient bool          // it may wait for the tenant's filter time
	meter   meter
}

func suspended(t posthorn.Tenant) error {
	return posthorn.Errorf(posthorn.Forbidden, "The tenant %s is suspended: nothing can be published until an operator resumes it.", t.Name)
}

// target sets where the events go.
func (s *Service) target(ctx context.Context, p *store.Publication, x *index, m *matching) error {
	defer m.meter.end()
	p.SetVersion = x.version
	total, most := 0, 0
	for i := range p.Events {
		n := x.certain(x.match(p.Events[i].Type))
		total, most = total+n, max(most, n)
	}
	if err := s.bounds(total, most); err != nil {
		return err
	}
	sift := sift{index: x, matching: m}
	total, most = 0, 0
	for i := range p.Events {
		e := &p.Events[i]
		ids := x.match(e.Type)
		e.Targets = make([]store.PublishTarget, 0, len(ids))
		for _, id := range ids {
			if id != m.about {
				kind := x.owned[id]
				e.Targets = append(e.Targets, store.PublishTarget{Endpoint: id, Owned: kind != freeLane, Ordered: kind == orderedLane})
			}
		}
		sift.event(ctx, i, e)
		total, most = total+len(e.Targets), max(most, len(e.Targets))
	}
	if x.filters != nil { // those that filters let pass count too
		return s.bounds(total, most)
	}
	return nil
}

// bounds refuses what makes more deliveries than a request, or its largest event,
// may make.
func (s *Service) bounds(total, most int) error {
	if total > s.cfg.MaxDeliveries {
		return posthorn.Errorf(posthorn.TooLarge, "The request makes %d deliveries; one may make at most %d. Publish fewer events at a time.", total, s.cfg.MaxDeliveries)
	}
	// An event and its deliveries share the ids of one millisecond.
	if most >= posthorn.MaxSequence {
		return posthorn.Errorf(posthorn.TooLarge, "The event makes %d deliveries; one event may make at most %d.", most, posthorn.MaxSequence-1)
	}
	return nil
}

// store reserves a slot for every delivery and commits p. Whatever happens,
// every slot is settled, and rightly: the commit is not given up when the caller
// goes away, so that its outcome is always known. within has it match again within
// the commit if need be.
func (s *Service) store(ctx context.Context, p *store.Publication, m *matching, within bool) ([]store.Accepted, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := handover{p: p}
	defer h.settle()
	h.reserve(s.cfg.Lanes)
	if within {
		p.Match = func(set store.EndpointSet) error {
			h.settle()
			m.sifting, m.patient = maxSiftingWithin, false
			if err := s.target(ctx, p, s.indexes.make(p.Tenant, set), m); err != nil {
				return err
			}
			h.reserve(s.cfg.Lanes)
			return nil
		}
	}
	stored, err := s.cfg.Store.Publish(context.WithoutCancel(ctx), *p)
	if err != nil {
		return nil, err
	}
	h.accept(stored)
	return stored, nil
}

func (s *Service) count(stored []store.Accepted) {
	events, deliveries := 0, 0
	for _, a := range stored {
		if !a.Repeated {
			events++
			deliveries += a.Deliveries
		}
	}
	s.cfg.Published(events, deliveries)
}

func accepted(events []store.NewEvent, stored []store.Accepted) []Accepted {
	all := make([]Accepted, len(stored))
	for i, a := range stored {
		all[i] = Accepted{
			Ref: events[i].Key, Type: events[i].Type, Timestamp: a.OccurredAt,
			Deliveries: a.Deliveries, Repeated: a.Repeated,
		}
		if all[i].Ref == "" {
			all[i].Ref = a.ID.Text(posthorn.EventPrefix)
		}
	}
	return all
}

// Notice lets go of what a change may have made untrue. Of an endpoint's nothing is:
// most move no version, and of the others the commit tells.
func (s *Service) Notice(n store.Notice) {
	switch n.Kind {
	case store.NoticeAll:
		s.indexes.dropAll()
	case store.NoticeTenant:
		s.indexes.drop(n.Tenant, nil)
		s.indexes.programs.drop(n.Tenant)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.limiters, n.Tenant)
	}
}
