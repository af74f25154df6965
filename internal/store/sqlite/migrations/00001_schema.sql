-- +goose Up
-- Times are Unix nanoseconds, 0 for none. Ids of events and deliveries are
-- posthorn.ID. See ../../DESIGN.md for what each index costs and pays for.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tenants (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    suspended_at INTEGER NOT NULL DEFAULT 0,
    deleted_at   INTEGER NOT NULL DEFAULT 0,
    -- counts every change of the tenant's endpoints: what a publish matched
    set_version  INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX tenants_name ON tenants (name) WHERE deleted_at = 0;
CREATE INDEX tenants_deleted ON tenants (id) WHERE deleted_at <> 0;

CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    ref          TEXT    NOT NULL UNIQUE,
    tenant       INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    scopes       TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tokens_tenant ON tokens (tenant);

CREATE TABLE endpoints (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    ref              TEXT    NOT NULL UNIQUE,
    tenant           INTEGER NOT NULL,
    url              TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    events           TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    paused_reason    TEXT    NOT NULL,
    paused_at        INTEGER NOT NULL,
    version          INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    deleted_at       INTEGER NOT NULL DEFAULT 0,
    -- set once Sweep has canceled what was open when it was deleted
    settled          INTEGER NOT NULL DEFAULT 0,
    settings         TEXT    NOT NULL,
    settings_version INTEGER NOT NULL -- counts their changes: their ETag
);
CREATE INDEX endpoints_tenant ON endpoints (tenant) WHERE deleted_at = 0;
CREATE INDEX endpoints_gone ON endpoints (tenant) WHERE deleted_at <> 0;
CREATE INDEX endpoints_deleted ON endpoints (settled, id) WHERE deleted_at <> 0;

CREATE TABLE endpoint_secrets (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint   INTEGER NOT NULL,
    kind       TEXT    NOT NULL, -- signing, header
    name       TEXT    NOT NULL, -- of the header
    key_id     TEXT    NOT NULL,
    box        BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX endpoint_secrets_endpoint ON endpoint_secrets (endpoint);
CREATE INDEX endpoint_secrets_expires ON endpoint_secrets (expires_at) WHERE expires_at <> 0;

CREATE TABLE endpoint_health (
    endpoint      INTEGER PRIMARY KEY,
    failing_since INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    last_success  INTEGER NOT NULL,
    last_failure  INTEGER NOT NULL,
    hold_until    INTEGER NOT NULL,
    warned_at     INTEGER NOT NULL,
    last_error    TEXT    NOT NULL
);
CREATE INDEX endpoint_health_unwarned ON endpoint_health (failing_since) WHERE warned_at = 0 AND last_error <> '';

-- Turning points of endpoints of which their owners are still to be told.
CREATE TABLE turns (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    type          TEXT    NOT NULL,
    tenant        INTEGER NOT NULL,
    endpoint      INTEGER NOT NULL,
    ref           TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    failing_since INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    last_error    TEXT    NOT NULL
);

-- One row per endpoint and hour. The columns b0 to b9 count attempts by
-- duration: up to 10, 30, 100, 300 ms, 1, 3, 10, 15, 30 s, and longer.
CREATE TABLE endpoint_stats (
    endpoint  INTEGER NOT NULL,
    hour      INTEGER NOT NULL, -- Unix hours
    ok        INTEGER NOT NULL DEFAULT 0, -- attempts
    failed    INTEGER NOT NULL DEFAULT 0, -- attempts
    succeeded INTEGER NOT NULL DEFAULT 0, -- deliveries
    exhausted INTEGER NOT NULL DEFAULT 0, -- deliveries that failed for good
    canceled  INTEGER NOT NULL DEFAULT 0,
    expired   INTEGER NOT NULL DEFAULT 0,
    b0 INTEGER NOT NULL DEFAULT 0, b1 INTEGER NOT NULL DEFAULT 0,
    b2 INTEGER NOT NULL DEFAULT 0, b3 INTEGER NOT NULL DEFAULT 0,
    b4 INTEGER NOT NULL DEFAULT 0, b5 INTEGER NOT NULL DEFAULT 0,
    b6 INTEGER NOT NULL DEFAULT 0, b7 INTEGER NOT NULL DEFAULT 0,
    b8 INTEGER NOT NULL DEFAULT 0, b9 INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint, hour)
) WITHOUT ROWID;

-- What commits added to the statistics since it was last added up there.
CREATE TABLE stats_log (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE events (
    id          INTEGER PRIMARY KEY,
    tenant      INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    kind        INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    deliver_at  INTEGER NOT NULL,
    deliveries  INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    source      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    source_id   TEXT    NOT NULL
);
CREATE INDEX events_tenant ON events (tenant);

CREATE TABLE payloads (
    event INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
);

CREATE TABLE deliveries (
    id        INTEGER PRIMARY KEY,
    event     INTEGER NOT NULL,
    tenant    INTEGER NOT NULL,
    endpoint  INTEGER NOT NULL,
    state     INTEGER NOT NULL,
    -- 0 none, 1 owned by the running process, 2 waiting for next_at, 3 parked
    place     INTEGER NOT NULL,
    -- owned rows hold it with 2^62 added, so that they end every index by time
    next_at   INTEGER NOT NULL,
    tries     INTEGER NOT NULL DEFAULT 0,
    attempts  INTEGER NOT NULL DEFAULT 0,
    waits     INTEGER NOT NULL DEFAULT 0,
    round     INTEGER NOT NULL DEFAULT 0,
    extra     INTEGER NOT NULL DEFAULT 0,
    before    INTEGER NOT NULL DEFAULT 0,
    reason    TEXT    NOT NULL DEFAULT '',
    replay_id INTEGER NOT NULL DEFAULT 0,
    late      INTEGER NOT NULL DEFAULT 0,
    log       BLOB
);
CREATE INDEX deliveries_due ON deliveries (next_at, endpoint) WHERE place IN (1, 2);
CREATE INDEX deliveries_parked ON deliveries (endpoint) WHERE place = 3;
CREATE INDEX deliveries_endpoint ON deliveries (endpoint);
CREATE INDEX deliveries_late ON deliveries (tenant) WHERE late = 1;

CREATE TABLE idempotency (
    tenant  INTEGER NOT NULL,
    kind    INTEGER NOT NULL, -- 1 a publisher's event id, 2 an Idempotency-Key
    key     TEXT    NOT NULL, -- for 2 with the route before it
    hash    BLOB    NOT NULL,
    event   INTEGER NOT NULL,
    answer  BLOB,
    expires INTEGER NOT NULL, -- 0: with the event
    PRIMARY KEY (tenant, kind, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires) WHERE expires <> 0;

CREATE TABLE replays (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     INTEGER NOT NULL,
    ref        TEXT    NOT NULL UNIQUE,
    selection  TEXT    NOT NULL,
    bound      INTEGER NOT NULL,
    cursor     INTEGER NOT NULL,
    counts     TEXT    NOT NULL,
    state      INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX replays_tenant ON replays (tenant);

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    tenant      INTEGER NOT NULL, -- 0: the platform
    tenant_name TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    before      TEXT    NOT NULL, -- JSON, or '' for nothing
    after       TEXT    NOT NULL
);
CREATE INDEX audit_tenant ON audit (tenant);
