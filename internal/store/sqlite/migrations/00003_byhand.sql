-- +goose Up
-- What was asked for by hand and is parked: of a paused endpoint that alone is sent,
-- whatever else waits there.
CREATE INDEX deliveries_by_hand ON deliveries (endpoint) WHERE place = 3 AND manual <> 0;
