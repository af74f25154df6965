package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/store"
)

// clocks compares this node's clocks with the database's and with the other nodes',
// at each renewal of the lease. While this node's is wrong it takes, sends and
// deletes nothing; see DESIGN.md, "Clocks".
type clocks struct {
	c    *clock.Clock
	name string // of this process
	s    *Store

	// Of the look alone.
	alone    bool // the table is not there, or not for this role
	epoch    int64
	believed int           // by the clock, in this epoch
	since    time.Duration // when the service's time was last set, by the monotonic clock
	apart    time.Time     // since when other nodes are at another time

	mu       sync.Mutex
	standing clock.Standing
	ahead    time.Duration // this machine's clock is so far ahead of the database's
	judged   time.Duration // the wall clock less the monotonic one, when it was judged
	right    time.Duration // by the monotonic clock, when it was last found right
	nodes    int           // others that were heard of
}

func newClocks(s *Store) *clocks { return &clocks{c: s.o.Clock, name: rand.Text(), s: s} }

// clockSight is what a node says of its clocks: how far the machine's is ahead of the
// service's time, which no step of the database's moves; how far that is ahead of the
// database's; and which of several such times holds.
type clockSight struct {
	lead, service time.Duration
	epoch         int64
	kept          time.Duration
}

// holdsOver reports whether a node's time holds where another's differs.
func (a clockSight) holdsOver(b clockSight) bool {
	return a.epoch > b.epoch || a.epoch == b.epoch && a.kept > b.kept
}

// databaseTime is the database's clock, as Unix nanoseconds.
const databaseTime = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000`

// What ours show is written down, and those of the other nodes are read. Nodes that
// said nothing for a lease's time count for nothing.
const (
	readClocks = `SELECT t.t, c.lead, c.service, c.epoch, c.kept FROM (SELECT ` + databaseTime + ` AS t) t
		LEFT JOIN clocks c ON abs(c.at - t.t) < $1 AND c.name <> $2`
	writeClocks = `WITH me AS (
		INSERT INTO clocks (name, lead, service, epoch, kept, at) VALUES ($2, $3, $4, $5, $6, ` + databaseTime + `)
		ON CONFLICT (name) DO UPDATE SET lead = excluded.lead, service = excluded.service, epoch = excluded.epoch, kept = excluded.kept, at = excluded.at
	), old AS (
		DELETE FROM clocks c WHERE abs(c.at - (` + databaseTime + `)) > 86400000000000 AND c.name <> $2)
	` + readClocks
	readDatabaseClock = `SELECT ` + databaseTime + `, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint`
)

// look compares the clocks. first is the first look of this process: then it takes
// over the service's time that the other nodes go by, or, with none, the database's.
func (k *clocks) look(ctx context.Context, c *pgx.Conn, first bool) error {
	if k.c == nil {
		return nil
	}
	if first {
		if err := k.read(ctx, c, true); err != nil {
			return err
		}
	}
	said := k.c.State().Jump
	err := k.read(ctx, c, false)
	if err == nil && (k.c.State().Jump-said).Abs() > clock.Apart { // the others shall know at once
		err = k.read(ctx, c, false)
	}
	return err
}

func (k *clocks) read(ctx context.Context, c *pgx.Conn, first bool) error {
	before := k.c.Read()
	own := k.own(before)
	query, args := writeClocks, []any{int64(k.s.o.Lease), k.name, int64(own.lead), int64(own.service), own.epoch, int64(own.kept)}
	switch {
	case k.alone:
		query, args = readDatabaseClock, nil
	case first: // nothing is known yet that could be said
		query, args = readClocks, args[:2]
	}
	var theirs int64
	var others []clockSight
	before = k.c.Read()
	rows, err := c.Query(ctx, query, args...)
	if err == nil {
		err = eachRow(rows, func(r scanner) error {
			var lead, service, epoch, kept *int64
			if err := r.Scan(&theirs, &lead, &service, &epoch, &kept); err != nil || lead == nil {
				return err
			}
			others = append(others, clockSight{time.Duration(*lead), time.Duration(*service), *epoch, time.Duration(*kept)})
			return nil
		})
	}
	after := k.c.Read()
	switch {
	case !k.alone && isCode(err, codeNoTable, codeNoColumn, codeNotAllowed):
		k.alone = true
		k.s.log.Warn("the nodes' clocks cannot be compared before `posthorn migrate` was run by the owner of the tables", "error", err)
		return k.read(ctx, c, first)
	case err != nil:
		return err
	}
	k.take(time.Unix(0, theirs), before, after, others, first)
	return nil
}

// own is what this node says.
func (k *clocks) own(now clock.Reading) clockSight {
	if b := k.c.State().Believed; b != k.believed { // an hour has passed
		k.believed, k.since = b, now.Monotonic
		k.epoch++
	}
	return clockSight{lead: now.Wall.Sub(k.c.Now()), service: -k.c.State().Jump, epoch: k.epoch, kept: now.Monotonic - k.since}
}

// agree has this node go by the time that holds, once it differs for a lease's time:
// what another says may be older than a step of the database's clock.
func (k *clocks) agree(theirs time.Time, at clock.Reading, others []clockSight, first bool) {
	var best clockSight
	for i, o := range others {
		if i == 0 || o.holdsOver(best) {
			best = o
		}
	}
	if !first {
		if len(others) == 0 {
			return
		}
		own := k.own(at)
		if !best.holdsOver(own) || (best.service-own.service).Abs() <= clock.Apart {
			k.apart = time.Time{}
			return
		}
		if k.apart.IsZero() {
			k.apart = time.Now()
		}
		if time.Since(k.apart) < k.s.o.Lease {
			return
		}
	}
	k.c.Set(theirs.Add(best.service), at)
	k.apart, k.epoch, k.believed, k.since = time.Time{}, best.epoch, k.c.State().Believed, at.Monotonic
}

// take takes in what the database's clock showed between two readings of ours.
func (k *clocks) take(theirs time.Time, before, after clock.Reading, others []clockSight, first bool) {
	margin := (after.Monotonic - before.Monotonic) / 2
	middle := before.Monotonic + margin
	at := clock.Reading{Wall: before.Wall.Add(middle - before.Monotonic), Monotonic: middle}
	if !first {
		k.c.Follow(theirs, before, after)
	}
	k.agree(theirs, at, others, first)
	if margin > sharp && !first && k.steady() {
		return // what it says of whom is too vague
	}
	service := -k.c.State().Jump
	ahead := make([]time.Duration, len(others))
	for i, o := range others {
		ahead[i] = o.lead + service
	}
	k.mu.Lock()
	was, idle := k.standing, k.standing.Wrong || !k.stands()
	k.ahead, k.judged, k.nodes = at.Wall.Sub(theirs), at.Offset(), len(others)
	k.standing = clock.Judge(k.ahead, ahead)
	if !k.standing.Wrong {
		k.right = after.Monotonic
	}
	now, apart := k.standing, k.ahead
	k.mu.Unlock()
	if now != was {
		k.tell(now, apart)
	}
	if idle && !now.Wrong && !first && k.s.notices != nil {
		k.s.lease.wake()
		k.s.tellAll() // what was not taken meanwhile is asked for
	}
}

func (k *clocks) tell(now clock.Standing, ahead time.Duration) {
	by := ahead.Round(time.Millisecond)
	switch {
	case now.Wrong:
		k.s.log.Error("this machine's clock is not what the other nodes' are; this node takes, sends and deletes nothing until it is set right", "ahead_of_database", by)
	case now.DatabaseWrong:
		k.s.log.Warn("the database's clock is not what the nodes' are: set it right by NTP; nothing expires or is deleted by its age meanwhile", "nodes_ahead_by", by)
	default:
		k.s.log.Info("the clocks agree", "ahead_of_database", by)
	}
}

type clockState struct {
	clock.Standing
	ahead time.Duration
	nodes int
}

func (k *clocks) state() clockState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return clockState{k.standing, k.ahead, k.nodes}
}

// trusted reports whether this node may take, send and delete. A wall clock that moved
// since it was last judged is wrong until it is judged again.
func (k *clocks) trusted() bool {
	if k.c == nil {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.standing.Wrong && k.stands()
}

// steady reports whether the wall clock has not moved since it was judged.
func (k *clocks) steady() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stands()
}

func (k *clocks) stands() bool { return (k.c.Read().Offset() - k.judged).Abs() <= clock.Apart }

// sharp is how vague a comparison may be.
const sharp = clock.Apart / 2

// hopeless reports whether this node's clock has been wrong for a lease's time: then
// others shall have what it owns.
func (k *clocks) hopeless() bool {
	if k.c == nil {
		return false
	}
	now := k.c.Read().Monotonic
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.standing.Wrong && now-k.right > k.s.o.Lease
}

// trouble is what is wrong with this node's clock; nil for nothing.
func (k *clocks) trouble() error {
	if k.trusted() {
		return nil
	}
	return &SkewError{Ahead: k.state().ahead}
}

// errClock: this node may take nothing on.
var errClock = fmt.Errorf("%w: this node's clock is wrong", store.ErrUnavailable)

// ClockTrouble says what is wrong with the database's clock, which the nodes agree
// about; nil for nothing.
func (s *Store) ClockTrouble() error {
	if s.clocks == nil || s.clocks.c == nil {
		return nil
	}
	if k := s.clocks.state(); k.DatabaseWrong {
		return &DatabaseClockError{Ahead: -k.ahead, Nodes: k.nodes + 1}
	}
	return nil
}

// ClockWrong reports whether this machine's clock is wrong as the other nodes see it.
func (s *Store) ClockWrong() bool { return s.lease != nil && !s.clocks.trusted() }

// ClockOf is what a node that serves said of its clock last.
type ClockOf struct {
	Ahead time.Duration // of the database's
	Wrong bool          // as most of the nodes see it
}

// Clocks returns how far the clocks of the nodes that live are ahead of the
// database's, and which of them are wrong; and how far this machine's is.
func (s *Store) Clocks(ctx context.Context, machine func() time.Time) (nodes []ClockOf, own time.Duration, err error) {
	began := machine()
	theirs, err := one(ctx, s, func(r scanner) (n int64, err error) { return n, r.Scan(&n) }, `SELECT `+databaseTime)
	if err != nil {
		return nil, 0, err
	}
	own = began.Add(machine().Sub(began) / 2).Sub(time.Unix(0, theirs))
	list, err := all(ctx, s, s.other, func(r scanner) (d time.Duration, err error) { return d, r.Scan((*int64)(&d)) },
		`SELECT lead + service FROM clocks WHERE abs(at - (`+databaseTime+`)) < $1 ORDER BY name`, int64(s.o.Lease))
	for i, ahead := range list {
		others := slices.Delete(slices.Clone(list), i, i+1)
		nodes = append(nodes, ClockOf{Ahead: ahead, Wrong: clock.Judge(ahead, others).Wrong})
	}
	return nodes, own, err
}
