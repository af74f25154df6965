package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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

// fill runs a query and gives its rows to scan until the page is full.
func (s *Store) fill(ctx context.Context, query string, args []any, scan func(scanner) error) error {
	rows, err := s.reader(ctx).Query(ctx, query, args...)
	if err != nil {
		return s.readError(ctx, err)
	}
	if err := eachRow(rows, scan); err != nil && err != store.ErrPageFull {
		return s.readError(ctx, err)
	}
	return nil
}

// minLead is how far an id may be ahead of its event's acceptance before that
// is written down (meta.lead), because lists turn times into bounds of ids.
const minLead = time.Minute

// bounds turns times of acceptance into bounds of ids: from <= id < to. An id
// is never older than its event's acceptance, and at most lead ahead of it.
func (s *Store) bounds(ctx context.Context, since, until time.Time, before posthorn.ID) (from, to int64, err error) {
	to = below(int64(before))
	if !since.IsZero() {
		from = int64(posthorn.MakeID(since, 0, 0))
	}
	if !until.IsZero() {
		var lead int64
		err = s.reader(ctx).QueryRow(ctx, `SELECT value FROM meta WHERE key = 'lead'`).Scan(&lead)
		if errors.Is(err, pgx.ErrNoRows) {
			lead, err = int64(minLead), nil
		}
		if err != nil {
			return 0, 0, s.readError(ctx, err)
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
	query, args := `SELECT `+eventColumns+` FROM events e WHERE e.id >= $1 AND e.id < $2 ORDER BY e.id DESC LIMIT $3`, []any{from, to, store.PageRows + 1}
	if f.Tenant != 0 {
		query = `SELECT ` + eventColumns + ` FROM events e WHERE e.tenant = $1 AND e.id >= $2 AND e.id < $3 ORDER BY e.id DESC LIMIT $4`
		args = slices.Insert(args, 0, any(f.Tenant))
	}
	l := store.List[posthorn.Event]{Limit: p.Limit}
	err = s.fill(ctx, query, args, func(r scanner) error {
		e, err := scanEvent(r)
		if err != nil {
			return err
		}
		return l.Row(e.ID, e, f.Selects(&e))
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list events: %w", err)
	}
	return l.Items, l.Next, nil
}

// EventByRef implements [store.Log].
func (s *Store) EventByRef(ctx context.Context, tenant int64, ref string) (posthorn.Event, error) {
	id, generated := posthorn.ParseID(posthorn.EventPrefix, ref)
	if !generated {
		found, err := one(ctx, s, func(r scanner) (id int64, err error) { return id, r.Scan(&id) },
			`SELECT event FROM idempotency WHERE tenant = $1 AND kind = 1 AND key = $2`, tenant, ref)
		if err != nil {
			return posthorn.Event{}, err
		}
		id = posthorn.ID(found)
	}
	e, err := one(ctx, s, func(r scanner) (e posthorn.Event, err error) {
		return e, scanEventInto(r, &e, &e.Body)
	}, `SELECT `+eventColumns+`, e.body FROM events e WHERE e.id = $1 AND e.tenant = $2`, int64(id), tenant)
	if err == nil && generated && e.Key != "" {
		return posthorn.Event{}, store.ErrNotFound // it has another ref
	}
	return e, err
}
