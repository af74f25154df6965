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

// checkFit refuses what cannot be used, in words, before anything is made: a database that
// is of another kind, and a pooler, where the process that answers is not the one that the
// connection was given to. makes says that the schema may be made.
func (o *Options) checkFit(ctx context.Context, makes bool) error {
	config, err := o.connConfig("check")
	if err != nil {
		return err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // a prepared statement would stay in the pooler
	config.RuntimeParams["client_encoding"] = "UTF8"              // else a database of another encoding is a riddle
	c, err := pgx.ConnectConfig(ctx, config)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && strings.Contains(e.Message, "unsupported startup parameter") {
		return errPooler // what PgBouncer says of search_path
	}
	if err != nil {
		return connectFault(err, config)
	}
	defer c.Close(context.WithoutCancel(ctx))
	n, err := look(ctx, c)
	switch {
	case err != nil:
		return err
	case n.pid != c.PgConn().PID():
		return errPooler
	}
	return n.check(makes)
}
