-- Times are microseconds since the Unix epoch. The _key columns are normal forms, which are
-- unique and define the list order. codec.go defines the encoding of the BLOB columns.

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
-- Indexes end with the rowid, which is user_id: the order is updated_at, user_id.
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
-- Ends with the rowid, which is position.
CREATE INDEX log_user ON log (user_id);

-- Rowids are in the order of created_at, so the oldest rows are found without an index.
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
    position  INTEGER NOT NULL, -- of the last log row
    time      INTEGER NOT NULL, -- of the last log row
    copied    INTEGER NOT NULL, -- 1: a backup that was not opened yet; it gets a new epoch
    probes    INTEGER NOT NULL
) STRICT;
-- +goose StatementEnd
INSERT INTO meta VALUES (1, '', 0, 0, 0, 0);
