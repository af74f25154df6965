package sqlite

import (
	"context"
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// pending is a walk over the open deliveries that a filter selects. What moves from one
// place to another meanwhile may be met twice; it is one of ids once.
type pending struct {
	f     *store.CancelFilter
	limit int
	ids   []posthorn.ID

	parked int64 // looked at up to this one
	due    []any // the same, of the index by times; nil at its beginning
}

const noLimit = int(^uint(0) >> 1)

// pendingOf finds the open deliveries that the filter selects, about limit.
func (s *Store) pendingOf(ctx context.Context, f *store.CancelFilter, limit int) ([]posthorn.ID, error) {
	end, err := s.walks.Begin(ctx, f.Tenant)
	if err != nil {
		return nil, err
	}
	defer end()
	p := &pending{f: f, limit: limit}
	for _, slice := range []func(context.Context, querier) (more bool, err error){p.sliceParked, p.sliceDue} {
		for more := true; more && !p.full(); {
			err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) error {
				return s.snapshot(ctx, func(q querier) (err error) {
					more, err = slice(ctx, q)
					return err
				})
			})
			if err != nil {
				return nil, err
			}
		}
	}
	p.sort()
	return p.ids, nil
}

func (p *pending) sort() {
	slices.Sort(p.ids)
	p.ids = slices.Compact(p.ids)
}

func (p *pending) full() bool {
	if len(p.ids) >= p.limit {
		p.sort()
	}
	return len(p.ids) >= p.limit
}

// selected finds what of the rows the filter wants.
func (p *pending) selected(ctx context.Context, q querier, query string, args ...any) (read int, last int64, err error) {
	err = fill(ctx, q, query, args, func(r scanner) error {
		var accepted int64
		var eventType string
		if err := r.Scan(&last, &eventType, &accepted); err != nil {
			return err
		}
		if read++; p.f.Wants(eventType, fromNanos(accepted)) {
			p.ids = append(p.ids, posthorn.ID(last))
		}
		return nil
	})
	return read, last, err
}

func (p *pending) sliceParked(ctx context.Context, q querier) (more bool, err error) {
	var read int
	read, p.parked, err = p.selected(ctx, q, `SELECT d.id, e.type, e.accepted_at
		FROM deliveries d INDEXED BY deliveries_parked CROSS JOIN events e ON e.id = d.event
		WHERE d.place = 3 AND d.endpoint = ? AND d.tenant = ? AND d.id > ? ORDER BY d.id LIMIT ?`, p.f.Endpoint, p.f.Tenant, p.parked, store.WalkSlice)
	return read == store.WalkSlice, err
}

// dueSlice is how many entries of the index by times are looked at together: it holds
// those of all endpoints, and little is read for an entry of another.
const dueSlice = store.WalkSlice

func (p *pending) sliceDue(ctx context.Context, q querier) (more bool, err error) {
	from, args := "", p.due
	if p.due != nil {
		from = ` AND (d.next_at, d.endpoint, d.id) > (?, ?, ?)`
	}
	var at, endpoint, id int64
	err = fill(ctx, q, `SELECT d.next_at, d.endpoint, d.id FROM deliveries d INDEXED BY deliveries_due WHERE d.place IN (1, 2)`+from+`
		ORDER BY d.next_at, d.endpoint, d.id LIMIT 1 OFFSET ?`, slices.Concat(args, []any{dueSlice - 1}), func(r scanner) error {
		more = true
		return r.Scan(&at, &endpoint, &id)
	})
	if err != nil {
		return false, err
	}
	query := `SELECT d.id, e.type, e.accepted_at FROM deliveries d INDEXED BY deliveries_due CROSS JOIN events e ON e.id = d.event
		WHERE d.place IN (1, 2)` + from
	if more {
		p.due = []any{at, endpoint, id}
		query, args = query+` AND (d.next_at, d.endpoint, d.id) <= (?, ?, ?)`, slices.Concat(args, p.due)
	}
	_, _, err = p.selected(ctx, q, query+` AND d.endpoint = ? AND d.tenant = ?`, slices.Concat(args, []any{p.f.Endpoint, p.f.Tenant})...)
	return more, err
}
