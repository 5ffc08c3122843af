-- Version of the name normalization rules. When it changes, the store normalizes all names again.

-- +goose Up
ALTER TABLE meta ADD COLUMN names bigint NOT NULL DEFAULT 1;

-- +goose Down
ALTER TABLE meta DROP COLUMN names;
