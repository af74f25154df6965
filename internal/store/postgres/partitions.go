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

// partitionLock is the advisory lock under which partitions are made and
// dropped.
const partitionLock = 0x706f7374_00000002

// upkeepEvery is how often partitions are made ahead and old ones dropped.
const upkeepEvery = time.Hour

// keepPartitions makes the next week's partitions, and drops those that are past
// the retention and empty.
func (s *Store) keepPartitions(ctx context.Context, now time.Time, keep time.Duration) error {
	if since := now.Sub(s.upkeep.parts); since >= 0 && since < upkeepEvery {
		return nil
	}
	if err := s.ensureWeek(ctx, weekOf(posthorn.MakeID(now.Add(week), 0, 0))); err != nil {
		return err
	}
	if keep > 0 {
		if err := s.dropPartitions(ctx, weekOf(posthorn.MakeID(now.Add(-keep-2*week), 0, 0))); err != nil {
			return err
		}
	}
	s.upkeep.parts = now
	return nil
}

// dropPartitions drops the partitions up to a week, if nothing is in them. It
// waits for nobody: what is in use is dropped the next time.
func (s *Store) dropPartitions(ctx context.Context, last int64) error {
	names, err := all(ctx, s, s.other, func(r scanner) (name string, err error) { return name, r.Scan(&name) },
		`SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent IN ('events'::regclass, 'deliveries'::regclass) ORDER BY 1`)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, table := range partitioned {
		for n := last; n > last-520 && n >= 0; n-- {
			old[partitionName(table, n)] = true
		}
	}
	for _, name := range names {
		if !old[name] {
			continue
		}
		err := s.write(ctx, func(tx *txn) error {
			if err := tx.exec(`SET LOCAL lock_timeout = '200ms'`); err != nil {
				return err
			}
			return tx.exec(`SELECT drop_partition($1)`, name) // one that is used stays
		})
		if err != nil {
			s.log.Warn("an old partition was not dropped; trying again in an hour", "partition", name, "error", err)
			return nil
		}
	}
	return nil
}
