package publish

import (
	"context"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Tested is an event that tests an endpoint, with its one delivery.
type Tested struct {
	Accepted
	Delivery posthorn.ID
}

// Test publishes an event that goes to one endpoint of tenant t, whatever that asks
// for, and paused or not: to try it out. It is attempted at once, beside what waits for
// the endpoint, and once; what comes of it changes neither health nor statistics. once
// and answer
// are those of [Service.Publish], as are the errors.
func (s *Service) Test(ctx context.Context, t posthorn.Tenant, endpoint int64, eventType string, data []byte, once *store.Once, answer func(Tested) []byte) (Tested, error) {
	if t.Suspended() {
		return Tested{}, suspended(t)
	}
	now := s.cfg.Now()
	e := store.NewEvent{
		Key: posthorn.NewRef(posthorn.TestPrefix, now), Type: eventType, Kind: posthorn.EventTest,
		OccurredAt: now.UTC().Truncate(time.Millisecond), Targets: []store.PublishTarget{{Endpoint: endpoint}},
	}
	e.Hash = contentHash(eventType, time.Time{}, data)
	e.Body = posthorn.AppendBody(nil, e.Key, eventType, e.OccurredAt, data)
	p := store.Publication{Tenant: t.ID, At: now, Events: []store.NewEvent{e}, BacklogLimit: s.cfg.BacklogLimit, Once: once}
	if err := s.room(&p); err != nil {
		return Tested{}, s.explain(err, nil)
	}
	tested := func(a store.Accepted) Tested {
		return Tested{accepted(p.Events, []store.Accepted{a})[0], a.ID + 1}
	}
	if answer != nil {
		p.Answer = func(a []store.Accepted) []byte { return answer(tested(a[0])) }
	}
	canceled := s.cfg.Lanes.Canceled()
	a, err := s.commitAsIs(ctx, &p)
	if err != nil {
		return Tested{}, s.explain(err, nil)
	}
	if h := (handover{p: &p}); a.Open == 1 {
		w := h.work(&p.Events[0], &a, 0)
		w.Aside, w.Progress.Manual = true, true
		s.cfg.Lanes.Take([]store.Work{w}, canceled)
	}
	return tested(a), nil
}

// commitAsIs stores a publication whose targets are given, whatever the others of the
// tenant's endpoints are by then.
func (s *Service) commitAsIs(ctx context.Context, p *store.Publication) (store.Accepted, error) {
	x, err := s.indexes.get(ctx, p.Tenant)
	if err != nil {
		return store.Accepted{}, err
	}
	p.SetVersion = x.index.version
	stored, err := s.cfg.Store.Publish(context.WithoutCancel(ctx), *p)
	if errors.Is(err, store.ErrStale) {
		s.indexes.drop(p.Tenant, x)
		p.Match = func(store.EndpointSet) error { return nil }
		stored, err = s.cfg.Store.Publish(context.WithoutCancel(ctx), *p)
	}
	if err != nil {
		return store.Accepted{}, err
	}
	s.followers.wake(p.Tenant)
	return stored[0], nil
}
