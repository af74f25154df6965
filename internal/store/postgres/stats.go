package postgres

import (
	"context"

	"github.com/posthorn/posthorn/internal/store"
)

// selectOwn are all endpoints of a tenant that have rows.
const selectOwn = `SELECT id FROM endpoints WHERE tenant = $1 AND deleted_at = 0 UNION ALL SELECT id FROM endpoints WHERE tenant = $1 AND deleted_at <> 0`

var (
	endpointStats = `SELECT (s.hour - $1) / $2, ` + store.SumColumns + ` FROM endpoints p JOIN endpoint_stats s ON s.endpoint = p.id
		WHERE p.id = $5 AND p.tenant = $4 AND s.hour >= $1 AND s.hour < $3 GROUP BY 1 ORDER BY 1`

	endpointsStats = `SELECT (s.hour - $1) / $2, ` + store.SumColumns + ` FROM endpoint_stats s
		WHERE s.endpoint = ANY ($4) AND s.hour >= $1 AND s.hour < $3 GROUP BY 1 ORDER BY 1`
)

// Stats implements [store.Statistics].
func (s *Store) Stats(ctx context.Context, f store.StatsFilter) (sum []store.Slot, err error) {
	if f.Endpoint != 0 {
		return all(ctx, s, s.other, scanSlot(&f), endpointStats, f.From, f.Step, f.Until, f.Tenant, f.Endpoint)
	}
	end, err := s.walks.Begin(ctx, f.Tenant)
	if err != nil {
		return nil, err
	}
	defer end()
	var own []int64
	if err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) (err error) {
		own, err = all(ctx, s, s.reader(ctx), scanInt, selectOwn, f.Tenant)
		return err
	}); err != nil {
		return nil, err
	}
	for endpoints := range f.SlicesOf(own) {
		if err := s.walks.Slice(ctx, f.Tenant, func(ctx context.Context) error {
			slots, err := all(ctx, s, s.reader(ctx), scanSlot(&f), endpointsStats, f.From, f.Step, f.Until, endpoints)
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
