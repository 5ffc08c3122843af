package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/user"
)

const (
	setNames = "UPDATE users SET username = $2, email = $3, username_key = $4, email_key = $5 WHERE user_id = $1"
	keyTaken = "SELECT EXISTS (SELECT FROM users WHERE username_key = $2 AND user_id != $1), EXISTS (SELECT FROM users WHERE email_key = $3 AND user_id != $1)"
)

// renormalizeNames applies the current normalization rules to the names of all users, without log rows, in one transaction that
// locks the counter row. If two users would get the same normal form, the second keeps its old one, and a warning is logged.
func (s *Store) renormalizeNames(ctx context.Context) error {
	var version int
	if err := s.pool.QueryRow(ctx, "SELECT names FROM meta").Scan(&version); err != nil || version >= user.NamesVersion {
		return err
	}
	err := pgx.BeginFunc(ctx, s.pool, func(t pgx.Tx) error {
		err := t.QueryRow(ctx, "SELECT names FROM meta FOR UPDATE").Scan(&version)
		if err != nil || version >= user.NamesVersion {
			return err // another node has done it
		}
		err = eachUserChunk(ctx, t, func(users []listed) error {
			for i := range users {
				if err := s.renormalize(ctx, t, users[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			_, err = t.Exec(ctx, "UPDATE meta SET names = $1", user.NamesVersion)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("renormalize the names of users: %w", err)
	}
	return err
}

// renormalize normalizes the names of a user again, and replaces its entries in the index.
func (s *Store) renormalize(ctx context.Context, t pgx.Tx, was listed) error {
	is := listed{was.user.Clone(), was.keys}
	is.user.Username, is.user.Email = user.Sanitize(was.user.Username), user.Sanitize(was.user.Email)
	username, invalidUsername := user.UsernameKey(is.user.Username)
	email, invalidEmail := user.EmailKey(is.user.Email)
	var usernameTaken, emailTaken bool
	if err := t.QueryRow(ctx, keyTaken, was.user.ID, []byte(username), []byte(email)).Scan(&usernameTaken, &emailTaken); err != nil {
		return err
	}
	if invalidUsername == nil && !usernameTaken {
		is.keys.Username = username
	} else {
		s.warnName(was.user.ID, "username")
	}
	if invalidEmail == nil && !emailTaken {
		is.keys.Email = email
	} else {
		s.warnName(was.user.ID, "email")
	}
	if is.keys == was.keys && is.user.Equal(was.user, user.NewFieldSet("username", "email")) {
		return nil
	}
	if _, err := t.Exec(ctx, setNames, was.user.ID, is.user.Username, is.user.Email, []byte(is.keys.Username), []byte(is.keys.Email)); err != nil {
		return err
	}
	var index termChanges
	index.change(state(was), state(is))
	if _, err := t.Exec(ctx, deleteTerms, index.removeTokens, index.removeUsers); err != nil {
		return err
	}
	_, err := t.Exec(ctx, insertTerms, index.addTokens, index.addUsers)
	return err
}

func (s *Store) warnName(id int64, field string) {
	s.opts.Logger.Warn("name no longer unique or valid, rename the user", "user_id", id, "field", field)
}
