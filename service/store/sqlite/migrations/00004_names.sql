-- Version of the name normalization rules. When it changes, the store normalizes all names again.

-- +goose Up
ALTER TABLE meta ADD COLUMN names INTEGER NOT NULL DEFAULT 0;
