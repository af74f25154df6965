package postgres

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// feed is one step of a replay within its transaction.
type feed struct {
	replay        posthorn.Replay
	cursor, bound posthorn.ID
	candidates    []store.Candidate
	last          posthorn.ID // all up to it were looked at
	end           bool        // nothing is left behind it
}

// FeedReplay implements [store.Replays]. The replay's row is locked and names the
// run that works on it: another takes over when that is taken or gone.
func (s *Store) FeedReplay(ctx context.Context, id int64, limit int, now time.Time) (fed store.Fed, err error) {
	if err := s.serving(); err != nil {
		return store.Fed{}, err
	}
	run, node, err := s.lease.working()
	if err != nil {
		return store.Fed{}, err
	}
	// Late deliveries get ids of this week.
	if err := s.ensurePartitions(ctx, posthorn.MakeID(now, 0, 0), posthorn.MakeID(now.Add(time.Minute), 0, 0)); err != nil {
		return store.Fed{}, err
	}
	gone := false
	err = s.write(ctx, func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		f, err := tx.lockReplay(id, run)
		if err != nil {
			return err
		}
		if err := tx.nextOfReplay(f, limit); errors.Is(err, store.ErrNotFound) {
			gone = true
			return tx.exec(`UPDATE replays SET state = $2, updated_at = $3 WHERE id = $1`, id, int64(posthorn.ReplayCanceled), nanos(now))
		} else if err != nil {
			return err
		}
		if fed, err = tx.feed(s, f, run, node, now); err != nil {
			return err
		}
		tx.takes(run, fed.Work)
		return tx.writeHours()
	})
	switch {
	case err != nil:
		return store.Fed{}, err
	case gone:
		return store.Fed{}, store.ErrFinal
	}
	return fed, nil
}

func (tx *txn) lockReplay(id, run int64) (*feed, error) {
	f := &feed{}
	var alive bool
	var owner int64
	err := tx.rows(`SELECT `+replayColumns+`, r.cursor, r.bound, r.run, EXISTS (SELECT 1 FROM runs u WHERE u.id = r.run AND u.taken_at = 0)`+fromReplays+`
		WHERE r.id = $1 FOR UPDATE OF r`, []any{id}, func(r scanner) error {
		return scanReplayInto(r, &f.replay, (*int64)(&f.cursor), (*int64)(&f.bound), &owner, &alive)
	})
	switch {
	case err != nil:
		return nil, err
	case f.replay.ID == 0:
		return nil, store.ErrNotFound
	case f.replay.State != posthorn.ReplayRunning:
		return nil, store.ErrFinal
	}
	// Who has the lane of an endpoint that needs one sends its replays, too.
	holder, err := tx.laneOf(f.replay.Endpoint, run)
	switch {
	case err != nil:
		return nil, err
	case holder != 0 && holder != run, holder == 0 && owner != run && alive:
		return nil, store.ErrElsewhere
	}
	return f, nil
}

func (tx *txn) nextOfReplay(f *feed, limit int) error {
	e, err := livingEndpoint(tx.ctx, tx.c, f.replay.Tenant, f.replay.Endpoint)
	if err != nil {
		return err
	}
	limit = min(limit, f.replay.Total-f.replay.Sent)
	f.last, f.end = f.bound, true
	if limit <= 0 {
		return nil
	}
	rows := limit + 1
	if len(f.replay.Selection.Types) > 0 || f.replay.Selection.Missing {
		rows = store.WalkSlice
	}
	sliceEnd, more, err := sliceOf(tx.ctx, tx.c, &e, &f.replay.Selection, f.cursor, f.bound)
	if err != nil {
		return err
	}
	full := false
	last, err := walkCandidates(tx.ctx, tx.c, &e, &f.replay.Selection, f.cursor, min(f.bound, sliceEnd+1), rows, true, func(c *store.Candidate) error {
		if len(f.candidates) == limit {
			full = true
			return nil
		}
		// What was not finished when the replay was made is not one of its total.
		later, err := c.EndedAfter(f.replay.CreatedAt)
		if err == nil && !later {
			f.candidates = append(f.candidates, *c)
		}
		return err
	})
	switch {
	case full:
		f.last, f.end = f.candidates[limit-1].Place(), false
	case last != 0:
		f.last, f.end = last, false
	case more:
		f.last, f.end = sliceEnd, false
	}
	return err
}

func (tx *txn) feed(s *Store, f *feed, run int64, node uint8, now time.Time) (store.Fed, error) {
	r := f.replay
	opened, err := tx.openForReplay(s, f, run, node, now)
	if err != nil {
		return store.Fed{}, err
	}
	fed := store.Fed{More: !f.end}
	if len(opened) > 0 {
		claims, err := tx.claims(`SELECT `+workColumns+` FROM due d JOIN events e ON e.id = d.event WHERE d.id = ANY ($1)`, opened)
		if err != nil {
			return store.Fed{}, err
		}
		for i := range claims {
			fed.Work = append(fed.Work, claims[i].work)
		}
		slices.SortFunc(fed.Work, func(a, b store.Work) int { return cmp.Compare(a.ID, b.ID) })
	}
	r.Sent += len(opened)
	r.Skipped += len(f.candidates) - len(opened)
	if f.end {
		r.State, r.Skipped = posthorn.ReplayCompleted, r.Total-r.Sent
	}
	r.UpdatedAt = now.UTC()
	fed.Replay = r
	return fed, tx.exec(`UPDATE replays SET state = $2, cursor = $3, sent = $4, skipped = $5, updated_at = $6, run = $7 WHERE id = $1`,
		r.ID, int64(r.State), int64(f.last), r.Sent, r.Skipped, nanos(now), run)
}

// openForReplay opens deliveries for their whole schedule, owned by this run, and
// returns those that could be.
func (tx *txn) openForReplay(s *Store, f *feed, run int64, node uint8, now time.Time) (opened []int64, err error) {
	r := &f.replay
	if len(f.candidates) == 0 {
		return nil, nil
	}
	id := func(row scanner) error {
		var id int64
		err := row.Scan(&id)
		opened = append(opened, id)
		tx.moved[r.Tenant]++
		return err
	}
	if r.Selection.Missing {
		var ids, events []int64
		for i := range f.candidates {
			late, err := s.publisher.allocate(node, now, 1)
			if err != nil {
				return nil, err
			}
			ids, events = append(ids, int64(late)), append(events, int64(f.candidates[i].Event))
		}
		err = tx.rows(`INSERT INTO due (id, event, tenant, endpoint, run, next_at, replay_id, late)
			SELECT u.id, u.event, $3, $4, $5, $6, $7, true FROM unnest($1::bigint[], $2::bigint[]) u (id, event)
			JOIN events e ON e.id = u.event AND e.body IS NOT NULL ON CONFLICT (event, endpoint) WHERE late DO NOTHING RETURNING id`,
			[]any{ids, events, r.Tenant, r.Endpoint, run, nanos(now), r.ID}, id)
		return opened, err
	}
	var ids []int64
	for i := range f.candidates {
		ids = append(ids, int64(f.candidates[i].Delivery))
	}
	err = tx.rows(`WITH g AS (DELETE FROM deliveries d USING events e WHERE d.id = ANY ($1) AND (1 << d.state) & $2 <> 0 AND e.id = d.event AND e.body IS NOT NULL RETURNING d.*
		), i AS (
		INSERT INTO due (id, event, tenant, endpoint, run, next_at, replay_id, tries, attempts, waits, round, late, log)
		SELECT id, event, tenant, endpoint, $3, $4, $5, tries, attempts, 0, round + 1, late, log FROM g)
		SELECT id, state, counted FROM g`,
		[]any{ids, store.SelectedStates(&r.Selection), run, nanos(now), r.ID}, func(row scanner) error {
			var id, counted int64
			var was posthorn.Progress
			err := row.Scan(&id, &was.State, &counted)
			opened = append(opened, id)
			tx.moved[r.Tenant]++
			tx.hours.Move(r.Endpoint, posthorn.EventNormal, was, posthorn.Progress{}, counted, now)
			return err
		})
	return opened, err
}

// writeReplays adds to the counts of replays; its parameters are those of
// replayColumnsOf.
const writeReplays = `UPDATE replays r SET succeeded = r.succeeded + u.succeeded, failed = r.failed + u.failed
	FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) u (id, succeeded, failed) WHERE r.id = u.id`

func replayColumnsOf(counts store.ReplayCounts) []any {
	var ids, succeeded, failed []int64
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		ids, succeeded, failed = append(ids, id), append(succeeded, int64(counts[id].Succeeded)), append(failed, int64(counts[id].Failed))
	}
	return []any{ids, succeeded, failed}
}
