package sqlite

import (
	"context"
	"database/sql"
)

// The reads that deliveries wait for. They are prepared when the file is opened:
// SQLite takes longer to prepare one than to run it.
const (
	selectTarget      = `SELECT ` + endpointColumns + ` FROM endpoints WHERE id = ?`
	selectTargetState = `SELECT
		EXISTS (SELECT 1 FROM tenants WHERE id = ? AND suspended_at <> 0),
		EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_parked WHERE place = 3 AND endpoint = ?)`
	selectSigning = `SELECT id, key_id, box, created_at, expires_at FROM endpoint_secrets
		WHERE endpoint = ? AND kind = 'signing' ORDER BY expires_at <> 0, id DESC`
	selectHealth  = `SELECT ` + healthColumns + ` FROM endpoint_health WHERE endpoint = ?`
	selectPayload = `SELECT body FROM payloads WHERE event = ?`
)

// prepared are statements of the readers' pool, by their text. It is not changed
// once it is made.
type prepared map[string]*sql.Stmt

func prepare(ctx context.Context, readers *sql.DB) (prepared, error) {
	p := make(prepared)
	for _, query := range []string{selectTarget, selectTargetState, selectSigning, selectHealth, selectPayload, selectNewer, selectOlder} {
		s, err := readers.PrepareContext(ctx, query)
		if err != nil {
			return nil, err // closing the readers closes what was prepared
		}
		p[query] = s
	}
	return p, nil
}

// within are the prepared statements in a transaction of the readers' pool.
func (p prepared) within(tx *sql.Tx) querier { return preparedTx{tx, p} }

type preparedTx struct {
	*sql.Tx
	prepared prepared
}

func (q preparedTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := q.prepared[query]; s != nil {
		return q.StmtContext(ctx, s).QueryContext(ctx, args...)
	}
	return q.Tx.QueryContext(ctx, query, args...)
}

func (q preparedTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := q.prepared[query]; s != nil {
		return q.StmtContext(ctx, s).QueryRowContext(ctx, args...)
	}
	return q.Tx.QueryRowContext(ctx, query, args...)
}
