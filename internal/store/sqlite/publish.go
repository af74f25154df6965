package sqlite

import (
	"bytes"
	"context"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Publish implements [store.Publisher]. Once the writer has taken the
// publication, its outcome is waited for, whatever becomes of ctx.
func (s *Store) Publish(ctx context.Context, p store.Publication) ([]store.Accepted, error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	o := &op{kind: opPublish, tenant: p.Tenant, ctx: ctx, rows: len(p.Events)}
	for i := range p.Events {
		e := &p.Events[i]
		if err := store.CheckText(e.Key, e.Type, e.Source, e.Subject, e.SourceID); err != nil {
			return nil, err
		}
		if len(e.Targets) >= posthorn.MaxSequence {
			return nil, store.ErrTooMany
		}
		o.rows += len(e.Targets)
		o.bytes += len(e.Body)
	}
	if p.Once != nil {
		if err := store.CheckText(p.Once.Route, p.Once.Key); err != nil {
			return nil, err
		}
	}
	var accepted []store.Accepted
	o.apply = func(tx *txn) (err error) {
		accepted, err = tx.publish(&p)
		return err
	}
	if err := s.writer.submit(o); err != nil {
		return nil, err
	}
	return accepted, nil
}

func (tx *txn) publish(p *store.Publication) ([]store.Accepted, error) {
	if tx.w.spaceIsLow() {
		return nil, refuse(store.ErrFull)
	}
	tenant, err := tx.tenant(p.Tenant)
	if err != nil {
		return nil, err
	}
	if err := tx.checkOnce(p.Once, p.At); err != nil {
		return nil, err
	}
	accepted, first, err := tx.findRepeated(p)
	if err != nil {
		return nil, err
	}
	fresh := false
	for i := range accepted {
		fresh = fresh || !accepted[i].Repeated
	}
	if fresh && p.SetVersion != tenant.setVersion {
		if err := tx.matchAgain(p, tenant.setVersion); err != nil {
			return nil, err
		}
	}
	for i := range p.Events {
		switch {
		case !accepted[i].Repeated:
			accepted[i], err = tx.publishEvent(p, &p.Events[i])
			if err != nil {
				return nil, err
			}
		case first[i] >= 0: // repeats an earlier one of this publication
			accepted[i] = accepted[first[i]]
			accepted[i].Repeated, accepted[i].Open = true, 0
		}
	}
	if p.Once == nil {
		return accepted, nil
	}
	answer := p.Once.Answer
	if p.Answer != nil {
		answer = p.Answer(accepted)
	}
	return accepted, tx.storeOnce(p.Once, answer)
}

// matchAgain has the publication matched with the endpoints as they are in the
// transaction.
func (tx *txn) matchAgain(p *store.Publication, version int64) error {
	if p.Match == nil {
		return refuse(store.ErrStale)
	}
	set := store.EndpointSet{Version: version}
	err := tx.rows(endpointsOfSet, []any{p.Tenant}, func(r scanner) error {
		e, err := scanEndpoint(r)
		set.Endpoints = append(set.Endpoints, e)
		return err
	})
	if err != nil {
		return err
	}
	if err := p.Match(set); err != nil {
		return refuse(err)
	}
	for i := range p.Events {
		if len(p.Events[i].Targets) >= posthorn.MaxSequence {
			return refuse(store.ErrTooMany)
		}
	}
	return nil
}

// findRepeated looks up the events that have ids of the publisher's choice,
// before anything is written. first[i] is the place of an earlier event in the
// publication with the same id, or -1.
func (tx *txn) findRepeated(p *store.Publication) (accepted []store.Accepted, first []int, err error) {
	accepted = make([]store.Accepted, len(p.Events))
	first = make([]int, len(p.Events))
	seen := make(map[string]int)
	for i := range p.Events {
		e := &p.Events[i]
		first[i] = -1
		if e.Key == "" {
			continue
		}
		if j, ok := seen[e.Key]; ok {
			if p.Events[j].Hash != e.Hash {
				return nil, nil, refuse(&store.EventConflict{Index: i})
			}
			if accepted[i] = accepted[j]; !accepted[j].Repeated {
				accepted[i].Repeated, first[i] = true, j
			}
			continue
		}
		seen[e.Key] = i
		id, hash, err := tx.eventByKey(p.Tenant, e.Key)
		if err != nil {
			return nil, nil, err
		}
		if id == 0 {
			continue
		}
		if !bytes.Equal(hash, e.Hash[:]) {
			return nil, nil, refuse(&store.EventConflict{Index: i})
		}
		var occurred int64
		accepted[i] = store.Accepted{ID: id, Repeated: true}
		if _, err := tx.row(`SELECT occurred_at, deliveries FROM events WHERE id = ?`, []any{int64(id)},
			&occurred, &accepted[i].Deliveries); err != nil {
			return nil, nil, err
		}
		accepted[i].OccurredAt = fromNanos(occurred)
	}
	return accepted, first, nil
}

func (tx *txn) publishEvent(p *store.Publication, e *store.NewEvent) (store.Accepted, error) {
	id, err := tx.allocate(p.At, 1+len(e.Targets))
	if err != nil {
		return store.Accepted{}, err
	}
	if err := tx.noteLead(id, p.At); err != nil {
		return store.Accepted{}, err
	}
	if e.Key == "" {
		posthorn.FillRef(e.Body, id)
	} else if err := tx.exec(`INSERT INTO idempotency (tenant, kind, key, hash, event, answer, expires) VALUES (?, 1, ?, ?, ?, NULL, 0)`,
		p.Tenant, e.Key, e.Hash[:], int64(id)); err != nil {
		return store.Accepted{}, err
	}
	if err := tx.exec(`INSERT INTO events (id, tenant, key, type, kind, occurred_at, accepted_at, deliver_at, deliveries, size, source, subject, source_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		int64(id), p.Tenant, e.Key, e.Type, int64(e.Kind), nanos(e.OccurredAt), nanos(p.At), nanos(e.DeliverAt),
		len(e.Targets), len(e.Body), e.Source, e.Subject, e.SourceID); err != nil {
		return store.Accepted{}, err
	}
	tx.post(eventsOf(p.Tenant), int64(id))
	if err := tx.exec(`INSERT INTO payloads (event, body) VALUES (?, ?)`, int64(id), e.Body); err != nil {
		return store.Accepted{}, err
	}
	if notes := store.Notes(e.Targets); notes != "" {
		if err := tx.exec(`INSERT INTO event_notes (event, notes) VALUES (?, ?)`, int64(id), notes); err != nil {
			return store.Accepted{}, err
		}
	}
	tx.keep(p.Tenant, id, store.Weight(len(e.Body), len(e.Targets)))
	open, err := tx.insertDeliveries(p, e, id)
	return store.Accepted{ID: id, OccurredAt: e.OccurredAt, Deliveries: len(e.Targets), Open: open}, err
}

// insertDeliveries stores the event's deliveries, as many open ones as the
// tenant's backlog has room for.
func (tx *txn) insertDeliveries(p *store.Publication, e *store.NewEvent, event posthorn.ID) (open int, err error) {
	open = len(e.Targets)
	if p.BacklogLimit > 0 {
		open = min(open, max(0, p.BacklogLimit-(tx.w.open.tenant(p.Tenant)+tx.opened[p.Tenant])))
	}
	later := e.DeliverAt.After(p.At)
	for i, t := range e.Targets {
		state, at, next, reason, counted := posthorn.Pending, owned, nanos(p.At)+ownedOffset, posthorn.ReasonNone, int64(0)
		switch {
		case i >= open:
			state, at, next, reason = posthorn.Expired, nowhere, 0, posthorn.ReasonBacklogFull
			counted = tx.hours.Move(t.Endpoint, e.Kind, posthorn.Progress{}, posthorn.Progress{State: state}, 0, p.At)
		case later:
			at, next = waiting, nanos(e.DeliverAt)
		case t.Parked:
			at, next = parked, nanos(p.At)
		}
		id := int64(event) + 1 + int64(i)
		byHand := at != nowhere && e.Kind == posthorn.EventTest
		if err := tx.exec(`INSERT INTO deliveries (id, event, tenant, endpoint, state, place, next_at, manual, reason, counted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id, int64(event), p.Tenant, t.Endpoint, int64(state), int64(at), next, byHand, string(reason), counted); err != nil {
			return 0, err
		}
		tx.post(deliveriesOf(t.Endpoint), id)
		tx.move(p.Tenant, t.Endpoint, nowhere, at)
	}
	return open, nil
}
