-- Times are microseconds since 1970 in UTC. Keys are normal forms, by which users
-- are unique and listed. tags, metadata, details and answer are encoded as codec.go
-- of the package says.

-- +goose Up
-- +goose StatementBegin
CREATE TABLE users (
    user_id         INTEGER PRIMARY KEY,
    username        TEXT    NOT NULL,
    username_key    TEXT    NOT NULL,
    email           TEXT    NOT NULL,
    email_key       TEXT    NOT NULL,
    status          INTEGER NOT NULL,
    status_time     INTEGER NOT NULL,
    status_position INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    tags            BLOB,
    metadata        BLOB,
    version         INTEGER NOT NULL,
    deleted_at      INTEGER,
    purge_at        INTEGER
) STRICT;
-- +goose StatementEnd
CREATE UNIQUE INDEX users_username ON users (username_key);
CREATE UNIQUE INDEX users_email    ON users (email_key);
-- An index ends with the rowid, which is user_id: this one is the order "by updated, then id".
CREATE INDEX users_updated ON users (updated_at);
CREATE INDEX users_purge   ON users (purge_at) WHERE purge_at IS NOT NULL;

-- +goose StatementBegin
CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    user_id  INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    action   TEXT    NOT NULL,
    details  BLOB
) STRICT;
-- +goose StatementEnd
-- Ends with the rowid, which is position: one user's rows in order.
CREATE INDEX log_user ON log (user_id);

-- Rowids are given in the order of created_at, so no index is needed to find the oldest.
-- +goose StatementBegin
CREATE TABLE request_ids (
    seq         INTEGER PRIMARY KEY,
    caller      TEXT    NOT NULL,
    procedure   TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    user_id     INTEGER NOT NULL,
    answer      BLOB    NOT NULL
) STRICT;
-- +goose StatementEnd
CREATE UNIQUE INDEX request_ids_key ON request_ids (id, procedure, caller);
CREATE INDEX request_ids_user ON request_ids (user_id);

-- +goose StatementBegin
CREATE TABLE meta (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    epoch     TEXT    NOT NULL,
    position  INTEGER NOT NULL, -- of the log's last row
    time      INTEGER NOT NULL, -- of the log's last row
    copied    INTEGER NOT NULL, -- 1: a backup that has not been opened yet, which needs an epoch of its own
    probes    INTEGER NOT NULL
) STRICT;
-- +goose StatementEnd
INSERT INTO meta VALUES (1, '', 0, 0, 0, 0);
