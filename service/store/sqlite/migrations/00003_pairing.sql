-- Session and commit count, which match a database with its write-ahead log, and the clock mark.

-- +goose Up
ALTER TABLE meta ADD COLUMN session       INTEGER NOT NULL DEFAULT 0;  -- random, new at each open
ALTER TABLE meta ADD COLUMN previous      INTEGER NOT NULL DEFAULT 0;  -- the previous session
ALTER TABLE meta ADD COLUMN commits       INTEGER NOT NULL DEFAULT 0;  -- transactions that wrote
ALTER TABLE meta ADD COLUMN place         TEXT    NOT NULL DEFAULT ''; -- path and directory where it is open; '': closed
ALTER TABLE meta ADD COLUMN clock_time    INTEGER NOT NULL DEFAULT 0;  -- best known time; 0: unknown
ALTER TABLE meta ADD COLUMN clock_elapsed INTEGER NOT NULL DEFAULT 0;  -- nanoseconds since boot at clock_time
ALTER TABLE meta ADD COLUMN clock_boot    TEXT    NOT NULL DEFAULT ''; -- identifies the boot
