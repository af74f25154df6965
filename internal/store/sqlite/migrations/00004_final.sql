-- +goose Up
-- The Unix hour of the statistics in which the final state that the delivery has, or had
-- when it was opened again, is counted; 0 for none, and where an older version counted it.
ALTER TABLE deliveries ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;

-- Events that retention leaves for a while more: what of them was opened again ended when
-- their time was over, and an attempt may be under way. See store.Reopened.
CREATE TABLE spared (
    event INTEGER PRIMARY KEY,
    until INTEGER NOT NULL
);
