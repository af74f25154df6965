package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errPooler: connections do not lead to the server itself.
var errPooler = errors.New("a pooler such as PgBouncer stands before it; a node needs the server's own address, for it hears of changes by LISTEN and ends statements of its own that it lost sight of. Programs that only call posthorn.publish may go through the pooler")

// checkDirect refuses a pooler: the process that answers is not the one that the
// connection was given to.
func (o *Options) checkDirect(ctx context.Context) error {
	config, err := o.connConfig("check")
	if err != nil {
		return err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // a prepared statement would stay in the pooler
	c, err := pgx.ConnectConfig(ctx, config)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && strings.Contains(e.Message, "unsupported startup parameter") {
		return errPooler // what PgBouncer says of search_path
	}
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var pid uint32
	if err := c.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		return err
	}
	if pid != c.PgConn().PID() {
		return errPooler
	}
	return nil
}
