package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const eventColumns = `e.id, e.tenant, e.key, e.type, e.kind, e.occurred_at, e.accepted_at, e.deliver_at, e.deliveries, e.erased_at, e.source, e.subject, e.source_id`

func scanEvent(r scanner) (e posthorn.Event, err error) {
	return e, scanEventInto(r, &e)
}

func scanEventInto(r scanner, e *posthorn.Event, more ...any) error {
	var occurred, accepted, deliver, erased int64
	err := r.Scan(append([]any{(*int64)(&e.ID), &e.Tenant, &e.Key, &e.Type, &e.Kind, &occurred, &accepted, &deliver,
		&e.Deliveries, &erased, &e.Source, &e.Subject, &e.SourceID}, more...)...)
	e.OccurredAt, e.AcceptedAt, e.DeliverAt, e.ErasedAt = fromNanos(occurred), fromNanos(accepted), fromNanos(deliver), fromNanos(erased)
	return err
}

// fill runs a query and gives its rows to scan until it returns an error, which comes
// back; see [pageEnd].
func fill(ctx context.Context, q querier, query string, args []any, scan func(scanner) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return readError(ctx, err)
	}
	if err = eachRow(rows, scan); err != nil && err != store.ErrPageFull {
		err = readError(ctx, err)
	}
	return err
}

// pageEnd takes the end of a page for no error.
func pageEnd(err error) error {
	if err == store.ErrPageFull {
		return nil
	}
	return err
}

// bounds turns times of acceptance into bounds of ids: from <= id < to. An id
// is never older than its event's acceptance, and at most lead ahead of it.
func (s *Store) bounds(ctx context.Context, since, until time.Time, before posthorn.ID) (from, to int64, err error) {
	to = below(int64(before))
	if !since.IsZero() {
		from = int64(posthorn.MakeID(since, 0, 0))
	}
	if !until.IsZero() {
		var lead int64
		err = s.reader(ctx).QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'lead'`).Scan(&lead)
		if errors.Is(err, sql.ErrNoRows) {
			lead, err = int64(minLead), nil
		}
		if err != nil {
			return 0, 0, readError(ctx, err)
		}
		to = min(to, int64(posthorn.MakeID(until.Add(time.Duration(lead)+time.Millisecond), 0, 0)))
	}
	return from, to, nil
}

// Events implements [store.Log].
func (s *Store) Events(ctx context.Context, f store.EventFilter, p store.Page) ([]posthorn.Event, posthorn.ID, error) {
	from, to, err := s.bounds(ctx, f.Since, f.Until, p.Before)
	if err != nil {
		return nil, 0, err
	}
	w := s.eventWalk(f.Tenant, from, to)
	l := store.List[posthorn.Event]{Limit: p.Limit}
	err = s.snapshot(ctx, func(q querier) error {
		left, err := w.run(ctx, q, func(r scanner) error {
			e, err := scanEvent(r)
			if err != nil {
				return err
			}
			e.Erasing = s.writer.emptying.of(e.ErasedAt)
			return l.Row(e.ID, e, f.Selects(&e))
		})
		l.Next = cmp.Or(left, l.Next)
		return pageEnd(err)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list events: %w", err)
	}
	return l.Items, l.Next, nil
}

func (s *Store) eventWalk(tenant, from, to int64) walk {
	if tenant == 0 {
		return walk{query: `SELECT ` + eventColumns + ` FROM events e WHERE e.id >= ? AND e.id < ? ORDER BY e.id DESC LIMIT ?`,
			args: []any{from, to, store.PageRows + 1}}
	}
	return walk{query: `SELECT ` + eventColumns + ` FROM events e WHERE e.id IN ` + listed + ` ORDER BY e.id DESC LIMIT ?2`,
		args: []any{store.PageRows + 1}, of: s.listing(eventsOf(tenant)), from: from, to: to}
}

// EventByRef implements [store.Log].
func (s *Store) EventByRef(ctx context.Context, tenant int64, ref string) (posthorn.Event, error) {
	id, generated := posthorn.ParseID(posthorn.EventPrefix, ref)
	if !generated {
		found, err := one(ctx, s, scanInt, `SELECT event FROM idempotency WHERE tenant = ? AND kind = 1 AND key = ?`, tenant, ref)
		if err != nil {
			return posthorn.Event{}, err
		}
		id = posthorn.ID(found)
	}
	e, err := one(ctx, s, func(r scanner) (e posthorn.Event, err error) {
		return e, scanEventInto(r, &e, &e.Body)
	}, `SELECT `+eventColumns+`, p.body FROM events e LEFT JOIN payloads p ON p.event = e.id WHERE e.id = ? AND e.tenant = ?`, int64(id), tenant)
	if blank(e.Body) {
		e.Body = nil
	}
	e.Erasing = s.writer.emptying.of(e.ErasedAt)
	if err == nil && generated && e.Key != "" {
		return posthorn.Event{}, store.ErrNotFound // it has another ref
	}
	return e, err
}
