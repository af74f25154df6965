-- +goose Up
-- What a tenant keeps of a day (days since 1970, by the ids of events), in bytes:
-- payloads, and an estimate of rows. See ../kept.go. Nodes of the former version count
-- nothing; what they did is found when the day is counted again.
CREATE TABLE kept (
    day    bigint NOT NULL,
    tenant bigint NOT NULL,
    bytes  bigint NOT NULL,
    PRIMARY KEY (day, tenant)
) WITH (fillfactor = 70);

-- Who counts again: a run, see ../weeks.go.
INSERT INTO locks (purpose) VALUES ('kept');
