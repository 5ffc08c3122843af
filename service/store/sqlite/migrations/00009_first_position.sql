-- Position of the oldest retained log row; the next position if all rows were pruned.

-- +goose Up
ALTER TABLE meta ADD COLUMN first INTEGER NOT NULL DEFAULT 1;
