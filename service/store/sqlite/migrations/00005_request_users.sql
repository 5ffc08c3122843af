-- Users of large stored results. Results with the same version of a user share a row, so that
-- requests without effect do not store a copy each.

-- +goose Up
-- +goose StatementBegin
CREATE TABLE IF NOT EXISTS request_users (
    seq         INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    status_time INTEGER NOT NULL,
    kept_until  INTEGER NOT NULL,
    answer      BLOB    NOT NULL
) STRICT;
-- +goose StatementEnd
CREATE UNIQUE INDEX IF NOT EXISTS request_users_key ON request_users (user_id, version, status_time);
CREATE INDEX IF NOT EXISTS request_users_kept ON request_users (kept_until);
