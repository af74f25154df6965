package postgres

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Small bodies come with the claim (store.ClaimedBody).
const workColumns = `d.id, d.event, e.key, e.type, d.tenant, d.endpoint, e.kind, e.accepted_at, e.size,
	d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.replay_id <> 0 AND NOT d.extra,
	CASE WHEN e.size <= 4096 THEN e.body END, d.run, ` + aside + `,
	coalesce((SELECT p.deleted_at FROM endpoints p WHERE p.id = d.endpoint), 1) <> 0,
	coalesce((SELECT t.deleted_at FROM tenants t WHERE t.id = d.tenant), 1) <> 0`

const (
	// What is due in a lane that another node has, or none, goes to its backlog.
	claimDue = `WITH c AS (
			SELECT id FROM due WHERE run = 0 AND next_at <= $1 AND (next_at, id) >= ($2, $5) ORDER BY next_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)
		UPDATE due d SET run = CASE WHEN coalesce((SELECT l.run FROM lanes l WHERE l.endpoint = d.endpoint), $4) = $4 THEN $4 ELSE -1 END FROM c, events e WHERE d.id = c.id AND e.id = d.event RETURNING ` + workColumns

	// What failed and whose time has not come waits: see store.LineUp.
	claimParked = `WITH c AS (
			SELECT id FROM due WHERE run = -1 AND endpoint = $1 ORDER BY greatest(seq, id), id LIMIT $2 FOR UPDATE SKIP LOCKED)
		UPDATE due d SET run = CASE WHEN d.tries > 0 AND d.next_at > $4 THEN 0 ELSE $3 END FROM c, events e WHERE d.id = c.id AND e.id = d.event RETURNING ` + workColumns
)

// claim is a row that was taken over. gone tells that its endpoint or tenant was
// deleted.
type claim struct {
	work       store.Work
	gone       bool
	tenantGone bool
	run        int64 // that has it now
}

func (tx *txn) claims(query string, args ...any) (claims []claim, err error) {
	err = tx.rows(query, args, func(r scanner) error {
		var c claim
		w, p := &c.work, &c.work.Progress
		var accepted, next int64
		err := r.Scan((*int64)(&w.ID), (*int64)(&w.Event), &w.EventKey, &w.Type, &w.Tenant, &w.Endpoint, &w.Kind, &accepted, &w.Size,
			&next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &w.Replay, &w.Body, &c.run, &w.Aside, &c.gone, &c.tenantGone)
		w.AcceptedAt, p.NextAt = fromNanos(accepted), fromNanos(next)
		c.gone = c.gone || c.tenantGone
		claims = append(claims, c)
		return err
	})
	return claims, err
}

// maxClaim is how many rows a claim takes at most. Each costs some 80 µs where a
// million are due and a snapshot is held, and whoever waits for a row of them waits
// for the commit; more at a time would not be cheaper.
const maxClaim = 96

// ClaimDue implements [store.Queue]. Rows of deleted endpoints and tenants are
// canceled where they are met, so fewer may come back than there is room for;
// next then tells to call again at once.
func (s *Store) ClaimDue(ctx context.Context, now time.Time, limit int) (work []store.Work, next time.Time, err error) {
	if err := s.serving(); err != nil {
		return nil, time.Time{}, err
	}
	run, _, err := s.lease.working()
	switch {
	case errors.Is(err, errClock):
		return nil, time.Time{}, nil // a notice tells when it is right
	case err != nil:
		return nil, time.Time{}, err
	}
	limit = min(limit, maxClaim)
	s.floor.scanning.Lock()
	defer s.floor.scanning.Unlock()
	floor := s.floor.get()
	var left place
	var elsewhere map[int64]int64 // endpoints whose lanes have to fetch it, with their tenants
	err = s.transact(ctx, s.brief(), func(tx *txn) error {
		work, left, elsewhere = nil, place{}, nil
		claims, err := tx.claims(claimDue, nanos(now), floor.next, limit, run, floor.id)
		if err != nil {
			return err
		}
		claims, elsewhere = split(claims)
		if work, err = tx.take(run, claims, now); err != nil {
			return err
		}
		_, err = tx.row(`SELECT next_at, id FROM due WHERE run = 0 AND (next_at, id) >= ($1, $2) ORDER BY next_at, id LIMIT 1`,
			[]any{floor.next, floor.id}, &left.next, &left.id)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	for endpoint, tenant := range elsewhere {
		s.watchers.Tell(store.Notice{Kind: store.NoticeParked, Tenant: tenant, Endpoint: endpoint})
	}
	slices.SortFunc(work, func(a, b store.Work) int {
		return cmp.Or(a.Progress.NextAt.Compare(b.Progress.NextAt), cmp.Compare(a.ID, b.ID))
	})
	if left.id != 0 {
		s.floor.raise(left, nanos(now))
	}
	return work, fromNanos(left.next), nil
}

// split takes out what was parked for the lanes of others.
func split(claims []claim) (mine []claim, elsewhere map[int64]int64) {
	mine = claims[:0]
	for _, c := range claims {
		if c.run != parked {
			mine = append(mine, c)
			continue
		}
		if elsewhere == nil {
			elsewhere = make(map[int64]int64)
		}
		elsewhere[c.work.Endpoint] = c.work.Tenant
	}
	return mine, elsewhere
}

// ClaimParked implements [store.Queue].
func (s *Store) ClaimParked(ctx context.Context, endpoint int64, limit int) (work []store.Work, more bool, next time.Time, err error) {
	if err := s.serving(); err != nil {
		return nil, false, next, err
	}
	run, _, err := s.lease.working()
	switch {
	case errors.Is(err, errClock):
		return nil, true, next, nil // a notice tells when it is right
	case err != nil:
		return nil, false, next, err
	}
	var lowest int64
	err = s.transact(ctx, s.brief(), func(tx *txn) error {
		work, more, next, lowest = nil, false, time.Time{}, 0
		var gone, suspended, paused, owned bool
		// Sweep cancels those of a deleted endpoint.
		found, err := tx.row(`SELECT coalesce(p.deleted_at, 1) <> 0 OR coalesce(t.deleted_at, 1) <> 0, coalesce(t.suspended_at, 0) <> 0 OR p.status NOT IN ('active', 'paused'), p.status = 'paused',
			EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = p.id)
			FROM endpoints p LEFT JOIN tenants t ON t.id = p.tenant WHERE p.id = $1`, []any{endpoint}, &gone, &suspended, &paused, &owned)
		switch {
		case err != nil || !found || gone:
			return err
		case suspended:
			more, err = tx.hasParked(endpoint)
			return err
		case owned:
			work, more, next, lowest, err = tx.claimOwned(endpoint, run, paused, limit)
			return err
		case paused:
			work, more, next, lowest, err = tx.claimLine(endpoint, run, false, paused, s.now(), limit)
			return err
		}
		claims, err := tx.claims(claimParked, endpoint, limit, run, nanos(s.now()))
		if err != nil {
			return err
		}
		taken := claims[:0]
		for _, c := range claims {
			if c.run == run {
				taken = append(taken, c)
			} else if at := nanos(c.work.Progress.NextAt); lowest == 0 || at < lowest {
				lowest = at
			}
		}
		if work, err = tx.take(run, taken, s.now()); err != nil {
			return err
		}
		slices.SortFunc(work, func(a, b store.Work) int { return cmp.Compare(a.ID, b.ID) })
		more, err = tx.hasParked(endpoint)
		if next = fromNanos(lowest); more && len(work) == 0 {
			next = s.now() // what comes behind is not known yet
		}
		return err
	})
	if err != nil {
		return nil, false, time.Time{}, err
	}
	if lowest != 0 {
		s.floor.lower(lowest)
	}
	return work, more, next, nil
}

// brief is the patience of who looks for work.
func (s *Store) brief() patience { return patience{limit: s.o.Deadlines.Look} }

// take keeps what was claimed for the run of the living, and cancels what was not.
func (tx *txn) take(run int64, claims []claim, now time.Time) (work []store.Work, err error) {
	if len(claims) == 0 {
		return nil, nil
	}
	if err := tx.assign(); err != nil {
		return nil, err
	}
	var gone [2][]int64 // of deleted endpoints, of deleted tenants
	for i := range claims {
		c := &claims[i]
		switch {
		case c.tenantGone:
			gone[1] = append(gone[1], int64(c.work.ID))
		case c.gone:
			gone[0] = append(gone[0], int64(c.work.ID))
		default:
			work = append(work, c.work)
		}
	}
	for i, ids := range gone {
		if len(ids) == 0 {
			continue
		}
		if _, err := tx.settle(posthorn.Canceled, store.GoneReason(i == 1), now, `SELECT id FROM due WHERE id = ANY ($1)`+skipLocked, ids); err != nil {
			return nil, err
		}
	}
	tx.takes(run, work)
	return work, tx.writeHours()
}

// writeHours writes the counts of replays and the statistics that the transaction
// gathered, in the order in which all lock them.
func (tx *txn) writeHours() error {
	if len(tx.replays) > 0 {
		if err := tx.exec(writeReplays, replayColumnsOf(tx.replays)...); err != nil {
			return err
		}
		tx.replays = store.ReplayCounts{}
	}
	if len(tx.hours) == 0 {
		return nil
	}
	err := tx.exec(writeHours, hourColumns(tx.hours)...)
	tx.hours = store.Hours{}
	return err
}

// ParkedEndpoints implements [store.Queue]. It hops over the parked index from
// endpoint to endpoint.
func (s *Store) ParkedEndpoints(ctx context.Context, after int64, limit int) ([]int64, error) {
	ctx, cancel := s.look(ctx)
	defer cancel()
	return all(ctx, s, s.other, func(r scanner) (id int64, err error) { return id, r.Scan(&id) }, `WITH RECURSIVE r (endpoint) AS (
			(SELECT endpoint FROM due WHERE run = -1 AND endpoint > $1 ORDER BY endpoint LIMIT 1)
			UNION ALL
			SELECT (SELECT d.endpoint FROM due d WHERE d.run = -1 AND d.endpoint > r.endpoint ORDER BY d.endpoint LIMIT 1) FROM r WHERE r.endpoint IS NOT NULL)
		SELECT r.endpoint FROM r JOIN endpoints p ON p.id = r.endpoint JOIN tenants t ON t.id = p.tenant
		WHERE p.deleted_at = 0 AND t.deleted_at = 0 AND t.suspended_at = 0
		AND (p.status = 'active' OR p.status = 'paused' AND EXISTS (SELECT 1 FROM due h WHERE h.run = -1 AND h.manual AND h.endpoint = p.id)) ORDER BY 1 LIMIT $2`, after, limit)
}

// Park implements [store.Queue].
func (s *Store) Park(ctx context.Context, holds []store.Hold) error {
	if err := s.serving(); err != nil {
		return err
	}
	if len(holds) == 0 {
		return nil
	}
	// Whoever gives them back again must know what became of the first time.
	return s.transact(ctx, s.patient(), func(tx *txn) error {
		if err := tx.assign(); err != nil {
			return err
		}
		ids, err := tx.lockHeld(holds)
		if err != nil {
			return err
		}
		return tx.exec(`UPDATE due SET run = -1 WHERE id = ANY ($1)`, ids)
	})
}

// Payload implements [store.Queue].
func (s *Store) Payload(ctx context.Context, event posthorn.ID) ([]byte, error) {
	ctx, cancel := s.look(ctx)
	defer cancel()
	b, err := one(ctx, s, func(r scanner) (b []byte, err error) { return b, r.Scan(&b) }, `SELECT body FROM events WHERE id = $1`, int64(event))
	if err == nil && b == nil {
		return nil, store.ErrNotFound
	}
	return b, err
}
