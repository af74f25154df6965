package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Of an open delivery and of a finished one the same columns are read, so that
// one list holds both.
const (
	openColumns = `d.id, d.event, d.tenant, d.endpoint, 0 AS state, d.next_at,
		d.tries, d.attempts, d.waits, d.round, d.extra, d.before, '' AS reason, d.log, true AS open`
	doneColumns = `d.id, d.event, d.tenant, d.endpoint, d.state, 0, d.tries, d.attempts, d.waits, d.round, false, 0, d.reason, d.log, false`

	deliveryColumns = `d.id, d.event, e.key, e.type, d.tenant, d.endpoint, e.accepted_at,
		d.state, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.reason, d.log, d.open, coalesce((SELECT notes FROM event_notes n WHERE n.event = d.event), ''),
		coalesce(p.ref, ''), coalesce(p.status, '') = 'paused', coalesce(p.deleted_at, 1) <> 0, coalesce(t.suspended_at, 0) <> 0, coalesce(t.deleted_at, 1) <> 0`
	withOwners = ` LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = d.tenant `
)

// scanDelivery reads a delivery as users see it.
func scanDelivery(r scanner) (d posthorn.Delivery, open bool, err error) {
	var key string
	var accepted, next int64
	var log []byte
	var notes string
	var o store.Owners
	p := &d.Progress
	err = r.Scan((*int64)(&d.ID), (*int64)(&d.Event), &key, &d.Type, &d.Tenant, &d.Endpoint, &accepted,
		&p.State, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &d.Reason, &log, &open, &notes,
		&d.EndpointRef, &o.Paused, &o.Deleted, &o.Suspended, &o.TenantDeleted)
	if err != nil {
		return d, open, err
	}
	ref := posthorn.Event{ID: d.Event, Key: key}
	d.EventRef, d.CreatedAt = ref.Ref(), fromNanos(accepted)
	p.NextAt = fromNanos(next)
	o.Show(&d)
	if d.Note, err = store.NoteFor(notes, d.Endpoint); err != nil {
		return d, open, err
	}
	d.Attempts, err = store.Attempts(log)
	return d, open, err
}

// Deliveries implements [store.Log]. One statement walks open and finished ones
// side by side, so that none is missed that finishes meanwhile; each walk is
// bounded, and the page ends where the first of them stopped.
func (s *Store) Deliveries(ctx context.Context, f store.DeliveryFilter, p store.Page) ([]posthorn.Delivery, posthorn.ID, error) {
	from, to, err := s.bounds(ctx, f.Since, f.Until, p.Before)
	if err != nil {
		return nil, 0, err
	}
	where, args := deliveryWalk(&f, from, to)
	query := `SELECT ` + deliveryColumns + ` FROM (
		(SELECT ` + openColumns + ` FROM ` + fmt.Sprintf(where, "due") + `) UNION ALL (SELECT ` + doneColumns + ` FROM ` + fmt.Sprintf(where, "deliveries") + `)
		) d JOIN events e ON e.id = d.event` + withOwners + ` ORDER BY d.id DESC`
	lists := map[bool]*store.List[posthorn.Delivery]{true: {Limit: p.Limit}, false: {Limit: p.Limit}}
	full := map[bool]bool{}
	err = s.fill(ctx, query, args, func(r scanner) error {
		d, open, err := scanDelivery(r)
		if err != nil || full[open] {
			return err
		}
		if err = lists[open].Row(d.ID, d, f.Selects(&d)); errors.Is(err, store.ErrPageFull) {
			full[open], err = true, nil
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list deliveries: %w", err)
	}
	l := store.Merge(*lists[true], *lists[false])
	return l.Items, l.Next, nil
}

// deliveryWalk is the part of a query that meets the filter's deliveries in a
// table, newest first, by the narrowest index there is. There is none by tenant:
// a tenant's list walks its events and the ids behind each.
func deliveryWalk(f *store.DeliveryFilter, from, to int64) (where string, args []any) {
	const rows = store.PageRows + 1
	switch {
	case f.Event != 0:
		return `%s d, events e WHERE e.id = $1 AND d.id > e.id AND d.id <= e.id + e.deliveries AND d.id >= $2 AND d.id < $3 ORDER BY d.id DESC LIMIT $4`,
			[]any{int64(f.Event), from, to, rows}
	case f.Endpoint != 0:
		return `%s d WHERE d.endpoint = $1 AND d.id >= $2 AND d.id < $3 ORDER BY d.id DESC LIMIT $4`, []any{f.Endpoint, from, to, rows}
	case f.Tenant != 0:
		return `events e JOIN %s d ON d.id > e.id AND d.id <= e.id + e.deliveries
			WHERE e.tenant = $1 AND e.id >= $2 AND e.id < $3 AND d.id >= $2 AND d.id < $3 ORDER BY e.id DESC, d.id DESC LIMIT $4`, []any{f.Tenant, from, to, rows}
	}
	return `%s d WHERE d.id >= $1 AND d.id < $2 ORDER BY d.id DESC LIMIT $3`, []any{from, to, rows}
}

// DeliveryByID implements [store.Log].
func (s *Store) DeliveryByID(ctx context.Context, tenant int64, id posthorn.ID) (posthorn.Delivery, error) {
	return one(ctx, s, func(r scanner) (posthorn.Delivery, error) {
		d, _, err := scanDelivery(r)
		return d, err
	}, `SELECT `+deliveryColumns+` FROM (
		SELECT `+openColumns+` FROM due d WHERE d.id = $1 AND d.tenant = $2 UNION ALL SELECT `+doneColumns+` FROM deliveries d WHERE d.id = $1 AND d.tenant = $2
		) d JOIN events e ON e.id = d.event`+withOwners, int64(id), tenant)
}
