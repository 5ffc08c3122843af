-- Indexes end with the rowid, which is user_id: the order is created_at, user_id.

-- +goose Up
CREATE INDEX users_created ON users (created_at);
