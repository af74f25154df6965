package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// dropWeeks drops the weeks before one, all of whose events are past the
// retention. Sweep deletes rows one by one, to the hour; so a week is empty when
// its time has come, or Sweep is far behind, and this is faster. A week in which
// something is open is left to Sweep. Of several nodes one does it, which a row
// names: a detachment may take hours, for which no transaction may stay open. Nodes up
// to schema version 1 do not look there; of two that detach a table one fails, and
// tries again.
func (s *Store) dropWeeks(ctx context.Context, before int64) error {
	run, _, err := s.lease.current()
	if err != nil {
		return nil // the run that comes next does it
	}
	mine, err := s.takeTurn(ctx, "weeks", run)
	if err != nil || !mine {
		return err
	}
	defer s.giveTurn("weeks", run)
	config, err := s.o.connConfig("partitions")
	if err != nil {
		return err
	}
	config.RuntimeParams["statement_timeout"], config.RuntimeParams["lock_timeout"] = statementTimeout, lockTimeout
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	weeks, err := weeksThere(ctx, c, before)
	if err != nil {
		return err
	}
	for _, n := range weeks {
		if err := s.dropWeek(ctx, c, n); err != nil {
			return fmt.Errorf("the week of %s: %w", weekBound(n).Time().Format(time.DateOnly), err)
		}
	}
	return nil
}

// takeTurn has the run do what one does for all, unless a run that lives does.
func (s *Store) takeTurn(ctx context.Context, purpose string, run int64) (mine bool, err error) {
	tag, err := s.other.Exec(ctx, `UPDATE locks l SET run = $1 WHERE purpose = $2 AND
		(run IN (0, $1) OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = l.run AND r.taken_at = 0))`, run, purpose)
	return tag.RowsAffected() == 1, err
}

// giveTurn lets others do it. Who cannot be told finds out when the run is over.
func (s *Store) giveTurn(purpose string, run int64) {
	ctx, cancel := s.look(context.WithoutCancel(s.stop))
	defer cancel()
	if _, err := s.other.Exec(ctx, `UPDATE locks SET run = 0 WHERE purpose = $2 AND run = $1`, run, purpose); err != nil {
		s.log.Warn("what one node does for all is done by this one alone until it stops", "what", purpose, "error", err)
	}
}

// weeksThere are the weeks before one of which a table is left, oldest first;
// detached, too.
func weeksThere(ctx context.Context, c *pgx.Conn, before int64) (weeks []int64, err error) {
	rows, err := c.Query(ctx, `SELECT relname::text FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' AND relname ~ '^(events|deliveries)_[0-9]{8}$'`, schema)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	if err := eachRow(rows, func(r scanner) error {
		var name string
		err := r.Scan(&name)
		there[name] = true
		return err
	}); err != nil {
		return nil, err
	}
	for n := range before {
		if there[partitionName("events", n)] || there[partitionName("deliveries", n)] {
			weeks = append(weeks, n)
		}
	}
	return weeks, nil
}

func (s *Store) dropWeek(ctx context.Context, c *pgx.Conn, n int64) error {
	from, to := int64(weekBound(n)), int64(weekBound(n+1))
	var open bool
	if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM due WHERE id >= $1 AND id < $2 OR late AND event >= $1 AND event < $2) OR EXISTS (SELECT 1 FROM spared WHERE event >= $1 AND event < $2)`, from, to).Scan(&open); err != nil || open {
		return err
	}
	var attached bool
	if err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass($1))`, schema+"."+partitionName("events", n)).Scan(&attached); err != nil {
		return err
	}
	if attached {
		if err := forgetWeek(ctx, c, n); err != nil {
			return err
		}
	}
	s.parts.forget(n)
	for _, table := range partitioned {
		if err := detach(ctx, c, table, n); err != nil {
			return err
		}
	}
	for _, table := range partitioned {
		if _, err := c.Exec(ctx, `DROP TABLE IF EXISTS `+partitionName(table, n)); err != nil {
			return err
		}
	}
	return s.dropKept(ctx, n)
}

// forgetWeek removes what points to a week's events from other tables, and keeps
// their highest id from being forgotten.
func forgetWeek(ctx context.Context, c *pgx.Conn, n int64) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing to undo once it is committed
	for _, query := range []string{
		`DELETE FROM idempotency i USING ` + partitionName("events", n) + ` e WHERE e.key <> '' AND i.tenant = e.tenant AND i.kind = 1 AND i.key = e.key AND i.event = e.id`,
		`INSERT INTO meta (key, value) SELECT 'last_id', greatest((SELECT max(id + deliveries) FROM ` + partitionName("events", n) + `), 0)
			ON CONFLICT (key) DO UPDATE SET value = greatest(meta.value, excluded.value)`,
	} {
		if _, err := tx.Exec(ctx, query); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// detach takes a week's table out of the history without keeping anybody from
// it. One whose detachment was cut short is detached to the end.
func detach(ctx context.Context, c *pgx.Conn, table string, n int64) error {
	name := partitionName(table, n)
	var pending bool
	err := c.QueryRow(ctx, `SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = to_regclass($1)`, schema+"."+name).Scan(&pending)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // detached, or gone
	}
	if err != nil {
		return err
	}
	how := "CONCURRENTLY"
	if pending {
		how = "FINALIZE"
	}
	// The simple protocol, as this must not be within a transaction.
	_, err = c.Exec(ctx, `ALTER TABLE `+table+` DETACH PARTITION `+name+` `+how, pgx.QueryExecModeSimpleProtocol)
	return err
}

func (p *partitions) forget(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.have, n)
}
