-- +goose Up
-- What a tenant keeps of a day (days since 1970, by the ids of events), in bytes:
-- payloads, and an estimate of rows. See ../kept.go.
CREATE TABLE kept (
    day    INTEGER NOT NULL,
    tenant INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (day, tenant)
) WITHOUT ROWID;
