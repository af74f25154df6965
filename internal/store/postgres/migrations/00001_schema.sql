-- +goose Up
-- Times are Unix nanoseconds, 0 for none. Ids of events and deliveries are
-- posthorn.ID. See ../DESIGN.md for what each table and index is for.

CREATE TABLE meta (
    key   text PRIMARY KEY,
    value bigint NOT NULL
);
INSERT INTO meta (key, value) VALUES ('changes', 0), ('ping', 0);

-- Proof that a transaction took place, for whoever did not get the answer to its
-- COMMIT. The id of a transaction proves nothing: a crash gives it out again.
CREATE TABLE commits (
    key   bigint PRIMARY KEY,
    value bigint NOT NULL,
    at    bigint NOT NULL
) WITH (fillfactor = 50);

-- One row per run of a node: the lease. A row that is not taken is alive as
-- long as beats moves on. The ids of runs are never used again.
CREATE TABLE runs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node       smallint NOT NULL UNIQUE, -- goes into the ids given out
    beats      bigint   NOT NULL DEFAULT 0,
    taken_at   bigint   NOT NULL DEFAULT 0,
    host       text     NOT NULL,
    started_at bigint   NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE tenants (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text   NOT NULL,
    created_at   bigint NOT NULL,
    suspended_at bigint NOT NULL DEFAULT 0,
    deleted_at   bigint NOT NULL DEFAULT 0,
    -- counts every change of the tenant's endpoints: what a publish matched
    set_version  bigint NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX tenants_name ON tenants (name) WHERE deleted_at = 0;
CREATE INDEX tenants_deleted ON tenants (id) WHERE deleted_at <> 0;

CREATE TABLE tokens (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref          text   NOT NULL UNIQUE,
    tenant       bigint NOT NULL,
    name         text   NOT NULL,
    hash         bytea  NOT NULL UNIQUE,
    scopes       text   NOT NULL,
    created_at   bigint NOT NULL,
    expires_at   bigint NOT NULL,
    last_used_at bigint NOT NULL DEFAULT 0
);
CREATE INDEX tokens_tenant ON tokens (tenant, id);

CREATE TABLE endpoints (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref              text    NOT NULL UNIQUE,
    tenant           bigint  NOT NULL,
    url              text    NOT NULL,
    description      text    NOT NULL,
    events           text    NOT NULL,
    status           text    NOT NULL,
    paused_reason    text    NOT NULL,
    paused_at        bigint  NOT NULL,
    version          bigint  NOT NULL,
    created_at       bigint  NOT NULL,
    updated_at       bigint  NOT NULL,
    deleted_at       bigint  NOT NULL DEFAULT 0,
    -- set once Sweep has canceled what was open when it was deleted
    settled          boolean NOT NULL DEFAULT false,
    settings         text    NOT NULL,
    settings_version bigint  NOT NULL -- counts their changes: their ETag
);
CREATE INDEX endpoints_tenant ON endpoints (tenant, id) WHERE deleted_at = 0;
CREATE INDEX endpoints_gone ON endpoints (tenant, id) WHERE deleted_at <> 0;
CREATE INDEX endpoints_deleted ON endpoints (settled, id) WHERE deleted_at <> 0;

CREATE TABLE endpoint_secrets (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint   bigint NOT NULL,
    kind       text   NOT NULL, -- signing, header
    name       text   NOT NULL, -- of the header
    key_id     text   NOT NULL,
    box        bytea  NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX endpoint_secrets_endpoint ON endpoint_secrets (endpoint);
CREATE INDEX endpoint_secrets_expires ON endpoint_secrets (expires_at) WHERE expires_at <> 0;

-- One row per endpoint, made with it.
CREATE TABLE endpoint_health (
    endpoint      bigint PRIMARY KEY,
    failing_since bigint  NOT NULL DEFAULT 0,
    failures      integer NOT NULL DEFAULT 0,
    last_success  bigint  NOT NULL DEFAULT 0,
    last_failure  bigint  NOT NULL DEFAULT 0,
    hold_until    bigint  NOT NULL DEFAULT 0,
    warned_at     bigint  NOT NULL DEFAULT 0,
    last_error    text    NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
CREATE INDEX endpoint_health_unwarned ON endpoint_health (failing_since) WHERE warned_at = 0 AND last_error <> '';

-- Turning points of endpoints of which their owners are still to be told.
CREATE TABLE turns (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type          text    NOT NULL,
    tenant        bigint  NOT NULL,
    endpoint      bigint  NOT NULL,
    ref           text    NOT NULL,
    url           text    NOT NULL,
    at            bigint  NOT NULL,
    reason        text    NOT NULL,
    failing_since bigint  NOT NULL,
    failures      integer NOT NULL,
    last_error    text    NOT NULL
);

-- One row per endpoint and hour. The columns b0 to b9 count attempts by
-- duration: up to 10, 30, 100, 300 ms, 1, 3, 10, 15, 30 s, and longer.
CREATE TABLE endpoint_stats (
    endpoint  bigint  NOT NULL,
    hour      bigint  NOT NULL, -- Unix hours
    ok        integer NOT NULL DEFAULT 0, -- attempts
    failed    integer NOT NULL DEFAULT 0, -- attempts
    succeeded integer NOT NULL DEFAULT 0, -- deliveries
    exhausted integer NOT NULL DEFAULT 0, -- deliveries that failed for good
    canceled  integer NOT NULL DEFAULT 0,
    expired   integer NOT NULL DEFAULT 0,
    b0 integer NOT NULL DEFAULT 0, b1 integer NOT NULL DEFAULT 0,
    b2 integer NOT NULL DEFAULT 0, b3 integer NOT NULL DEFAULT 0,
    b4 integer NOT NULL DEFAULT 0, b5 integer NOT NULL DEFAULT 0,
    b6 integer NOT NULL DEFAULT 0, b7 integer NOT NULL DEFAULT 0,
    b8 integer NOT NULL DEFAULT 0, b9 integer NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint, hour)
) WITH (fillfactor = 50);

CREATE TABLE events (
    id          bigint   PRIMARY KEY,
    tenant      bigint   NOT NULL,
    occurred_at bigint   NOT NULL,
    accepted_at bigint   NOT NULL,
    deliver_at  bigint   NOT NULL,
    deliveries  integer  NOT NULL,
    size        integer  NOT NULL,
    -- when the payload was erased; 0 while it is there
    erased_at   bigint   NOT NULL DEFAULT 0,
    kind        smallint NOT NULL,
    key         text     NOT NULL,
    type        text     NOT NULL,
    source      text     NOT NULL,
    subject     text     NOT NULL,
    source_id   text     NOT NULL,
    body        bytea,
    -- the transaction that stored it: the order of the stream
    tx          bigint   NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
) PARTITION BY RANGE (id);
CREATE INDEX events_tenant ON events (tenant, id);
CREATE INDEX events_stream ON events (tenant, tx, id);

-- Open deliveries, and no other: small, whatever the history.
CREATE TABLE due (
    id        bigint   PRIMARY KEY,
    event     bigint   NOT NULL,
    tenant    bigint   NOT NULL,
    endpoint  bigint   NOT NULL,
    -- the run that owns it; 0: waits for next_at; -1: parked behind its lane's backlog
    run       bigint   NOT NULL,
    next_at   bigint   NOT NULL,
    replay_id bigint   NOT NULL DEFAULT 0,
    tries     integer  NOT NULL DEFAULT 0,
    attempts  integer  NOT NULL DEFAULT 0,
    waits     integer  NOT NULL DEFAULT 0,
    round     integer  NOT NULL DEFAULT 0,
    before    smallint NOT NULL DEFAULT 0,
    manual    boolean  NOT NULL DEFAULT false, -- the next attempt was asked for by hand
    extra     boolean  NOT NULL DEFAULT false,
    late      boolean  NOT NULL DEFAULT false,
    reason    text     NOT NULL DEFAULT '', -- that a failed extra attempt puts back
    -- its place in the line of an ordered endpoint, not below its id; 0 for the id
    seq       bigint   NOT NULL DEFAULT 0,
    log       bytea
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX due_waiting ON due (next_at, id) WHERE run = 0;
CREATE INDEX due_parked ON due (endpoint, (greatest(seq, id)), id) WHERE run = -1;
CREATE INDEX due_owned ON due (run, id) WHERE run > 0;
CREATE INDEX due_endpoint ON due (endpoint, id);
CREATE INDEX due_late ON due (tenant, id) WHERE late;
CREATE UNIQUE INDEX due_late_event ON due (event, endpoint) WHERE late;

-- The owned lanes: one row per endpoint whose settings ask for one.
CREATE TABLE lanes (
    endpoint bigint  PRIMARY KEY,
    run      bigint  NOT NULL, -- that has it; 0 for none
    since    bigint  NOT NULL, -- when run or ordered last changed
    ordered  boolean NOT NULL
);

-- The last place given out in the line of an ordered endpoint. A table of its own:
-- publishers lock its rows.
CREATE TABLE lines (
    endpoint bigint PRIMARY KEY,
    last     bigint NOT NULL
) WITH (fillfactor = 50);

-- Finished deliveries.
CREATE TABLE deliveries (
    id        bigint   PRIMARY KEY,
    event     bigint   NOT NULL,
    tenant    bigint   NOT NULL,
    endpoint  bigint   NOT NULL,
    replay_id bigint   NOT NULL,
    tries     integer  NOT NULL,
    attempts  integer  NOT NULL,
    waits     integer  NOT NULL,
    round     integer  NOT NULL,
    state     smallint NOT NULL,
    late      boolean  NOT NULL,
    reason    text     NOT NULL,
    log       bytea
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_endpoint ON deliveries (endpoint, id);
CREATE INDEX deliveries_late ON deliveries (tenant, id) WHERE late;
CREATE INDEX deliveries_late_event ON deliveries (event, endpoint) WHERE late;

-- What is remarkable about deliveries of an event from its start: few events have
-- a row. See store.Notes.
CREATE TABLE event_notes (
    event bigint PRIMARY KEY,
    notes text   NOT NULL
);

CREATE TABLE idempotency (
    tenant  bigint   NOT NULL,
    kind    smallint NOT NULL, -- 1 a publisher's event id, 2 an Idempotency-Key
    key     text     NOT NULL, -- for 2 with the route before it
    hash    bytea    NOT NULL,
    event   bigint   NOT NULL,
    answer  bytea,
    expires bigint   NOT NULL, -- 0: with the event
    PRIMARY KEY (tenant, kind, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires, tenant, key) WHERE expires <> 0;

CREATE TABLE replays (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     bigint   NOT NULL,
    endpoint   bigint   NOT NULL,
    ref        text     NOT NULL UNIQUE,
    state      smallint NOT NULL, -- posthorn.ReplayState
    run        bigint   NOT NULL DEFAULT 0, -- that works on it
    selection  text     NOT NULL,
    bound      bigint   NOT NULL, -- ids below it are looked at
    cursor     bigint   NOT NULL, -- and those up to it have been
    total      integer  NOT NULL,
    sent       integer  NOT NULL DEFAULT 0,
    skipped    integer  NOT NULL DEFAULT 0,
    succeeded  integer  NOT NULL DEFAULT 0,
    failed     integer  NOT NULL DEFAULT 0,
    created_at bigint   NOT NULL,
    updated_at bigint   NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX replays_tenant ON replays (tenant, id);
CREATE UNIQUE INDEX replays_open ON replays (endpoint) WHERE state < 2;

-- What the deletion of a tenant erased; completed_at is 0 until nothing is left.
CREATE TABLE deletions (
    tenant        bigint PRIMARY KEY,
    name          text   NOT NULL,
    deleted_at    bigint NOT NULL,
    completed_at  bigint NOT NULL DEFAULT 0,
    endpoints     bigint NOT NULL DEFAULT 0,
    secrets       bigint NOT NULL DEFAULT 0,
    tokens        bigint NOT NULL DEFAULT 0,
    events        bigint NOT NULL DEFAULT 0,
    payload_bytes bigint NOT NULL DEFAULT 0,
    deliveries    bigint NOT NULL DEFAULT 0
);

-- What a tenant may download, until it expires. Nothing of it is stored.
CREATE TABLE exports (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     bigint NOT NULL,
    ref        text    NOT NULL UNIQUE,
    since      bigint NOT NULL,
    until      bigint NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);

CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          bigint NOT NULL,
    tenant      bigint NOT NULL, -- 0: the platform
    tenant_name text   NOT NULL,
    actor       text   NOT NULL,
    action      text   NOT NULL,
    subject     text   NOT NULL,
    before      text   NOT NULL, -- JSON, or '' for nothing
    after       text   NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant, id);

-- What other programs published by the function below, within transactions of
-- their own, and no node has taken yet; and what was refused, until somebody
-- decides about it.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     bigint NOT NULL,
    key        text   NOT NULL, -- the publisher's id or ''
    type       text   NOT NULL,
    data       text   NOT NULL,
    at         bigint NOT NULL,
    deliver_at bigint NOT NULL,
    refused_at bigint NOT NULL DEFAULT 0,
    reason     text   NOT NULL DEFAULT ''
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_waiting ON outbox (id) WHERE refused_at = 0;
CREATE INDEX outbox_refused ON outbox (id) WHERE refused_at <> 0;

-- publish appends an event to the outbox, within the caller's transaction, and
-- does nothing else. It returns the number of the row. Callers need EXECUTE on it
-- and USAGE on the schema, and no right on any table. The type json keeps the
-- text of data as it was given; jsonb would not. The clock is this server's: a
-- caller's transaction has no other that nodes could trust.
-- +goose StatementBegin
CREATE FUNCTION publish(tenant text, type text, data json, id text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL)
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
        due := greatest(1, (extract(epoch FROM publish.deliver_at) * 1000000)::bigint * 1000); -- a past one is now
    END IF;
    IF publish.deliver_at IS NOT NULL AND due = 0 OR due - at > ahead THEN
        RAISE datetime_field_overflow USING MESSAGE = format('posthorn.publish: deliver_at must be at most %s days ahead', ahead / 86400000000000);
    END IF;
    INSERT INTO outbox (tenant, key, type, data, at, deliver_at)
        VALUES (of.id, coalesce(publish.id, ''), publish.type, body, at, due) RETURNING outbox.id INTO row;
    -- Who finds it empty wakes the nodes; else they are at work. Notifying always
    -- would make all commits of all publishers wait for each other.
    IF NOT EXISTS (SELECT 1 FROM outbox o WHERE o.refused_at = 0 AND o.id < row) THEN
        PERFORM pg_notify('posthorn_outbox', '');
    END IF;
    RETURN row;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION publish (text, text, json, text, timestamptz) FROM PUBLIC;
-- How far deliver_at may be ahead: nodes note half of their retention.
INSERT INTO meta (key, value) VALUES ('deliver_ahead', 1296000000000000);

-- The history's partitions are made and dropped by functions with their owner's
-- rights, so that nodes need none but to read and write rows. make_partition makes
-- a table beside the history and attaches it; the CHECK spares the attachment a look
-- at the rows. drop_partition drops an empty one and says whether it did.
-- +goose StatementBegin
CREATE FUNCTION make_partition(parent text, name text, low bigint, high bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = posthorn, pg_temp AS $$
BEGIN
    IF parent NOT IN ('events', 'deliveries') OR name !~ ('^' || parent || '_[0-9]{8}$') THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no partition of %L', name, parent);
    END IF;
    IF to_regclass('posthorn.' || name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS, CHECK (id >= %s AND id < %s))', name, parent, low, high);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', parent, name, low, high);
    END IF;
END $$;
CREATE FUNCTION drop_partition(name text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = posthorn, pg_temp AS $$
DECLARE
    used boolean;
BEGIN
    IF name !~ '^(events|deliveries)_[0-9]{8}$' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no partition', name);
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO used;
    IF NOT used THEN
        EXECUTE format('DROP TABLE %I', name);
    END IF;
    RETURN NOT used;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION make_partition (text, text, bigint, bigint), drop_partition (text) FROM PUBLIC;
