package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Of an open delivery and of a finished one the same columns are read, so that
// one list holds both.
const (
	openColumns = `d.id, d.event, d.tenant, d.endpoint, 0 AS state, d.next_at,
		d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.reason, d.log, true AS open`
	doneColumns = `d.id, d.event, d.tenant, d.endpoint, d.state, 0, d.tries, d.attempts, d.waits, d.round, false, 0, false, d.reason, d.log, false`

	deliveryColumns = `d.id, d.event, e.key, e.type, d.tenant, d.endpoint, e.accepted_at,
		d.state, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.reason, d.log, d.open, coalesce((SELECT notes FROM event_notes n WHERE n.event = d.event), ''),
		coalesce(p.ref, ''), coalesce(p.status, 'active') <> 'active', coalesce(p.deleted_at, 1) <> 0, coalesce(t.suspended_at, 0) <> 0, coalesce(t.deleted_at, 1) <> 0`
	withOwners = ` LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = d.tenant `
)

// scanDelivery reads a delivery as users see it, and its attempts as they are
// stored.
func scanDelivery(r scanner, more ...any) (d posthorn.Delivery, log []byte, err error) {
	var key string
	var accepted, next int64
	var open bool
	var notes string
	var o store.Owners
	p := &d.Progress
	err = r.Scan(append([]any{(*int64)(&d.ID), (*int64)(&d.Event), &key, &d.Type, &d.Tenant, &d.Endpoint, &accepted,
		&p.State, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &d.Reason, &log, &open, &notes,
		&d.EndpointRef, &o.Paused, &o.Deleted, &o.Suspended, &o.TenantDeleted}, more...)...)
	if err != nil {
		return d, nil, err
	}
	ref := posthorn.Event{ID: d.Event, Key: key}
	d.EventRef, d.CreatedAt = ref.Ref(), fromNanos(accepted)
	p.NextAt = fromNanos(next)
	o.Show(&d)
	d.Note, err = store.NoteFor(notes, d.Endpoint)
	return d, log, err
}

// Deliveries implements [store.Log]. One statement walks open and finished ones
// side by side, so that none is missed that finishes meanwhile, and the late ones
// apart; each walk is bounded, and the page ends where the first of them stopped.
func (s *Store) Deliveries(ctx context.Context, f store.DeliveryFilter, p store.Page) ([]posthorn.Delivery, posthorn.ID, error) {
	from, to, err := s.bounds(ctx, f.Since, f.Until, p.Before)
	if err != nil {
		return nil, 0, err
	}
	more := false
	if f.Tenant != 0 && f.Event == 0 && f.Endpoint == 0 {
		if from, more, err = s.lowestEvent(ctx, f.Tenant, from, to); err != nil {
			return nil, 0, err
		}
	}
	rows := f.Rows(p.Limit)
	query, args, n := deliveriesQuery(&f, from, to, p.Before, rows+1)
	lists := make([]store.List[posthorn.Delivery], n)
	for i := range lists {
		lists[i].Limit, lists[i].Rows, lists[i].Weight = p.Limit, rows, p.Weight
	}
	full := make([]bool, len(lists))
	err = s.fill(ctx, query, args, func(r scanner) error {
		var walk int
		d, log, err := scanDelivery(r, &walk)
		if err != nil || full[walk] {
			return err
		}
		keep := f.Selects(&d) // of 2,000 rows that are read few may be shown
		if keep {
			if d.Attempts, err = store.AttemptsCut(log, p.Snippet); err != nil {
				return err
			}
		}
		if err = lists[walk].Row(d.ID, d, keep); errors.Is(err, store.ErrPageFull) {
			full[walk], err = true, nil
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list deliveries: %w", err)
	}
	l := lists[0]
	for _, other := range lists[1:] {
		l = store.Merge(l, other)
	}
	if more && l.Next == 0 {
		l.Next = posthorn.ID(from)
	}
	return l.Items, l.Next, nil
}

// pageEvents bounds the events that one page of a tenant's list reads. What is open
// is rare among them, so the rows alone would bound nothing.
const pageEvents = 500

// lowestEvent is where such a page ends, or from if it reads all there is. What is
// published meanwhile is above it.
func (s *Store) lowestEvent(ctx context.Context, tenant, from, to int64) (lowest int64, more bool, err error) {
	err = s.reader(ctx).QueryRow(ctx, `SELECT coalesce(min(id), 0), count(*) = $4 FROM (SELECT id FROM events WHERE tenant = $1 AND id >= $2 AND id < $3 ORDER BY id DESC LIMIT $4) e`,
		tenant, from, to, pageEvents).Scan(&lowest, &more)
	if err != nil {
		return 0, false, s.readError(ctx, err)
	}
	if !more {
		lowest = from
	}
	return lowest, more, nil
}

// deliveriesQuery is the one statement of a list, and of how many walks it is made,
// of so many rows each.
func deliveriesQuery(f *store.DeliveryFilter, from, to int64, before posthorn.ID, rows int) (query string, args []any, walks int) {
	where, args := deliveryWalk(f, from, to, rows)
	wheres := []string{where}
	if f.Tenant+f.Endpoint+int64(f.Event) != 0 {
		// No time of acceptance bounds them from above.
		n := len(args)
		wheres = append(wheres, fmt.Sprintf(lateWalk, n+1, n+2, n+3, n+4, n+5, n+6))
		args = append(args, f.Tenant, int64(f.Event), f.Endpoint, from, below(int64(before)), rows)
	}
	for _, where := range wheres {
		for _, table := range []struct{ name, columns string }{{"due", openColumns}, {"deliveries", doneColumns}} {
			if query != "" {
				query += " UNION ALL "
			}
			query += fmt.Sprintf(`(SELECT %s, %d AS walk FROM %s)`, table.columns, walks, strings.Replace(where, "%s", table.name, 1))
			walks++
		}
	}
	return `SELECT ` + deliveryColumns + `, d.walk FROM (` + query + `) d
		JOIN LATERAL (SELECT key, type, accepted_at FROM events WHERE id = d.event OFFSET 0) e ON true` + withOwners + ` ORDER BY d.id DESC`, args, walks
}

// lateWalk finds deliveries that were made after their event: their ids stand
// apart from it. Its parameters are those of [Store.Deliveries].
const lateWalk = `%%s d WHERE d.late AND d.tenant = coalesce(nullif($%[1]d, 0), (SELECT tenant FROM events WHERE id = $%[2]d), (SELECT tenant FROM endpoints WHERE id = $%[3]d))
	AND ($%[2]d = 0 OR d.event = $%[2]d) AND ($%[3]d = 0 OR d.endpoint = $%[3]d) AND d.id >= $%[4]d AND d.id < $%[5]d ORDER BY d.id DESC LIMIT $%[6]d`

// deliveryWalk is the part of a query that meets the filter's deliveries in a
// table, newest first, by the narrowest index there is. There is none by tenant:
// a tenant's list walks its events and the ids behind each.
func deliveryWalk(f *store.DeliveryFilter, from, to int64, rows int) (where string, args []any) {
	switch {
	case f.Event != 0:
		return `events e CROSS JOIN LATERAL (SELECT * FROM %s x WHERE x.id > e.id AND x.id <= e.id + e.deliveries AND x.id >= $2 AND x.id < $3 OFFSET 0) d
			WHERE e.id = $1 ORDER BY d.id DESC LIMIT $4`,
			[]any{int64(f.Event), from, to, rows}
	case f.Endpoint != 0:
		return `%s d WHERE d.endpoint = $1 AND NOT d.late AND d.id >= $2 AND d.id < $3 ORDER BY d.id DESC LIMIT $4`, []any{f.Endpoint, from, to, rows}
	case f.Tenant != 0:
		return `(SELECT id, deliveries FROM events WHERE tenant = $1 AND id >= $2 AND id < $3 OFFSET 0) e
			CROSS JOIN LATERAL (SELECT * FROM %s x WHERE x.id > e.id AND x.id <= e.id + e.deliveries AND x.id < $3 OFFSET 0) d ORDER BY d.id DESC LIMIT $4`,
			[]any{f.Tenant, from, to, rows}
	}
	return `%s d WHERE d.id >= $1 AND d.id < $2 ORDER BY d.id DESC LIMIT $3`, []any{from, to, rows}
}

// DeliveryByID implements [store.Log].
func (s *Store) DeliveryByID(ctx context.Context, tenant int64, id posthorn.ID) (posthorn.Delivery, error) {
	return one(ctx, s, func(r scanner) (posthorn.Delivery, error) {
		d, log, err := scanDelivery(r)
		if err == nil {
			d.Attempts, err = store.Attempts(log)
		}
		return d, err
	}, `SELECT `+deliveryColumns+` FROM (
		SELECT `+openColumns+` FROM due d WHERE d.id = $1 AND d.tenant = $2 UNION ALL SELECT `+doneColumns+` FROM deliveries d WHERE d.id = $1 AND d.tenant = $2
		) d JOIN events e ON e.id = d.event`+withOwners, int64(id), tenant)
}

// FormerEndpoint implements [store.Log].
func (s *Store) FormerEndpoint(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error) {
	return one(ctx, s, scanEndpoint, `SELECT `+endpointColumns+` FROM endpoints WHERE ref = $1 AND tenant = $2`, ref, tenant)
}
