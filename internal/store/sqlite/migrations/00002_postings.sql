-- +goose Up
-- The lists that were indexes: see ../../DESIGN.md, "SQLite: lists". What is not in
-- here yet is written when the file is opened.
CREATE TABLE postings (
    list INTEGER NOT NULL, -- an endpoint: its deliveries; a tenant's id below 0: its events
    last INTEGER NOT NULL, -- the highest of the ids
    ids  BLOB    NOT NULL, -- downwards from last, each as what it is below the one before (uvarint)
    PRIMARY KEY (list, last)
) WITHOUT ROWID;
DROP INDEX deliveries_endpoint;
DROP INDEX events_tenant;
