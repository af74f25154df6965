package postgres

import (
	"context"

	"github.com/posthorn/posthorn/internal/store"
)

var (
	endpointStats = `SELECT (s.hour - $1) / $2, ` + store.SumColumns + ` FROM endpoints p JOIN endpoint_stats s ON s.endpoint = p.id
		WHERE p.id = $5 AND p.tenant = $4 AND s.hour >= $1 AND s.hour < $3 GROUP BY 1 ORDER BY 1`

	tenantStats = `SELECT (s.hour - $1) / $2, ` + store.SumColumns + ` FROM (
			SELECT id FROM endpoints WHERE tenant = $4 AND deleted_at = 0
			UNION ALL SELECT id FROM endpoints WHERE tenant = $4 AND deleted_at <> 0
		) p JOIN endpoint_stats s ON s.endpoint = p.id
		WHERE s.hour >= $1 AND s.hour < $3 GROUP BY 1 ORDER BY 1`
)

// Stats implements [store.Statistics].
func (s *Store) Stats(ctx context.Context, f store.StatsFilter) (slots []store.Slot, err error) {
	query, args := tenantStats, []any{f.From, f.Step, f.Until, f.Tenant}
	if f.Endpoint != 0 {
		query, args = endpointStats, append(args, f.Endpoint)
	}
	err = s.snapshot(ctx, func(q querier) error {
		slots, err = all(ctx, s, q, func(r scanner) (slot store.Slot, err error) {
			err = r.Scan(append([]any{&slot.Start}, slot.Scan()...)...)
			slot.Start = f.From + slot.Start*f.Step
			return slot, err
		}, query, args...)
		return err
	})
	return slots, err
}
