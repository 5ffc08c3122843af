-- The users with each term (user.Term), by which filters find users. term is a hash, see postings.go.
-- Deleted users keep their postings, so that an undeletion writes none and show_deleted needs no other index.

-- +goose Up
-- +goose StatementBegin
CREATE TABLE postings (
    term    INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    PRIMARY KEY (term, user_id)
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd
ALTER TABLE meta ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0; -- users up to this ID have postings
