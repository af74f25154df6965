package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// StreamEnd implements [store.Streamer]. Ids grow in the order of commits.
func (s *Store) StreamEnd(ctx context.Context) (p store.StreamPlace, err error) {
	if err := s.readers.QueryRowContext(ctx, `SELECT coalesce((SELECT max(id) FROM events), 0)`).Scan((*int64)(&p.ID)); err != nil {
		return p, readError(ctx, err)
	}
	return p, nil
}

const streamWalk = `SELECT ` + eventColumns + `, e.size FROM events e WHERE e.id IN ` + listed + ` ORDER BY e.id LIMIT ?2`

// Stream implements [store.Streamer].
func (s *Store) Stream(ctx context.Context, f store.StreamFilter, after store.StreamPlace) (page store.StreamPage, err error) {
	page.Next = after
	events, deliveries := s.listing(eventsOf(f.Tenant)), s.listing(deliveriesOf(f.Endpoint))
	err = s.snapshot(ctx, func(q querier) error {
		rows, err := events.stream(ctx, q, int64(after.ID))
		if err != nil {
			return err
		}
		if err := deliveries.match(ctx, q, rows); err != nil {
			return err
		}
		bodies := make(map[posthorn.ID][]byte)
		for _, id := range page.Choose(&f, rows) {
			var body []byte
			switch err := q.QueryRowContext(ctx, selectPayload, int64(id)).Scan(&body); {
			case err == nil:
				bodies[id] = body
			case !errors.Is(err, sql.ErrNoRows):
				return readError(ctx, err)
			}
		}
		page.Fill(bodies)
		return nil
	})
	if err != nil {
		return store.StreamPage{}, fmt.Errorf("read the stream: %w", err)
	}
	return page, nil
}

// stream reads a page of a tenant's events in order, and one more.
func (l *listing) stream(ctx context.Context, q querier, after int64) (rows []store.StreamRow, err error) {
	err = l.oldest(ctx, q, after, below(0), func(ids []int64) error {
		return fill(ctx, q, streamWalk, []any{encodeIDs(ids), store.StreamRows + 1}, func(r scanner) error {
			var row store.StreamRow
			err := scanEventInto(r, &row.Event, &row.Size)
			if err != nil {
				return err
			}
			row.Place.ID = row.Event.ID
			if rows = append(rows, row); len(rows) > store.StreamRows {
				return store.ErrPageFull
			}
			return nil
		})
	})
	return rows, pageEnd(err)
}

// match finds out which of the events have a delivery in the list.
func (l *listing) match(ctx context.Context, q querier, rows []store.StreamRow) error {
	if len(rows) == 0 || l.list == 0 {
		return nil
	}
	last := rows[len(rows)-1].Event
	i := 0
	return l.oldest(ctx, q, int64(rows[0].Event.ID), int64(last.ID)+int64(last.Deliveries)+1, func(ids []int64) error {
		living, err := all(ctx, q, scanInt, selectLiving(l.list), encodeIDs(ids))
		for _, id := range living {
			for i < len(rows) && int64(rows[i].Event.ID)+int64(rows[i].Event.Deliveries) < id {
				i++
			}
			if i < len(rows) && int64(rows[i].Event.ID) < id {
				rows[i].Matched = true
			}
		}
		return err
	})
}
