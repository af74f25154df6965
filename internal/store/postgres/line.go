package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Owned lanes and the lines of ordered endpoints: see DESIGN.md.

// aside tells that a delivery stands outside the line: see [store.Work].
const aside = `(d.extra OR d.round > 0 OR d.late OR d.replay_id <> 0 OR e.deliver_at <> 0 OR e.kind = 1)`

const (
	// For so long after a lane changed hands or rules it is looked whether others
	// still hold deliveries of it; they give them back, or lose their lease.
	handover = time.Minute
	// askAgain is when a lane may be claimed whose deliveries others still hold.
	askAgain = 100 * time.Millisecond
)

// setLane brings the endpoint's lane in step with its settings.
func (tx *txn) setLane(e *posthorn.Endpoint, at time.Time) error {
	if !e.DeletedAt.IsZero() || !e.Settings.OwnedLane(true) {
		return tx.dropLanes([]int64{e.ID})
	}
	var was bool
	if _, err := tx.row(`SELECT ordered FROM lanes WHERE endpoint = $1 FOR UPDATE`, []any{e.ID}, &was); err != nil {
		return err
	}
	err := tx.exec(`INSERT INTO lanes (endpoint, run, since, ordered) VALUES ($1, 0, $2, $3) ON CONFLICT (endpoint) DO UPDATE
		SET since = CASE WHEN lanes.ordered = excluded.ordered THEN lanes.since ELSE excluded.since END, ordered = excluded.ordered`,
		e.ID, nanos(at), e.Settings.Ordered)
	switch {
	case err != nil:
		return err
	case !e.Settings.Ordered:
		return tx.exec(`DELETE FROM lines WHERE endpoint = $1`, e.ID)
	case was:
		return nil
	}
	if err := tx.exec(`INSERT INTO lines (endpoint, last) SELECT $1, coalesce(max(greatest(seq, id)), 0) FROM due WHERE endpoint = $1
		ON CONFLICT (endpoint) DO UPDATE SET last = greatest(lines.last, excluded.last)`, e.ID); err != nil {
		return err
	}
	// What waits for its time joins the line, so that it holds what is younger.
	return tx.exec(`UPDATE due d SET run = -1 FROM events e WHERE e.id = d.event AND d.endpoint = $1 AND d.run = 0 AND NOT `+aside, e.ID)
}

func (tx *txn) dropLanes(endpoints []int64) error {
	if err := tx.exec(`DELETE FROM lanes WHERE endpoint = ANY ($1)`, endpoints); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM lines WHERE endpoint = ANY ($1)`, endpoints)
}

// takeLane takes the lease of a lane whose run is over, or that has none.
const takeLane = `UPDATE lanes l SET run = $2, since = $3 WHERE endpoint = $1 AND run <> $2
	AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = l.run AND r.taken_at = 0)`

// laneOf takes the endpoint's lane if nobody has it, and returns the run that has
// it then, until the commit; 0 for an endpoint that needs none.
func (tx *txn) laneOf(endpoint, run int64) (holder int64, err error) {
	if err := tx.exec(takeLane, endpoint, run, nanos(tx.now())); err != nil {
		return 0, err
	}
	_, err = tx.row(`SELECT run FROM lanes WHERE endpoint = $1 FOR SHARE`, []any{endpoint}, &holder)
	return holder, err
}

// claimOwned is ClaimParked for an owned lane. lowest is the earliest time of what
// waits now; 0 for none.
func (tx *txn) claimOwned(endpoint, run int64, paused bool, limit int) (work []store.Work, more bool, next time.Time, lowest int64, err error) {
	now := tx.now()
	if err = tx.exec(takeLane, endpoint, run, nanos(now)); err != nil {
		return
	}
	var holder, since int64
	var ordered bool
	// Shared: the lane cannot change hands or rules before this commit.
	if _, err = tx.row(`SELECT run, since, ordered FROM lanes WHERE endpoint = $1 FOR SHARE`, []any{endpoint}, &holder, &since, &ordered); err != nil || holder != run {
		return
	}
	if now.Sub(fromNanos(since)) < handover {
		var held bool
		if _, err = tx.row(`SELECT EXISTS (SELECT 1 FROM due WHERE endpoint = $1 AND run > 0 AND run <> $2)`, []any{endpoint, run}, &held); err != nil {
			return
		}
		if held {
			return nil, true, now.Add(askAgain), 0, nil
		}
	}
	return tx.claimLine(endpoint, run, ordered, paused, now, limit)
}

func (tx *txn) hasParked(endpoint int64) (some bool, err error) {
	_, err = tx.row(`SELECT EXISTS (SELECT 1 FROM due WHERE run = -1 AND endpoint = $1)`, []any{endpoint}, &some)
	return some, err
}

// parkedRows are those of a lane, in its order.
const (
	parkedRows = `SELECT d.id, d.tries, d.next_at, ` + aside + ` FROM due d JOIN events e ON e.id = d.event WHERE d.run = -1 AND d.endpoint = $1`
	inOrder    = ` ORDER BY greatest(d.seq, d.id), d.id LIMIT $2 FOR UPDATE OF d`
)

// byHand is the condition that a parked row was asked for by hand, and that its turn
// has come: of an ordered endpoint's line it is the head.
func byHand(endpoint, ordered string) string {
	return `d.manual AND (NOT ` + ordered + ` OR ` + aside + ` OR d.id = (SELECT d.id FROM due d JOIN events e ON e.id = d.event
		WHERE d.run = -1 AND d.endpoint = ` + endpoint + ` AND NOT ` + aside + ` ORDER BY greatest(d.seq, d.id), d.id LIMIT 1))`
}

func (tx *txn) claimLine(endpoint, run int64, ordered, paused bool, now time.Time, limit int) (work []store.Work, more bool, next time.Time, lowest int64, err error) {
	look := limit + 1
	if ordered {
		look = max(look, store.LookAside)
	}
	var ids []int64
	var candidates []store.ParkedRow
	query, args := parkedRows+inOrder, []any{endpoint, look}
	if paused {
		query, args = parkedRows+` AND `+byHand("$1", "$3")+inOrder, append(args, ordered)
	}
	err = tx.rows(query, args, func(r scanner) error {
		var id, at int64
		var c store.ParkedRow
		err := r.Scan(&id, &c.Tries, &at, &c.Aside)
		c.NextAt = fromNanos(at)
		ids, candidates = append(ids, id), append(candidates, c)
		return err
	})
	if err != nil {
		return
	}
	take, wait, more, next := store.LineUp(ordered, candidates, len(ids) == look, now, limit)
	if len(take)+len(wait) == 0 {
		if paused {
			more, err = tx.hasParked(endpoint)
		}
		return nil, more, next, 0, err
	}
	if err = tx.assign(); err != nil {
		return
	}
	if len(wait) > 0 {
		if err = tx.exec(`UPDATE due SET run = 0 WHERE id = ANY ($1)`, places(ids, wait)); err != nil {
			return
		}
		for _, i := range wait {
			if at := nanos(candidates[i].NextAt); lowest == 0 || at < lowest {
				lowest = at
			}
		}
	}
	taken := places(ids, take)
	claims, err := tx.claims(`UPDATE due d SET run = $2 FROM events e WHERE d.id = ANY ($1) AND e.id = d.event RETURNING `+workColumns, taken, run)
	if err != nil {
		return
	}
	work, err = tx.take(run, claims, now)
	slices.SortFunc(work, func(a, b store.Work) int {
		return slices.Index(taken, int64(a.ID)) - slices.Index(taken, int64(b.ID))
	})
	if err == nil && paused {
		more, err = tx.hasParked(endpoint)
	}
	return work, more, next, lowest, err
}

func places(ids []int64, which []int) []int64 {
	list := make([]int64, len(which))
	for i, at := range which {
		list[i] = ids[at]
	}
	return list
}

// ownedWork lists the lanes that this node has, or nobody, with something parked
// that may be sent now.
var ownedWork = `SELECT l.endpoint, p.tenant FROM lanes l JOIN endpoints p ON p.id = l.endpoint JOIN tenants t ON t.id = p.tenant
	WHERE (l.run = $1 OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = l.run AND r.taken_at = 0))
	AND p.deleted_at = 0 AND t.deleted_at = 0 AND t.suspended_at = 0
	AND (p.status = 'active' AND (SELECT d.tries = 0 OR d.next_at <= $2 FROM due d WHERE d.run = -1 AND d.endpoint = l.endpoint ORDER BY greatest(d.seq, d.id), d.id LIMIT 1)
		OR p.status IN ('active', 'paused') AND EXISTS (SELECT 1 FROM due d JOIN events e ON e.id = d.event WHERE d.run = -1 AND d.endpoint = l.endpoint AND d.next_at <= $2 AND ` + byHand("l.endpoint", "l.ordered") + `))`

// lookAtLanes tells this node's lanes of what others put into their backlogs.
func (s *Store) lookAtLanes() {
	ctx, cancel := s.look(s.stop)
	defer cancel()
	run, _, err := s.lease.working()
	if err != nil {
		return
	}
	found, err := all(ctx, s, s.other, func(r scanner) (n store.Notice, err error) {
		n.Kind = store.NoticeParked
		return n, r.Scan(&n.Endpoint, &n.Tenant)
	}, ownedWork, run, nanos(s.now()))
	if err != nil {
		if s.stop.Err() == nil {
			s.log.Warn("owned lanes could not be looked at", "error", err)
		}
		return
	}
	for _, n := range found {
		s.watchers.Tell(n)
	}
}

// insertLines gives what joins a line its place, under a lock of the line that is
// kept until the commit: whoever publishes later comes later, whatever the clocks
// of the nodes say. Lines are locked in the order of endpoints. It stands before the
// part of the statement that inserts into due.
const insertLines = `, l AS (
	SELECT l.endpoint, u.n, u.last FROM unnest($42::bigint[], $43::bigint[], $44::bigint[]) u (endpoint, n, last)
		JOIN lines l ON l.endpoint = u.endpoint ORDER BY l.endpoint FOR UPDATE OF l
), line AS (
	UPDATE lines SET last = greatest(lines.last + l.n, l.last) FROM l WHERE lines.endpoint = l.endpoint
	RETURNING lines.endpoint, lines.last - l.n AS before
)`

// insertDueInLine takes the place of insertDue.
const insertDueInLine = insertLines + `, d AS (
	INSERT INTO due (id, event, tenant, endpoint, run, next_at, manual, seq)
	SELECT d.id, d.event, d.tenant, d.endpoint, d.run, d.next_at, d.event = ANY ($%d::bigint[]), coalesce(line.before + d.place, 0)
	FROM unnest($19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[], $45::bigint[])
		d (pub, id, event, tenant, endpoint, run, next_at, place) JOIN ok USING (pub)
		LEFT JOIN line ON d.place > 0 AND line.endpoint = d.endpoint
)`

// lines gathers what of a batch joins lines.
type lines struct {
	place map[int64]int64 // of each delivery among those of its endpoint, from 1
	n     map[int64]int64 // by endpoint
	last  map[int64]int64 // the highest id
}

func (l *lines) add(endpoint, id int64) {
	if l.n == nil {
		l.place, l.n, l.last = map[int64]int64{}, map[int64]int64{}, map[int64]int64{}
	}
	l.n[endpoint]++
	l.place[id], l.last[endpoint] = l.n[endpoint], id
}

// args are the parameters of insertDueInLine from $42 on.
func (l *lines) args(due []int64) []any {
	var endpoints, n, last []int64
	for endpoint := range l.n {
		endpoints, n, last = append(endpoints, endpoint), append(n, l.n[endpoint]), append(last, l.last[endpoint])
	}
	place := make([]int64, len(due))
	for i, id := range due {
		place[i] = l.place[id]
	}
	return []any{endpoints, n, last, place}
}

// LineHead implements [store.Endpoints].
func (s *Store) LineHead(ctx context.Context, endpoint int64) (head posthorn.ID, next time.Time, err error) {
	var ids []int64
	candidates, err := all(ctx, s, s.other, func(r scanner) (c store.ParkedRow, err error) {
		var id, at int64
		err = r.Scan(&id, &c.Tries, &at, &c.Aside)
		ids, c.NextAt = append(ids, id), fromNanos(at)
		return c, err
	}, `SELECT d.id, d.tries, d.next_at, `+aside+` FROM due d JOIN events e ON e.id = d.event
		WHERE d.run = -1 AND d.endpoint = $1 AND EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = $1 AND l.ordered)
		ORDER BY greatest(d.seq, d.id), d.id LIMIT $2`, endpoint, store.LookAside)
	if i := store.Blocks(candidates); err == nil && i >= 0 {
		head, next = posthorn.ID(ids[i]), candidates[i].NextAt
	}
	return head, next, err
}
