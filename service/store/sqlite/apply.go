package sqlite

import (
	"database/sql/driver"
	"fmt"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

var _ decide.Tx = (*writer)(nil)

// Stamp implements decide.Tx.
func (w *writer) Stamp() user.CommitStamp {
	return user.CommitStamp{LogTime: w.now, Clock: w.clock, Earliest: w.due, NextPosition: w.next}
}

// First implements decide.Tx.
func (w *writer) First() int64 { return w.store.first.Load() }

// NewID implements decide.Tx.
func (w *writer) NewID() (int64, error) { return w.store.ids.New(w.clock) }

// User implements decide.Tx.
func (w *writer) User(id int64) (*user.User, error) { return w.getUser.oneUser(id) }

// Holders implements decide.Tx.
func (w *writer) Holders(keys user.Keys) (byName, byEmail *user.User, err error) {
	if keys.Username != "" {
		if byName, err = w.getByName.oneUser(keys.Username); err != nil {
			return nil, nil, err
		}
	}
	if keys.Email != "" {
		byEmail, err = w.getByEmail.oneUser(keys.Email)
	}
	return byName, byEmail, err
}

// Insert implements decide.Tx.
func (w *writer) Insert(u *user.User, keys user.Keys, index decide.Index) error {
	err := w.insertUser.exec(columnValues(columns, u, keys.Username, keys.Email)...)
	switch {
	case isSameID(err):
		return decide.ErrSameID
	case err != nil:
		return takenOr(err)
	}
	w.index.create(u.ID, index)
	return nil
}

// takenOr returns ErrTaken for a violation of a unique index, else err.
func takenOr(err error) error {
	if isTaken(err) {
		return decide.ErrTaken
	}
	return err
}

// Delete implements decide.Tx. It also deletes the entries of the user in the index.
func (w *writer) Delete(cur *user.User) error {
	before, err := w.indexKeys(cur, nil)
	if err != nil {
		return err
	}
	w.store.users.remove(cur.ID)
	if err := w.deleteUser.exec(cur.ID); err != nil {
		return err
	}
	w.index.purge(cur.ID, tokens.OfUser(cur, before))
	if err := w.requests.flush(); err != nil {
		return err
	}
	for more := true; more && err == nil; { // results stored since the last Redact, which are few
		more, err = w.forgetUser(cur.ID, forgetBatch)
	}
	return err
}

// forgetBatch is the number of stored results that are deleted at a time.
const forgetBatch = 1000

// Update implements decide.Tx.
func (w *writer) Update(cur, next *user.User, keys user.Keys) error {
	before, err := w.indexKeys(cur, next)
	if err != nil {
		return err
	}
	w.store.users.remove(cur.ID)
	if next.Equal(cur, rareColumns) {
		err = w.updateUser.exec(columnValues(updateColumns, next, cur.ID)...)
	} else {
		err = w.updateUserFully.exec(columnValues(allUpdateColumns, next, textOrNull(keys.Username), textOrNull(keys.Email), cur.ID)...)
	}
	if err != nil {
		return takenOr(err)
	}
	w.indexUpdate(cur, next, before, keys)
	return nil
}

func textOrNull(s string) driver.Value {
	if s == "" {
		return nil
	}
	return s
}

// Append implements decide.Tx.
func (w *writer) Append(row *user.Activity, details []byte) error {
	w.next++
	if err := w.log.add(row.Position, row.UserID, row.Time.UnixMicro(), row.Action, details); err != nil {
		return fmt.Errorf("append rows: %w", err)
	}
	return nil
}

// prepare is decide.Prepare with the text of the tokens.
func prepare(c *user.Change) decide.Prepared {
	p := decide.Prepare(c)
	p.Index.Text = joinTokens(p.Index.Tokens)
	return p
}

// Changed implements decide.Tx.
func (w *writer) Changed(change user.CommittedChange) {
	if w.store.observe != nil {
		w.committed = append(w.committed, change)
	}
}
