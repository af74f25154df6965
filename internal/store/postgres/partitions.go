package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

// The history is cut into partitions of a week by id, which is time.
const week = 7 * 24 * time.Hour

// partitioned are the tables of the history.
var partitioned = []string{"events", "deliveries"}

// partitions remembers which weeks are there. Only the publisher and Sweep make
// them; a week that was dropped is over for good.
type partitions struct {
	mu   sync.Mutex
	have map[int64]bool
}

// idEpoch is the time of the first id.
var idEpoch = posthorn.ID(0).Time()

func weekOf(id posthorn.ID) int64 { return int64(id.Time().Sub(idEpoch) / week) }

func weekBound(n int64) posthorn.ID {
	return posthorn.MakeID(idEpoch.Add(time.Duration(n)*week), 0, 0)
}

func partitionName(table string, n int64) string {
	return fmt.Sprintf("%s_%s", table, weekBound(n).Time().Format("20060102"))
}

// ensure makes the partitions that ids from first to last go into.
func (s *Store) ensurePartitions(ctx context.Context, first, last posthorn.ID) error {
	for n := weekOf(first); n <= weekOf(last); n++ {
		if err := s.ensureWeek(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// ensureWeek makes a week's tables beside the history and attaches them, which
// stops nobody from reading or writing the other weeks.
func (s *Store) ensureWeek(ctx context.Context, n int64) error {
	s.parts.mu.Lock()
	defer s.parts.mu.Unlock()
	if s.parts.have[n] {
		return nil
	}
	err := s.write(ctx, func(tx *txn) error {
		if err := tx.exec(`SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
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
	if s.parts.have == nil {
		s.parts.have = map[int64]bool{}
	}
	s.parts.have[n] = true
	return nil
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

// partitionLock is the advisory lock under which partitions are made and
// dropped.
const partitionLock = 0x706f7374_00000002

// upkeepEvery is how often partitions are made ahead and old ones dropped.
const upkeepEvery = time.Hour

// keepPartitions makes the next week's partitions, and drops those of which all
// events may go: they are below a bound, 0 for none.
func (s *Store) keepPartitions(ctx context.Context, now time.Time, gone posthorn.ID) error {
	if since := now.Sub(s.upkeep.parts); since >= 0 && since < upkeepEvery {
		return nil
	}
	if err := s.ensureWeek(ctx, weekOf(posthorn.MakeID(now.Add(week), 0, 0))); err != nil {
		return err
	}
	s.upkeep.parts = now
	// A week later than could be: Sweep deletes the rows one by one, and counts them.
	if before := weekOf(gone) - 1; before > 0 {
		s.dropOld(before)
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
