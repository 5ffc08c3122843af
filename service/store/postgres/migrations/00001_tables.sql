-- Times are microseconds since the Unix epoch. The _key columns are normal forms in UTF-8, which are unique and define the
-- list order. Package encoding defines the encoding of the bytea columns tags, metadata, details and answer.

-- +goose Up
CREATE TABLE users (
    user_id          bigint PRIMARY KEY,
    username         text   NOT NULL,
    username_key     bytea  NOT NULL,
    email            text   NOT NULL,
    email_key        bytea  NOT NULL,
    status           bigint NOT NULL,
    status_time      bigint NOT NULL,
    status_position  bigint NOT NULL,
    created_at       bigint NOT NULL,
    updated_at       bigint NOT NULL,
    tags             bytea,
    metadata         bytea,
    version          bigint NOT NULL,
    last_activity_id bigint NOT NULL,
    deleted_at       bigint,
    purge_at         bigint
);
CREATE UNIQUE INDEX users_username ON users (username_key);
CREATE UNIQUE INDEX users_email ON users (email_key);
CREATE INDEX users_last_activity ON users (last_activity_id);
CREATE INDEX users_created ON users (created_at, user_id);
CREATE INDEX users_purge ON users (purge_at) WHERE purge_at IS NOT NULL;

-- The users with each token, see package tokens.
CREATE TABLE terms (
    token   bigint NOT NULL,
    user_id bigint NOT NULL,
    PRIMARY KEY (token, user_id)
);

CREATE TABLE log (
    position bigint PRIMARY KEY,
    user_id  bigint NOT NULL,
    time     bigint NOT NULL,
    action   text   NOT NULL,
    details  bytea
);
CREATE INDEX log_user ON log (user_id, position);

CREATE TABLE request_ids (
    caller      bytea  NOT NULL,
    procedure   bytea  NOT NULL,
    id          bytea  NOT NULL,
    fingerprint bytea  NOT NULL,
    created_at  bigint NOT NULL,
    user_id     bigint NOT NULL,
    answer      bytea  NOT NULL,
    PRIMARY KEY (id, procedure, caller)
);
CREATE INDEX request_ids_created ON request_ids (created_at);
CREATE INDEX request_ids_user ON request_ids (user_id);

-- Users of large stored results. Results with the same version of a user share a row, so that requests without effect
-- do not store a copy each.
CREATE TABLE request_users (
    user_id     bigint NOT NULL,
    version     bigint NOT NULL,
    status_time bigint NOT NULL,
    kept_until  bigint NOT NULL,
    answer      bytea  NOT NULL,
    PRIMARY KEY (user_id, version, status_time)
);
CREATE INDEX request_users_kept ON request_users (kept_until);

-- One row, which each transaction that appends to the log locks first: positions are in commit order, without gaps.
CREATE TABLE meta (
    one      bigint PRIMARY KEY CHECK (one = 1),
    epoch    text   NOT NULL,
    position bigint NOT NULL, -- of the last log row
    time     bigint NOT NULL, -- of the last log row
    first    bigint NOT NULL  -- position of the oldest retained row; the next position if all rows were pruned
);
INSERT INTO meta VALUES (1, '', 0, 0, 1);

-- What each node writes to show that writes succeed, and the latest time that any node trusted.
CREATE TABLE probe (
    one    bigint PRIMARY KEY CHECK (one = 1),
    probes bigint NOT NULL,
    clock  bigint NOT NULL
);
INSERT INTO probe VALUES (1, 0, 0);

-- The last transaction that each process has committed, by which the outcome of a commit is found whose response was lost.
CREATE TABLE writers (
    process text   PRIMARY KEY,
    number  bigint NOT NULL,
    time    bigint NOT NULL
);

-- +goose Down
DROP TABLE users, terms, log, request_ids, request_users, meta, probe, writers;
