-- The version of the rules by which names have their shown and their normal forms. The
-- program renews the names of users where it is another one.

-- +goose Up
ALTER TABLE meta ADD COLUMN names INTEGER NOT NULL DEFAULT 0;
