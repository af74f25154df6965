-- +goose Up
-- Both tables are locked for a moment, for which nobody is to wait long: whoever holds
-- them for longer, such as pg_dump, has the migration fail, and it is tried again.
SET LOCAL lock_timeout = '3s';

-- The Unix hour of the statistics in which the final state that the delivery has, or had
-- when it was opened again, is counted; 0 for none, and where an older version counted it.
ALTER TABLE due ADD COLUMN counted integer NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN counted integer NOT NULL DEFAULT 0;

-- Events that retention leaves for a while more: what of them was opened again ended when
-- their time was over, and an attempt may be under way. See store.Reopened.
CREATE TABLE spared (
    event bigint PRIMARY KEY,
    until bigint NOT NULL
);
