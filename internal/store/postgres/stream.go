package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// The order of the stream is that of the transactions that stored the events
// (events.tx), and within one that of ids. Ids alone would not do: each node gives
// out its own, and one that commits late has lower ids than what others committed
// before it. A transaction that is older than every unfinished one (the snapshot's
// xmin) can be followed by none that is older still, so only such are shown.

// publishEnds is how long a publish may take until it has ended one way or the
// other. What is older is shown even if a transaction of somebody else, which has
// nothing to do with publishing, is still unfinished.
const publishEnds = 2 * time.Minute

const (
	snapshotXmin = `pg_snapshot_xmin(pg_current_snapshot())::text::bigint`
	snapshotXmax = `pg_snapshot_xmax(pg_current_snapshot())::text::bigint`
)

// StreamEnd implements [store.Streamer]. What begins later has a higher number than
// every transaction that there is.
func (s *Store) StreamEnd(ctx context.Context) (p store.StreamPlace, err error) {
	if err := s.other.QueryRow(ctx, `SELECT `+snapshotXmax+` - 1`).Scan(&p.Order); err != nil {
		return p, s.readError(ctx, err)
	}
	p.ID = math.MaxInt64
	return p, nil
}

// streamWalk meets a tenant's events in the order of the stream, with whether
// each has a delivery of an endpoint and whether it can be shown yet.
const streamWalk = `SELECT ` + eventColumns + `, e.size,
	$2 <> 0 AND (EXISTS (SELECT 1 FROM due d WHERE d.endpoint = $2 AND d.id > e.id AND d.id <= e.id + e.deliveries)
		OR EXISTS (SELECT 1 FROM deliveries d WHERE d.endpoint = $2 AND d.id > e.id AND d.id <= e.id + e.deliveries)),
	e.tx, e.tx < ` + snapshotXmin + ` OR e.accepted_at < $6
	FROM events e WHERE e.tenant = $1 AND (e.tx, e.id) > ($3, $4) ORDER BY e.tx, e.id LIMIT $5`

// Stream implements [store.Streamer].
func (s *Store) Stream(ctx context.Context, f store.StreamFilter, after store.StreamPlace) (page store.StreamPage, err error) {
	page.Next = after
	var rows []store.StreamRow
	if after, err = s.knownPlace(ctx, after); err == nil {
		args := []any{f.Tenant, f.Endpoint, after.Order, int64(after.ID), store.StreamRows + 1, nanos(s.now().Add(-publishEnds))}
		err = s.fill(ctx, streamWalk, args, func(r scanner) error {
			var row store.StreamRow
			var settled bool
			if err := scanEventInto(r, &row.Event, &row.Size, &row.Matched, &row.Place.Order, &settled); err != nil {
				return err
			}
			if !settled {
				page.Unsettled = true
				return store.ErrPageFull
			}
			row.Place.ID = row.Event.ID
			rows = append(rows, row)
			return nil
		})
	}
	if err != nil {
		return store.StreamPage{}, fmt.Errorf("read the stream: %w", err)
	}
	bodies, err := s.bodies(ctx, page.Choose(&f, rows))
	if err != nil {
		return store.StreamPage{}, fmt.Errorf("read the stream: %w", err)
	}
	page.Fill(bodies)
	return page, nil
}

// bodies reads the bodies of events that have one.
func (s *Store) bodies(ctx context.Context, ids []posthorn.ID) (map[posthorn.ID][]byte, error) {
	bodies := make(map[posthorn.ID][]byte, len(ids))
	if len(ids) == 0 {
		return bodies, nil
	}
	numbers := make([]int64, len(ids))
	for i, id := range ids {
		numbers[i] = int64(id)
	}
	err := s.fill(ctx, `SELECT id, body FROM events WHERE id = ANY ($1) AND body IS NOT NULL`, []any{numbers}, func(r scanner) error {
		var id posthorn.ID
		var body []byte
		err := r.Scan((*int64)(&id), &body)
		bodies[id] = body
		return err
	})
	return bodies, err
}

// knownPlace turns a place of another cluster, from which this database was
// copied, into one of this: see settleStream.
func (s *Store) knownPlace(ctx context.Context, p store.StreamPlace) (store.StreamPlace, error) {
	var next int64
	if err := s.other.QueryRow(ctx, `SELECT `+snapshotXmax).Scan(&next); err != nil {
		return p, s.readError(ctx, err)
	}
	if p.Order >= next {
		p.Order = 0
	}
	return p, nil
}

// settleStream looks whether the database was copied from a cluster whose
// transactions have higher numbers than this one's, and orders its events by their
// ids then. It is for the opening of the store.
func (s *Store) settleStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	var ahead bool
	err := s.other.QueryRow(ctx, `SELECT tx >= `+snapshotXmax+` FROM events ORDER BY id DESC LIMIT 1`).Scan(&ahead)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !ahead {
		return nil
	}
	if err == nil {
		s.log.Warn("this database was copied from another cluster; the events are put in order anew")
		_, err = s.other.Exec(ctx, `UPDATE events SET tx = 0 WHERE tx <> 0`)
	}
	return err
}
