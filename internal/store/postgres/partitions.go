package postgres

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

// The history is cut into partitions of a week by id, which is time.
const week = 7 * 24 * time.Hour

// partitioned are the tables of the history.
var partitioned = []string{"events", "deliveries"}

// ahead is how far ahead the weeks are made. ANALYZE or VACUUM of the history may hold
// the lock under which a week is attached for hours: when the week begins it must be
// there, even after an outage of all nodes for a month.
const ahead = 5 * week

// partitions remembers which weeks are there. The publisher and Sweep make them; a
// week that was dropped is over for good.
type partitions struct {
	mu     sync.Mutex // never held while the database is asked
	have   map[int64]bool
	why    error     // why the last week that somebody waited for could not be made
	failed time.Time // when that was
	told   time.Time // when the log said so
}

// roomRetry is how long whoever needs a week that could not be made is refused
// without another try.
const roomRetry = time.Second

func (p *partitions) has(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have[n]
}

func (p *partitions) note(weeks map[int64]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have == nil {
		p.have = map[int64]bool{}
	}
	maps.Copy(p.have, weeks)
}

// refused is why a week could not be made just now; nil when it may be tried.
func (p *partitions) refused() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil || time.Since(p.failed) > roomRetry {
		return nil
	}
	return p.why
}

// refuse notes that a week could not be made. tell says that the log should say so:
// not more than once a minute.
func (p *partitions) refuse(why error) (tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why, p.failed = why, time.Now()
	if tell = p.told.IsZero() || time.Since(p.told) > upkeepRetry; tell {
		p.told = p.failed
	}
	return tell
}

// idEpoch is the time of the first id.
var idEpoch = posthorn.ID(0).Time()

func weekOf(id posthorn.ID) int64 { return int64(id.Time().Sub(idEpoch) / week) }

func weekBound(n int64) posthorn.ID {
	return posthorn.MakeID(idEpoch.Add(time.Duration(n)*week), 0, 0)
}

// weekLayout is how a table's name names its week: by the first day.
const weekLayout = "20060102"

func partitionName(table string, n int64) string {
	return fmt.Sprintf("%s_%s", table, weekBound(n).Time().Format(weekLayout))
}

// ensurePartitions makes the partitions that ids from first to last go into. It waits
// for no lock that lasts, and is then [store.ErrUnavailable], at once for a while.
func (s *Store) ensurePartitions(ctx context.Context, first, last posthorn.ID) error {
	for n := weekOf(first); n <= weekOf(last); n++ {
		if s.parts.has(n) {
			continue
		}
		if err := s.parts.refused(); err != nil {
			return err
		}
		if err := s.ensureWeek(ctx, n); err != nil {
			if s.parts.refuse(err) {
				s.log.Error("the history has no table for new events, and none can be made now: publishing is refused until it can", "error", err)
			}
			return err
		}
	}
	return nil
}

// ensureWeek makes a week's tables beside the history and attaches them, which
// stops nobody from reading or writing the other weeks. Of several nodes one makes
// them, under the row that make_partition locks. Attaching takes SHARE UPDATE EXCLUSIVE of
// the history, as ANALYZE, VACUUM and the detaching of weeks do: for that it waits
// attachTimeout at most.
func (s *Store) ensureWeek(ctx context.Context, n int64) error {
	if s.parts.has(n) {
		return nil
	}
	weeks, err := s.weeks(ctx)
	if err != nil {
		return err
	}
	s.parts.note(weeks)
	if weeks[n] {
		return nil // another node made it
	}
	err = s.write(ctx, func(tx *txn) error {
		if err := tx.exec(`SET LOCAL lock_timeout = ` + makersTimeout); err != nil {
			return err
		}
		if err := tx.exec(`SELECT 1 FROM locks WHERE purpose = 'partitions' FOR UPDATE`); err != nil {
			return err
		}
		if err := tx.exec(`SET LOCAL lock_timeout = ` + attachTimeout); err != nil {
			return err
		}
		for _, table := range partitioned {
			if err := tx.exec(`SELECT make_partition($1, $2, $3, $4)`, table, partitionName(table, n), int64(weekBound(n)), int64(weekBound(n+1))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make the history's partition of %s: %w", weekBound(n).Time().Format(time.DateOnly), err)
	}
	s.parts.note(map[int64]bool{n: true})
	return nil
}

// How long the making of a week waits for another node that makes one, and for what
// locks the history.
const (
	makersTimeout = `'2s'`
	attachTimeout = `'250ms'`
)

// weeks are those that have all their tables, attached to the history.
func (s *Store) weeks(ctx context.Context) (map[int64]bool, error) {
	names, err := all(ctx, s, s.other, func(r scanner) (name string, err error) { return name, r.Scan(&name) },
		`SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent IN ('events'::regclass, 'deliveries'::regclass) AND NOT i.inhdetachpending`)
	if err != nil {
		return nil, err
	}
	tables := map[int64]int{}
	for _, name := range names {
		if n, ok := weekNamed(name); ok {
			tables[n]++
		}
	}
	weeks := map[int64]bool{}
	for n, count := range tables {
		if count == len(partitioned) {
			weeks[n] = true
		}
	}
	return weeks, nil
}

// weekNamed is the week of a table of the history.
func weekNamed(name string) (n int64, ok bool) {
	_, date, _ := strings.Cut(name, "_")
	at, err := time.Parse(weekLayout, date)
	return weekOf(posthorn.MakeID(at, 0, 0)), err == nil
}

// HistoryUntil implements [store.Partitioned].
func (s *Store) HistoryUntil(ctx context.Context, now time.Time) (time.Time, error) {
	weeks, err := s.weeks(ctx)
	if err != nil || len(weeks) == 0 {
		return time.Time{}, err
	}
	n := weekOf(posthorn.MakeID(now, 0, 0))
	if !weeks[n] {
		return now, nil
	}
	for weeks[n] {
		n++
	}
	return weekBound(n).Time(), nil
}

// makePartition are the statements that make a week's table and attach it. The
// CHECK spares the attachment a look at the rows.
func makePartition(table string, n int64) []string {
	name := partitionName(table, n)
	return []string{
		fmt.Sprintf(`CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS, CHECK (id >= %d AND id < %d))`, name, table, weekBound(n), weekBound(n+1)),
		fmt.Sprintf(`ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%d) TO (%d)`, table, name, weekBound(n), weekBound(n+1)),
	}
}

// upkeepEvery is how often partitions are made ahead and old ones dropped, and
// upkeepRetry how soon again when they could not be made.
const (
	upkeepEvery = time.Hour
	upkeepRetry = time.Minute
)

// keepPartitions makes the partitions of the weeks to come, and drops those of which
// all events may go: they are below a bound, 0 for none. What cannot be made now is
// tried again: there are others for weeks.
func (s *Store) keepPartitions(ctx context.Context, now time.Time, gone posthorn.ID) {
	u := &s.upkeep
	rests := func(since time.Time, pause time.Duration) bool { d := now.Sub(since); return d >= 0 && d < pause }
	hour := !rests(u.parts, upkeepEvery)
	if !hour && (!u.late || rests(u.tried, upkeepRetry)) {
		return
	}
	err := s.makeAhead(ctx, now)
	if err != nil && s.stop.Err() == nil {
		s.log.Warn("the history's tables of the weeks to come were not made; trying again in a minute", "error", err)
	}
	u.tried, u.late = now, err != nil
	if !hour {
		return
	}
	u.parts = now
	// A week later than could be: Sweep deletes the rows one by one, and counts them.
	if before := weekOf(gone) - 1; before > 0 {
		s.dropOld(before)
	}
}

// makeAhead makes the weeks from now on, the next ones first.
func (s *Store) makeAhead(ctx context.Context, now time.Time) error {
	for n := weekOf(posthorn.MakeID(now, 0, 0)); n <= weekOf(posthorn.MakeID(now.Add(ahead), 0, 0)); n++ {
		if err := s.ensureWeek(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// dropOld drops the weeks before one. It may take long and has no deadline, so
// nobody waits for it.
func (s *Store) dropOld(before int64) {
	if !s.upkeep.dropping.CompareAndSwap(false, true) {
		return
	}
	s.beside(func() {
		defer s.upkeep.dropping.Store(false)
		var owner bool // only the tables' owner may detach one that has rows
		err := s.other.QueryRow(s.stop, `SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'events'::regclass`).Scan(&owner)
		switch {
		case err != nil:
		case owner:
			err = s.dropWeeks(s.stop, before)
		default:
			err = s.dropEmpty(s.stop, before)
		}
		if err != nil && s.stop.Err() == nil {
			s.log.Warn("old partitions were not dropped; trying again in an hour", "error", err)
		}
	})
}

// dropEmpty drops the weeks before one in which Sweep has left nothing. It waits for
// nobody: what is in use is dropped the next time.
func (s *Store) dropEmpty(ctx context.Context, before int64) error {
	names, err := all(ctx, s, s.other, func(r scanner) (name string, err error) { return name, r.Scan(&name) },
		`SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent IN ('events'::regclass, 'deliveries'::regclass) ORDER BY 1`)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, table := range partitioned {
		for n := range before {
			old[partitionName(table, n)] = true
		}
	}
	for _, name := range names {
		if !old[name] {
			continue
		}
		if err := s.write(ctx, func(tx *txn) error {
			if err := tx.exec(`SET LOCAL lock_timeout = '200ms'`); err != nil {
				return err
			}
			return tx.exec(`SELECT drop_partition($1)`, name) // one that is used stays
		}); err != nil {
			return err
		}
	}
	return nil
}
