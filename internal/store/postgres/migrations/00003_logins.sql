-- +goose Up
-- What a login without rights may do: take any advisory lock, and notify on any
-- channel that it can name. So locks are rows of a table of ours, and the channel has
-- a name that only those know who may read our tables. See ../DESIGN.md, "Whoever may
-- log in".

-- One row per thing that one does for all. It is locked for as long as that takes, or
-- names the run that does it. done_at is by this server's clock, as nodes' differ.
CREATE TABLE locks (
    purpose text        PRIMARY KEY,
    run     bigint      NOT NULL DEFAULT 0,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
INSERT INTO locks (purpose) VALUES ('partitions'), ('sweep'), ('weeks');

-- It goes into the names of the channels: 60 bits that nobody can guess.
INSERT INTO meta (key, value) VALUES ('channel', ('x' || right(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint);

-- Nodes of the former version need no more than they had.
INSERT INTO meta (key, value) VALUES ('serves_from', 1) ON CONFLICT (key) DO NOTHING;

-- Whoever makes a partition locks the row, nodes of every version: they all call this.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION make_partition(parent text, name text, low bigint, high bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = posthorn, pg_temp AS $$
BEGIN
    IF parent NOT IN ('events', 'deliveries') OR name !~ ('^' || parent || '_[0-9]{8}$') THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no partition of %L', name, parent);
    END IF;
    PERFORM 1 FROM locks WHERE purpose = 'partitions' FOR UPDATE;
    IF to_regclass('posthorn.' || name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS, CHECK (id >= %s AND id < %s))', name, parent, low, high);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', parent, name, low, high);
    END IF;
END $$;

-- publish appends an event to the outbox, within the caller's transaction, and
-- does nothing else. It returns the number of the row. Callers need EXECUTE on it
-- and USAGE on the schema, and no right on any table. The type json keeps the
-- text of data as it was given; jsonb would not. The clock is this server's: a
-- caller's transaction has no other that nodes could trust.
CREATE OR REPLACE FUNCTION publish(tenant text, type text, data json, id text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = posthorn, pg_temp AS $$
#variable_conflict use_column
DECLARE
    of    tenants%ROWTYPE;
    body  text := publish.data::text;
    at    bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;
    due   bigint := 0;
    ahead bigint;
    row   bigint;
BEGIN
    IF publish.tenant IS NULL OR publish.type IS NULL OR publish.data IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'posthorn.publish: tenant, type and data must not be null';
    END IF;
    SELECT * INTO of FROM tenants t WHERE t.name = publish.tenant AND t.deleted_at = 0;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = format('posthorn.publish: there is no tenant %L', left(publish.tenant, 64)),
            HINT = 'posthorn tenant list shows those that there are.';
    END IF;
    IF of.suspended_at <> 0 THEN
        RAISE insufficient_privilege USING MESSAGE = format('posthorn.publish: the tenant %L is suspended', publish.tenant),
            HINT = 'posthorn tenant resume ends that.';
    END IF;
    IF length(publish.type) > 256 OR publish.type !~ '^[a-z0-9]+([-_][a-z0-9]+)*(\.[a-z0-9]+([-_][a-z0-9]+)*)*$' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'posthorn.publish: type must be an event type such as cases.created';
    END IF;
    IF publish.type LIKE 'webhooks.%' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'posthorn.publish: types that begin with webhooks. are published by Posthorn alone';
    END IF;
    IF json_typeof(publish.data) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'posthorn.publish: data must be a JSON object';
    END IF;
    IF octet_length(body) > 262144 THEN
        RAISE program_limit_exceeded USING MESSAGE = format('posthorn.publish: data is %s bytes; at most 262144', octet_length(body)),
            HINT = 'Send less, such as the id of what changed.';
    END IF;
    IF publish.id !~ '^[A-Za-z0-9_-]{1,128}$' OR publish.id LIKE 'evt\_%' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'posthorn.publish: id must be 1 to 128 of A-Z, a-z, 0-9, _ and -, and must not begin with evt_; null for none';
    END IF;
    SELECT value INTO ahead FROM meta WHERE key = 'deliver_ahead';
    IF isfinite(publish.deliver_at) AND publish.deliver_at < clock_timestamp() + interval '10 years' THEN
        due := greatest(1, (greatest(0, extract(epoch FROM publish.deliver_at)) * 1000000)::bigint * 1000); -- a past one is now
    END IF;
    IF publish.deliver_at IS NOT NULL AND due = 0 OR due - at > ahead THEN
        RAISE datetime_field_overflow USING MESSAGE = format('posthorn.publish: deliver_at must be at most %s days ahead', ahead / 86400000000000);
    END IF;
    INSERT INTO outbox (tenant, key, type, data, at, deliver_at)
        VALUES (of.id, coalesce(publish.id, ''), publish.type, body, at, due) RETURNING outbox.id INTO row;
    -- Who finds it empty wakes the nodes; else they are at work. Notifying always
    -- would make all commits of all publishers wait for each other. Where somebody
    -- fills the queue of messages nobody is told: a message more would fail the commit.
    IF NOT EXISTS (SELECT 1 FROM outbox o WHERE o.refused_at = 0 AND o.id < row) AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('posthorn_outbox_' || to_hex(m.value), '') FROM meta m WHERE m.key = 'channel';
    END IF;
    RETURN row;
END $$;
-- +goose StatementEnd

-- For which tenants a role may publish by posthorn_outbox.publish; 0 for every one.
-- Roles stand by name: numbers are another role's once they are restored elsewhere.
CREATE TABLE outbox_grants (
    role   text   NOT NULL,
    tenant bigint NOT NULL,
    PRIMARY KEY (role, tenant)
);
CREATE INDEX outbox_refused_tenant ON outbox (tenant, id) WHERE refused_at <> 0;

-- publish_granted is publish for those tenants that the caller was granted. The caller
-- is the role that logged in, or the one that it has set by SET ROLE: in a function
-- of the owner's rights current_user is the owner.
-- +goose StatementBegin
CREATE FUNCTION publish_granted(tenant text, type text, data json, id text, deliver_at timestamptz)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = posthorn, pg_temp AS $$
#variable_conflict use_column
DECLARE
    caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF publish_granted.tenant IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM outbox_grants g JOIN pg_roles r ON r.rolname = g.role
        WHERE (g.tenant = 0 OR g.tenant = (SELECT t.id FROM tenants t WHERE t.name = publish_granted.tenant AND t.deleted_at = 0))
        AND pg_has_role(caller, r.oid, 'USAGE'))
    THEN -- of a tenant that is not there it is said, too
        RAISE insufficient_privilege USING MESSAGE = format('posthorn_outbox.publish: the role %I may not publish for the tenant %L', caller, left(publish_granted.tenant, 64)),
            HINT = 'SELECT posthorn.grant_publish(role, tenant), run by the owner of posthorn, lets it.';
    END IF;
    RETURN publish(publish_granted.tenant, publish_granted.type, publish_granted.data, publish_granted.id, publish_granted.deliver_at);
END $$;

-- grant_publish lets a role publish for a tenant, or for every one, and for nothing
-- else: what it calls stands in a schema without tables. USAGE on posthorn would let it
-- lock the tables there without a right on any. It is for the owner of posthorn. The
-- schema is made here and by no migration, so that migrations need no CREATE on the
-- database, and one that was not restored is there again.
CREATE FUNCTION grant_publish(role text, tenant text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = posthorn, pg_temp AS $$
#variable_conflict use_column
DECLARE
    owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'posthorn');
    made  name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'posthorn_outbox');
    of    bigint := 0;
BEGIN
    IF NOT pg_has_role(owner, 'MEMBER') THEN
        RAISE insufficient_privilege USING MESSAGE = format('posthorn.grant_publish is for the owner of the schema posthorn, %I', owner);
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = grant_publish.role) THEN
        RAISE undefined_object USING MESSAGE = format('posthorn.grant_publish: there is no role %L', grant_publish.role);
    END IF;
    IF grant_publish.tenant IS NOT NULL THEN
        SELECT t.id INTO of FROM tenants t WHERE t.name = grant_publish.tenant AND t.deleted_at = 0;
        IF NOT FOUND THEN
            RAISE foreign_key_violation USING MESSAGE = format('posthorn.grant_publish: there is no tenant %L', grant_publish.tenant),
                HINT = 'posthorn tenant list shows those that there are.';
        END IF;
    END IF;
    IF made IS NULL THEN
        EXECUTE format('CREATE SCHEMA posthorn_outbox AUTHORIZATION %I', owner);
    ELSIF made <> owner THEN
        RAISE insufficient_privilege USING MESSAGE = format('the schema posthorn_outbox is of %I, and posthorn of %I', made, owner);
    END IF;
    IF to_regprocedure('posthorn_outbox.publish(text,text,json,text,timestamptz)') IS NULL THEN
        CREATE FUNCTION posthorn_outbox.publish(tenant text, type text, data json, id text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL)
        RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = posthorn, pg_temp
        AS 'SELECT posthorn.publish_granted($1, $2, $3, $4, $5)';
        REVOKE ALL ON FUNCTION posthorn_outbox.publish(text, text, json, text, timestamptz) FROM PUBLIC;
        EXECUTE format('ALTER FUNCTION posthorn_outbox.publish(text, text, json, text, timestamptz) OWNER TO %I', owner);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA posthorn_outbox TO %I', grant_publish.role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION posthorn_outbox.publish(text, text, json, text, timestamptz) TO %I', grant_publish.role);
    INSERT INTO outbox_grants (role, tenant) VALUES (grant_publish.role, of) ON CONFLICT DO NOTHING;
END $$;

-- revoke_publish takes back what grant_publish gave: for one tenant, or, without one,
-- all of it.
CREATE FUNCTION revoke_publish(role text, tenant text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = posthorn, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM outbox_grants g WHERE g.role = revoke_publish.role AND (revoke_publish.tenant IS NULL
        OR g.tenant = (SELECT t.id FROM tenants t WHERE t.name = revoke_publish.tenant AND t.deleted_at = 0));
    IF to_regnamespace('posthorn_outbox') IS NOT NULL AND EXISTS (SELECT 1 FROM pg_roles WHERE rolname = revoke_publish.role)
        AND NOT EXISTS (SELECT 1 FROM outbox_grants g WHERE g.role = revoke_publish.role)
    THEN
        EXECUTE format('REVOKE ALL ON FUNCTION posthorn_outbox.publish(text, text, json, text, timestamptz) FROM %I', revoke_publish.role);
        EXECUTE format('REVOKE ALL ON SCHEMA posthorn_outbox FROM %I', revoke_publish.role);
    END IF;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION publish_granted (text, text, json, text, timestamptz), grant_publish (text, text), revoke_publish (text, text) FROM PUBLIC;
