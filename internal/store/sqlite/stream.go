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

// streamWalk meets a tenant's events in order, with whether each has a delivery
// of an endpoint.
const streamWalk = `SELECT ` + eventColumns + `, e.size, EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_endpoint
	WHERE d.endpoint = ?2 AND d.id > e.id AND d.id <= e.id + e.deliveries)
	FROM events e INDEXED BY events_tenant WHERE e.tenant = ?1 AND e.id > ?3 ORDER BY e.id LIMIT ?4`

// Stream implements [store.Streamer].
func (s *Store) Stream(ctx context.Context, f store.StreamFilter, after store.StreamPlace) (page store.StreamPage, err error) {
	page.Next = after
	err = s.snapshot(ctx, func(q querier) error {
		rows, err := all(ctx, q, func(r scanner) (row store.StreamRow, err error) {
			err = scanEventInto(r, &row.Event, &row.Size, &row.Matched)
			row.Place.ID = row.Event.ID
			return row, err
		}, streamWalk, f.Tenant, f.Endpoint, int64(after.ID), store.StreamRows+1)
		if err != nil {
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
