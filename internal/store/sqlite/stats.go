package sqlite

import (
	"context"

	"github.com/posthorn/posthorn/internal/store"
)

// addStats adds counts to an endpoint's hour.
func (tx *txn) addStats(k store.HourKey, s *store.Hour) error {
	b := &s.Buckets
	return tx.exec(`INSERT INTO endpoint_stats (endpoint, hour, ok, failed, succeeded, exhausted, canceled, expired, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (endpoint, hour) DO UPDATE SET ok = ok + excluded.ok, failed = failed + excluded.failed,
		succeeded = succeeded + excluded.succeeded, exhausted = exhausted + excluded.exhausted,
		canceled = canceled + excluded.canceled, expired = expired + excluded.expired,
		b0 = b0 + excluded.b0, b1 = b1 + excluded.b1, b2 = b2 + excluded.b2, b3 = b3 + excluded.b3, b4 = b4 + excluded.b4,
		b5 = b5 + excluded.b5, b6 = b6 + excluded.b6, b7 = b7 + excluded.b7, b8 = b8 + excluded.b8, b9 = b9 + excluded.b9`,
		k.Endpoint, k.Hour, s.OK, s.Failed, s.Succeeded, s.Exhausted, s.Canceled, s.Expired,
		b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9])
}

// selectOwn are all endpoints of a tenant that have rows.
const selectOwn = `SELECT id FROM endpoints INDEXED BY endpoints_tenant WHERE tenant = ?1 AND deleted_at = 0
	UNION ALL SELECT id FROM endpoints INDEXED BY endpoints_gone WHERE tenant = ?1 AND deleted_at <> 0`

// Endpoints come first: their hours are one range each of the primary key.
var (
	endpointStats = `SELECT (s.hour - ?1) / ?2, ` + store.SumColumns + ` FROM endpoints p CROSS JOIN endpoint_stats s ON s.endpoint = p.id
		WHERE p.id = ?5 AND p.tenant = ?4 AND s.hour >= ?1 AND s.hour < ?3 GROUP BY 1 ORDER BY 1`

	endpointsStats = `SELECT (s.hour - ?2) / ?3, ` + store.SumColumns + ` FROM json_each(?1) p CROSS JOIN endpoint_stats s ON s.endpoint = p.value
		WHERE s.hour >= ?2 AND s.hour < ?4 GROUP BY 1 ORDER BY 1`
)

// Stats implements [store.Statistics].
func (s *Store) Stats(ctx context.Context, f store.StatsFilter) ([]store.Slot, error) {
	if s.role == Serve {
		// What was counted last is added up first. On a disk that cannot be written
		// to, the last seconds are missing from the answer.
		_ = s.writer.do(ctx, func(tx *txn) error { return tx.mergeStats(0) })
	}
	if f.Endpoint != 0 {
		return all(ctx, s.readers, scanSlot(&f), endpointStats, f.From, f.Step, f.Until, f.Tenant, f.Endpoint)
	}
	end, err := s.walks.Begin(ctx, f.Tenant)
	if err != nil {
		return nil, err
	}
	defer end()
	var own []int64
	if err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) (err error) {
		own, err = all(ctx, s.reader(ctx), scanInt, selectOwn, f.Tenant)
		return err
	}); err != nil {
		return nil, err
	}
	var sum []store.Slot
	for endpoints := range f.SlicesOf(own) {
		if err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) error {
			slots, err := all(ctx, s.reader(ctx), scanSlot(&f), endpointsStats, encodeIDs(endpoints), f.From, f.Step, f.Until)
			sum = store.AddSlots(sum, slots)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func scanSlot(f *store.StatsFilter) func(scanner) (store.Slot, error) {
	return func(r scanner) (slot store.Slot, err error) {
		err = r.Scan(append([]any{&slot.Start}, slot.Scan()...)...)
		slot.Start = f.From + slot.Start*f.Step
		return slot, err
	}
}
