package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthorn/posthorn/internal/store"
)

// oldest is the version of PostgreSQL that is needed, as server_version_num.
const oldest = 150000

// unfit is why a database cannot be used, as a sentence that names the fix.
type unfit struct {
	sentence string
	err      error // what it is for programs, or nil
}

func (u *unfit) Error() string { return u.sentence }
func (u *unfit) Unwrap() error { return u.err }

// nature is what is looked at before anything is made.
type nature struct {
	pid              uint32
	version          int
	shown, encoding  string
	role, database   string
	standby, reading bool // it takes no writes; so does each session of this role
	mayMake          bool // a schema
	schema           bool // ours, or one of its name, is there
	mayUse           bool // it
	foreign          string
}

// look reads it in one statement, with no right on anything.
func look(ctx context.Context, c *pgx.Conn) (n nature, err error) {
	err = c.QueryRow(ctx, `
		SELECT pg_backend_pid(), current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding'),
			current_user, current_database(), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
			has_database_privilege(current_database(), 'CREATE'), s.oid IS NOT NULL,
			coalesce(has_schema_privilege(s.oid, 'USAGE'), false),
			coalesce((SELECT min(relname) FROM pg_class WHERE relnamespace = s.oid AND relkind IN ('r', 'p', 'v', 'm', 'f')
				AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = s.oid AND relname = 'goose_db_version')), '')
		FROM (VALUES (1)) AS one LEFT JOIN pg_namespace s ON s.nspname = '`+schema+`'`).
		Scan(&n.pid, &n.version, &n.shown, &n.encoding, &n.role, &n.database, &n.standby, &n.reading, &n.mayMake, &n.schema, &n.mayUse, &n.foreign)
	return n, err
}

// check returns an unfit, or nil for a database that can be used; makes says that the
// schema is made or changed in it.
func (n *nature) check(makes bool) error {
	ident := pgx.Identifier{n.role}.Sanitize()
	switch {
	case n.version < oldest:
		return &unfit{fmt.Sprintf("the server is PostgreSQL %s, and 15 or newer is needed; upgrade it", n.shown), nil}
	case n.encoding != "UTF8":
		return &unfit{fmt.Sprintf("its encoding is %s, which cannot keep all texts, and UTF8 is needed; make one by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and give its name", n.encoding), nil}
	case n.standby:
		return &unfit{"the server is a standby, which takes no writes; give the address of the primary, or of all servers with target_session_attrs=read-write", store.ErrUnavailable}
	case n.reading:
		return &unfit{fmt.Sprintf("it takes no writes (default_transaction_read_only); ALTER DATABASE %s RESET default_transaction_read_only, or the same of the role %s", pgx.Identifier{n.database}.Sanitize(), ident), store.ErrUnavailable}
	case n.foreign != "":
		return &unfit{fmt.Sprintf("its schema %s is another program's (it has %q and none of our tables); give Posthorn a database of its own", schema, n.foreign), nil}
	case n.schema && !n.mayUse:
		return &unfit{fmt.Sprintf("the role %s may not use the schema %s; give the role that made it, or GRANT its rights", n.role, schema), nil}
	case makes && !n.schema && !n.mayMake:
		return &unfit{fmt.Sprintf("the role %s may not make the schema %s; run once, as a role that may: GRANT CREATE ON DATABASE %s TO %s", n.role, schema, pgx.Identifier{n.database}.Sanitize(), ident), nil}
	}
	return nil
}

// connectFault puts into words why there is no connection, where the server's own words
// name no fix. Other errors come back as they are.
func connectFault(err error, c *pgx.ConnConfig) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch {
	case e.Code == "3D000":
		return &unfit{fmt.Sprintf("there is no database %q; make it by createdb --encoding=UTF8 --template=template0 %s", c.Database, c.Database), err}
	case e.Code == "28P01":
		return &unfit{fmt.Sprintf("the password of the role %q is not taken; see POSTHORN_STORE or PGPASSFILE", c.User), err}
	case e.Code == "28000" && strings.Contains(e.Message, "does not exist"):
		return &unfit{fmt.Sprintf("there is no role %q; make it by createuser %s", c.User, c.User), err}
	case e.Code == "53300":
		return &unfit{"the server, the database or the role has as many connections as it may; raise max_connections or CONNECTION LIMIT, or end some", fmt.Errorf("%w: %w", store.ErrUnavailable, err)}
	case e.Code == codeNotAllowed:
		return &unfit{fmt.Sprintf("the role %q may not connect; run as a role that may: GRANT CONNECT ON DATABASE %s TO %s", c.User, pgx.Identifier{c.Database}.Sanitize(), pgx.Identifier{c.User}.Sanitize()), err}
	}
	return err
}
