package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/yourorg/userservice/service/user"
)

// renormalizeNames applies the current normalization rules to the names of all users, in one
// transaction and without log rows. If two users would get the same normal form, the second
// keeps its old one, and a warning is logged.
func renormalizeNames(c *conn, log *slog.Logger) (err error) {
	version := int64(0)
	err = c.rows("SELECT names FROM meta", func(row []driver.Value) error {
		version = asNumber(row[0])
		return nil
	})
	if err != nil || version == user.NamesVersion {
		return err
	}
	if err := c.run("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("renormalize the names of users: %w", err), c.run("ROLLBACK"))
		}
	}()
	r := newNormalizer(&err, c, log)
	for last := int64(0); err == nil; {
		users, failure := r.after(last)
		if err = failure; err != nil || len(users) == 0 {
			break
		}
		for i := range users {
			if err = r.update(&users[i]); err != nil {
				break
			}
			last = users[i].id
		}
	}
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"UPDATE meta SET names = " + strconv.Itoa(user.NamesVersion) + ", indexed = 0, commits = commits + 1", // see buildIndex
		"INSERT INTO terms(terms) VALUES ('delete-all')",
		"DELETE FROM unused_terms",
	} {
		if err := c.run(statement); err != nil {
			return err
		}
	}
	return c.run("COMMIT")
}

// normalizer updates the stored normal forms of users.
type normalizer struct {
	log      *slog.Logger
	chunk    *stmt
	show     *stmt
	username keyNormalizer
	email    keyNormalizer
}

type keyNormalizer struct {
	field string
	key   func(string) (string, *user.Error)
	taken *stmt
	set   *stmt
}

func newNormalizer(err *error, c *conn, log *slog.Logger) *normalizer {
	key := func(field string, key func(string) (string, *user.Error)) keyNormalizer {
		return keyNormalizer{
			field: field, key: key,
			taken: c.prepare(err, "SELECT user_id FROM users WHERE "+field+"_key = ?"),
			set:   c.prepare(err, "UPDATE users SET "+field+"_key = ? WHERE user_id = ?"),
		}
	}
	return &normalizer{
		log: log,
		chunk: c.prepare(err, "SELECT user_id, username, username_key, email, email_key FROM users "+
			"WHERE user_id > ? ORDER BY user_id LIMIT ?"),
		show:     c.prepare(err, "UPDATE users SET username = ?, email = ? WHERE user_id = ?"),
		username: key("username", user.UsernameKey),
		email:    key("email", user.EmailKey),
	}
}

// names are the stored names of a user.
type names struct {
	id                                     int64
	username, usernameKey, email, emailKey string
}

// after returns the names of the users with the next higher IDs.
func (r *normalizer) after(id int64) (users []names, err error) {
	err = r.chunk.each(func(row []driver.Value) (bool, error) {
		users = append(users, names{asNumber(row[0]), asText(row[1]), asText(row[2]), asText(row[3]), asText(row[4])})
		return true, nil
	}, id, int64(checkChunk))
	return users, err
}

func (r *normalizer) update(n *names) error {
	if username, email := user.Sanitize(n.username), user.Sanitize(n.email); username != n.username || email != n.email {
		if err := r.show.exec(username, email, n.id); err != nil {
			return err
		}
	}
	if err := r.updateKey(r.username, n.id, n.username, n.usernameKey); err != nil {
		return err
	}
	return r.updateKey(r.email, n.id, n.email, n.emailKey)
}

func (r *normalizer) updateKey(k keyNormalizer, id int64, name, stored string) error {
	next, invalid := k.key(name)
	if invalid == nil && next == stored {
		return nil
	}
	if invalid == nil {
		holder, err := k.taken.one(next)
		if err != nil {
			return err
		}
		if holder == nil {
			return k.set.exec(next, id)
		}
	}
	r.log.Warn("name no longer unique or valid, rename the user", "user_id", id, "field", k.field)
	return nil
}
