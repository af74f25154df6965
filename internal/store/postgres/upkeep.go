package postgres

import (
	"context"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

var _ store.Tended = (*Store)(nil)

// Upkeep implements [store.Tended], by the database's clock alone.
func (s *Store) Upkeep(ctx context.Context) (store.Upkeep, error) {
	return one(ctx, s, func(r scanner) (u store.Upkeep, err error) {
		var swept, ahead float64
		err = r.Scan(&u.Nodes, &swept, &ahead)
		u.Swept, u.Ahead = time.Duration(swept*float64(time.Second)), time.Duration(ahead*float64(time.Second))
		return u, err
	}, `SELECT (SELECT count(*) FROM runs WHERE taken_at = 0)::int,
		coalesce(extract(epoch FROM clock_timestamp() - (SELECT done_at FROM locks WHERE purpose = 'sweep')), 1e8)::float8,
		coalesce(extract(epoch FROM (SELECT min(last) FROM (SELECT max(to_date(right(c.relname, 8), 'YYYYMMDD')) AS last
			FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent IN ('events'::regclass, 'deliveries'::regclass)
			AND c.relname ~ '_[0-9]{8}$' GROUP BY i.inhparent) weeks) + interval '7 days' - clock_timestamp() AT TIME ZONE 'UTC'), -1e8)::float8`)
}

// Strangers is who else may come near the database.
type Strangers struct {
	// Public tells that every role of the server may connect, and Temporary that it may
	// make temporary tables.
	Public, Temporary bool
	// Logins are other roles that may log in and connect, at most 1,000 counted;
	// superusers and those that belong to the schema's owner are none.
	Logins int
	// Reach are those of them that have USAGE on the schema and may not write its rows:
	// they are no nodes, and can lock its tables. At most ten.
	Reach []string
}

// LookForStrangers finds them.
func (s *Store) LookForStrangers(ctx context.Context) (Strangers, error) {
	return one(ctx, s, func(r scanner) (f Strangers, err error) {
		return f, r.Scan(&f.Public, &f.Temporary, &f.Logins, &f.Reach)
	}, `WITH others AS MATERIALIZED (
			SELECT r.oid, r.rolname FROM pg_roles r, pg_namespace n WHERE n.nspname = $1 AND r.rolcanlogin AND NOT r.rolsuper
			AND r.rolname <> current_user AND NOT pg_has_role(r.oid, n.nspowner, 'MEMBER')
			AND has_database_privilege(r.oid, current_database(), 'CONNECT') AND NOT has_table_privilege(r.oid, 'posthorn.due', 'UPDATE') LIMIT 1000)
		SELECT has_database_privilege('public', current_database(), 'CONNECT'), has_database_privilege('public', current_database(), 'TEMPORARY'),
			(SELECT count(*) FROM others)::int,
			ARRAY(SELECT rolname::text FROM others WHERE has_schema_privilege(oid, $1, 'USAGE') ORDER BY rolname LIMIT 10)`, schema)
}
