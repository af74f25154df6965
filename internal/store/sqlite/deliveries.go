package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	deliveryColumns = `d.id, d.event, e.key, e.type, d.tenant, d.endpoint, e.accepted_at,
		d.state, d.place, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.reason, d.log, (SELECT notes FROM event_notes n WHERE n.event = d.event),
		coalesce(p.ref, ''), coalesce(p.status, 'active') <> 'active', coalesce(p.deleted_at, 1) <> 0, coalesce(t.suspended_at, 0) <> 0, coalesce(t.deleted_at, 1) <> 0`
	withOwners = ` LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = d.tenant `
)

// scanDelivery reads a delivery as users see it.
func scanDelivery(r scanner) (d posthorn.Delivery, err error) {
	d, log, err := scanDeliveryRow(r)
	if err == nil {
		d.Attempts, err = store.Attempts(log)
	}
	return d, err
}

// scanDeliveryRow leaves the attempts as they are stored.
func scanDeliveryRow(r scanner) (d posthorn.Delivery, log []byte, err error) {
	var key string
	var accepted, next int64
	var at place
	var notes sql.NullString
	var o store.Owners
	p := &d.Progress
	err = r.Scan((*int64)(&d.ID), (*int64)(&d.Event), &key, &d.Type, &d.Tenant, &d.Endpoint, &accepted,
		&p.State, &at, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &d.Reason, &log, &notes,
		&d.EndpointRef, &o.Paused, &o.Deleted, &o.Suspended, &o.TenantDeleted)
	if err != nil {
		return d, nil, err
	}
	ref := posthorn.Event{ID: d.Event, Key: key}
	d.EventRef, d.CreatedAt = ref.Ref(), fromNanos(accepted)
	p.NextAt = nextAt(at, next)
	o.Show(&d)
	d.Note, err = store.NoteFor(notes.String, d.Endpoint)
	return d, log, err
}

// Deliveries implements [store.Log].
func (s *Store) Deliveries(ctx context.Context, f store.DeliveryFilter, p store.Page) ([]posthorn.Delivery, posthorn.ID, error) {
	from, to, err := s.bounds(ctx, f.Since, f.Until, p.Before)
	if err != nil {
		return nil, 0, err
	}
	var l store.List[posthorn.Delivery]
	w := s.deliveryWalk(&f, from, to)
	err = s.snapshot(ctx, func(q querier) (err error) {
		if l, err = w.deliveries(ctx, q, &f, &p); err != nil {
			return err
		}
		if f.Tenant == 0 && f.Event == 0 && f.Endpoint == 0 {
			return nil // the walk met the late ones too
		}
		w := walk{query: lateWalk, args: []any{f.Tenant, int64(f.Event), f.Endpoint, from, below(int64(p.Before)), store.PageRows + 1}}
		late, err := w.deliveries(ctx, q, &f, &p)
		l = store.Merge(l, late)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list deliveries: %w", err)
	}
	return l.Items, l.Next, nil
}

// lateWalk finds deliveries that were made after their event: their ids stand
// apart from it, so no time of acceptance bounds them from above.
const lateWalk = `SELECT ` + deliveryColumns + ` FROM deliveries d INDEXED BY deliveries_late CROSS JOIN events e ON e.id = d.event` + withOwners + `
	WHERE d.late = 1 AND d.id >= ?4 AND d.id < ?5 AND ?2 IN (0, d.event) AND ?3 IN (0, d.endpoint)
	AND d.tenant = coalesce(nullif(?1, 0), (SELECT tenant FROM events WHERE id = ?2), (SELECT tenant FROM endpoints WHERE id = ?3))
	ORDER BY d.id DESC LIMIT ?6`

// deliveryWalk is the query that meets the filter's deliveries, newest first,
// by the narrowest way there is: a tenant's list walks its events and the ids
// behind each. The + keeps SQLite from taking the page's bound for the end of
// that range, and from reading all that lies between.
func (s *Store) deliveryWalk(f *store.DeliveryFilter, from, to int64) walk {
	switch {
	case f.Event != 0:
		return walk{query: `SELECT ` + deliveryColumns + ` FROM events e CROSS JOIN deliveries d ON d.id > e.id AND d.id <= e.id + e.deliveries` + withOwners + `
			WHERE e.id = ? AND +d.id >= ? AND +d.id < ? ORDER BY d.id DESC LIMIT ?`,
			args: []any{int64(f.Event), from, to, store.PageRows + 1}}
	case f.Endpoint != 0:
		return walk{query: `SELECT ` + deliveryColumns + ` FROM deliveries d CROSS JOIN events e ON e.id = d.event` + withOwners + `
			WHERE d.id IN ` + listed + ` AND d.late = 0 ORDER BY d.id DESC LIMIT ?2`,
			args: []any{store.PageRows + 1}, of: s.listing(deliveriesOf(f.Endpoint)), from: from, to: to}
	case f.Tenant != 0:
		return walk{query: `SELECT ` + deliveryColumns + ` FROM events e CROSS JOIN deliveries d ON d.id > e.id AND d.id <= e.id + e.deliveries` + withOwners + `
			WHERE e.id IN ` + listed + ` AND +d.id < ?2 ORDER BY e.id DESC, d.id DESC LIMIT ?3`,
			args: []any{to, store.PageRows + 1}, of: s.listing(eventsOf(f.Tenant)), from: from, to: to}
	}
	return walk{query: `SELECT ` + deliveryColumns + ` FROM deliveries d CROSS JOIN events e ON e.id = d.event` + withOwners + `
		WHERE d.id >= ? AND d.id < ? ORDER BY d.id DESC LIMIT ?`, args: []any{from, to, store.PageRows + 1}}
}

func (w *walk) deliveries(ctx context.Context, q querier, f *store.DeliveryFilter, p *store.Page) (store.List[posthorn.Delivery], error) {
	l := store.List[posthorn.Delivery]{Limit: p.Limit, Weight: p.Weight}
	left, err := w.run(ctx, q, func(r scanner) error {
		d, log, err := scanDeliveryRow(r)
		if err != nil {
			return err
		}
		// Of 2,000 rows that are read few may be shown.
		keep := f.Selects(&d)
		if keep {
			if d.Attempts, err = store.AttemptsCut(log, p.Snippet); err != nil {
				return err
			}
		}
		return l.Row(d.ID, d, keep)
	})
	l.Next = cmp.Or(left, l.Next)
	return l, pageEnd(err)
}

// DeliveryByID implements [store.Log].
func (s *Store) DeliveryByID(ctx context.Context, tenant int64, id posthorn.ID) (posthorn.Delivery, error) {
	return one(ctx, s, scanDelivery, `SELECT `+deliveryColumns+` FROM deliveries d CROSS JOIN events e ON e.id = d.event`+withOwners+`
		WHERE d.id = ? AND d.tenant = ?`, int64(id), tenant)
}

// FormerEndpoint implements [store.Log].
func (s *Store) FormerEndpoint(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error) {
	return one(ctx, s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoints WHERE ref = ? AND tenant = ?`, ref, tenant)
}
