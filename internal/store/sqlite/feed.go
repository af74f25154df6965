package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// feed is one step of a replay.
type feed struct {
	replay        posthorn.Replay
	cursor, bound posthorn.ID
	candidates    []store.Candidate
	last          posthorn.ID // all up to it were looked at
	end           bool        // nothing is left behind it
	gone          bool        // the endpoint was deleted
}

// FeedReplay implements [store.Replays]. What comes next is looked for beside the
// writer, which then meets each row by its id.
func (s *Store) FeedReplay(ctx context.Context, id int64, limit int, now time.Time) (fed store.Fed, err error) {
	if err := s.serving(); err != nil {
		return store.Fed{}, err
	}
	f, err := s.nextOfReplay(ctx, id, limit)
	if err != nil {
		return store.Fed{}, err
	}
	err = s.writer.do(ctx, func(tx *txn) (err error) {
		fed, err = tx.feed(f, now)
		return err
	})
	for i := range fed.Work {
		s.reopened(fed.Work[i].ID)
	}
	if err == nil && f.gone {
		err = store.ErrFinal
	}
	return fed, err
}

func (s *Store) nextOfReplay(ctx context.Context, id int64, limit int) (*feed, error) {
	f := &feed{}
	// What it selects and from where never changes.
	r, err := one(ctx, s, scanReplay, `SELECT `+replayColumns+fromReplays+`WHERE r.id = ?`, id)
	if err != nil {
		return f, err
	}
	err = s.walks.Slice(ctx, r.Tenant, func(ctx context.Context) error { return s.lookForReplay(ctx, &r, f, limit) })
	return f, err
}

// lookForReplay reads a replay as it is now, and its next slice.
func (s *Store) lookForReplay(ctx context.Context, r *posthorn.Replay, f *feed, limit int) error {
	list := s.candidateList(r.Tenant, r.Endpoint, &r.Selection)
	return s.snapshot(ctx, func(q querier) error {
		err := scanReplayInto(q.QueryRowContext(ctx, `SELECT `+replayColumns+`, r.cursor, r.bound`+fromReplays+`WHERE r.id = ?`, r.ID), &f.replay, (*int64)(&f.cursor), (*int64)(&f.bound))
		if errors.Is(err, sql.ErrNoRows) {
			return store.ErrNotFound
		}
		if err != nil {
			return readError(ctx, err)
		}
		if f.replay.State != posthorn.ReplayRunning {
			return store.ErrFinal
		}
		e, err := livingEndpoint(ctx, q, f.replay.Tenant, f.replay.Endpoint)
		if err != nil {
			f.gone = true
			return ignoreNotFound(err)
		}
		limit = min(limit, f.replay.Total-f.replay.Sent)
		f.last, f.end = f.bound, true
		if limit <= 0 {
			return nil
		}
		left, err := list.walkCandidates(ctx, q, &e, &f.replay.Selection, f.cursor, f.bound, true, func(c *store.Candidate) error {
			if len(f.candidates) == limit {
				f.last, f.end = f.candidates[limit-1].Place(), false
				return store.ErrPageFull
			}
			// What was not finished when the replay was made is not one of its total.
			later, err := c.EndedAfter(f.replay.CreatedAt)
			if err == nil && !later {
				f.candidates = append(f.candidates, *c)
			}
			return err
		})
		if left != 0 {
			f.last, f.end = left, false
		}
		return err
	})
}

func ignoreNotFound(err error) error {
	if err == store.ErrNotFound {
		return nil
	}
	return err
}

func (tx *txn) feed(f *feed, now time.Time) (store.Fed, error) {
	r := f.replay
	var state posthorn.ReplayState
	var cursor posthorn.ID
	found, err := tx.row(`SELECT state, cursor FROM replays WHERE id = ?`, []any{r.ID}, &state, (*int64)(&cursor))
	switch {
	case err != nil:
		return store.Fed{}, err
	case !found:
		return store.Fed{}, refuse(store.ErrNotFound)
	case state != posthorn.ReplayRunning || cursor != f.cursor:
		return store.Fed{}, refuse(store.ErrFinal)
	}
	if f.gone {
		return store.Fed{Replay: r}, tx.exec(`UPDATE replays SET state = ?, updated_at = ? WHERE id = ?`, int64(posthorn.ReplayCanceled), nanos(now), r.ID)
	}
	fed := store.Fed{More: !f.end}
	for i := range f.candidates {
		w, ok, err := tx.openForReplay(&r, &f.candidates[i], now)
		if err != nil {
			return store.Fed{}, err
		}
		if !ok {
			r.Skipped++
			continue
		}
		r.Sent++
		fed.Work = append(fed.Work, w)
	}
	if f.end {
		r.State, r.Skipped = posthorn.ReplayCompleted, r.Total-r.Sent
	}
	r.UpdatedAt = now.UTC()
	fed.Replay = r
	return fed, tx.exec(`UPDATE replays SET state = ?, cursor = ?, sent = ?, skipped = ?, updated_at = ? WHERE id = ?`,
		int64(r.State), int64(f.last), r.Sent, r.Skipped, nanos(now), r.ID)
}

// openForReplay opens a delivery for its whole schedule, owned by this process; ok is
// false when it cannot be sent any more.
func (tx *txn) openForReplay(r *posthorn.Replay, c *store.Candidate, now time.Time) (w store.Work, ok bool, err error) {
	var body bool
	if ok, err = tx.row(`SELECT 1 FROM events WHERE id = ? AND erased_at = 0`, []any{int64(c.Event)}, &body); err != nil || !ok {
		return w, false, err
	}
	id := c.Delivery
	if id == 0 {
		if id, err = tx.insertLate(r, c, now); err != nil || id == 0 {
			return w, false, err
		}
	} else {
		state, counted := posthorn.ParseState(c.State), int64(0)
		found, err := tx.row(`UPDATE deliveries SET state = 0, place = 1, next_at = ?, waits = 0, round = round + 1, reason = '', replay_id = ?
			WHERE id = ? AND place = 0 AND state = ? RETURNING counted`, []any{nanos(now) + ownedOffset, r.ID, int64(id), int64(state)}, &counted)
		if err != nil || !found {
			return w, false, err
		}
		tx.hours.Move(r.Endpoint, posthorn.EventNormal, posthorn.Progress{State: state}, posthorn.Progress{}, counted, now)
		tx.move(r.Tenant, r.Endpoint, nowhere, owned)
	}
	claims, err := tx.claims(`SELECT `+workColumns+`, 0, 0 FROM deliveries d CROSS JOIN events e ON e.id = d.event
		LEFT JOIN payloads b ON b.event = d.event AND e.size <= 4096 WHERE d.id = ?`, int64(id))
	if err != nil || len(claims) == 0 {
		return w, false, err
	}
	return claims[0].work, true, nil
}

// insertLate makes the delivery of an event that the endpoint has none of; 0 if it
// has one by now.
func (tx *txn) insertLate(r *posthorn.Replay, c *store.Candidate, now time.Time) (posthorn.ID, error) {
	var there int64
	found, err := tx.row(`SELECT id FROM deliveries INDEXED BY deliveries_late_event WHERE late = 1 AND event = ? AND endpoint = ?`,
		[]any{int64(c.Event), r.Endpoint}, &there)
	if err != nil || found {
		return 0, err
	}
	id, err := tx.allocate(now, 1)
	if err != nil {
		return 0, err
	}
	tx.post(deliveriesOf(r.Endpoint), int64(id))
	tx.move(r.Tenant, r.Endpoint, nowhere, owned)
	return id, tx.exec(`INSERT INTO deliveries (id, event, tenant, endpoint, state, place, next_at, replay_id, late) VALUES (?, ?, ?, ?, 0, 1, ?, ?, 1)`,
		int64(id), int64(c.Event), r.Tenant, r.Endpoint, nanos(now)+ownedOffset, r.ID)
}
