package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/user"
)

// maxIDAttempts bounds the attempts to find an unused ID. IDs have 22 random bits for
// each millisecond, so a second attempt is rare.
const maxIDAttempts = 64

// change applies one change. After an expected failure (a *user.Error) the transaction
// is unmodified: such failures occur before or at the first write. tokens are those of createTokens.
func (w *writer) change(c *user.Change, tokens []token) (user.Result, error) {
	key := c.IdempotencyKey
	if c.ValidateOnly {
		key = nil
	}
	if key != nil {
		result, found, err := w.lookupResult(key)
		if err == nil {
			err = c.ReserveResult(result.User)
		}
		if found || err != nil {
			return result, err
		}
	}
	var result user.Result
	var err error
	if create, ok := c.Op.(*user.Create); ok {
		result, err = w.create(create, c, tokens)
	} else {
		result, err = w.alter(c.Op, c)
	}
	if err == nil && key != nil && !c.Prepare {
		err = w.saveResult(key, c.Op, &result)
	}
	return result, err
}

func (w *writer) stamp() user.CommitStamp {
	return user.CommitStamp{LogTime: w.now, Clock: w.clock, Earliest: w.due, NextPosition: w.next}
}

func (w *writer) create(op *user.Create, c *user.Change, tokens []token) (user.Result, error) {
	withID := *op // a copy: the ID is set below
	if c.ValidateOnly {
		withID.ID = 0
		d, err := withID.Decide(nil, w.stamp(), c.By)
		if err != nil {
			return user.Result{}, err
		}
		byName, byEmail, err := w.holders(withID.Keys)
		if err != nil {
			return user.Result{}, err
		}
		if byName != nil || byEmail != nil {
			return w.conflict(op, c, byName, byEmail)
		}
		return w.valid(d.User), nil
	}
	for range maxIDAttempts {
		var err error
		if withID.ID, err = w.store.ids.New(w.clock); err != nil {
			return user.Result{}, fmt.Errorf("new user id: %w", err)
		}
		d, err := withID.Decide(nil, w.stamp(), c.By)
		if err != nil {
			return user.Result{}, err
		}
		switch err = w.insert(d.User, withID.Keys, withSample(tokens, withID.ID)); {
		case err == nil:
			return w.finish(user.OutcomeCreated, withID.ID, &d, c)
		case isSameID(err):
			continue
		case !isTaken(err):
			return user.Result{}, err
		}
		byName, byEmail, err := w.holders(withID.Keys)
		if err != nil {
			return user.Result{}, err
		}
		return w.conflict(op, c, byName, byEmail)
	}
	return user.Result{}, fmt.Errorf("no unused user id found in %d attempts", maxIDAttempts)
}

// conflict resolves a create with a taken name by the conflict policy.
func (w *writer) conflict(op *user.Create, c *user.Change, byName, byEmail *user.User) (user.Result, error) {
	if byName == nil && byEmail == nil {
		return user.Result{}, errors.New("unique index entry without a user; check the store")
	}
	skip, instead, err := op.Resolve(c.OnConflict, byName, byEmail)
	switch {
	case err != nil:
		return user.Result{}, err
	case instead != nil:
		return w.alter(instead, c)
	case c.ValidateOnly:
		return w.valid(skip), nil
	default:
		return user.Result{Outcome: user.OutcomeUnchanged, User: skip, Position: w.next - 1}, nil
	}
}

// alter applies an op other than a create.
func (w *writer) alter(op user.Op, c *user.Change) (user.Result, error) {
	id := op.Target()
	cur, err := w.getUser.oneUser(id)
	if err == nil {
		err = c.ReserveResult(cur)
	}
	if err != nil {
		return user.Result{}, err
	}
	d, err := op.Decide(cur, w.stamp(), c.By)
	if err != nil {
		return user.Result{}, err
	}
	keys, err := changedKeys(op, cur, d.User)
	if err != nil {
		return user.Result{}, err
	}
	if c.ValidateOnly {
		if err := w.taken(keys, id); err != nil {
			return user.Result{}, err
		}
		return w.valid(d.User), nil
	}
	if !d.Store && !d.Changed() {
		return user.Result{Outcome: user.OutcomeUnchanged, User: d.User, Position: w.next - 1}, nil
	}
	if d.Store {
		if err := w.writeUser(cur, d.User, id, keys); err != nil {
			return user.Result{}, err
		}
	}
	outcome := user.OutcomeUpdated
	if !d.Changed() {
		outcome = user.OutcomeUnchanged // only the status time changed
	}
	return w.finish(outcome, id, &d, c)
}

// writeUser inserts, updates or deletes a user.
func (w *writer) writeUser(cur, next *user.User, id int64, keys user.Keys) error {
	var err error
	switch {
	case next == nil:
		return w.deleteCompletely(cur)
	case cur == nil:
		err = w.insert(next, keys, userTokens(next, keys))
	default:
		err = w.update(cur, next, keys)
	}
	if isTaken(err) {
		if taken := w.taken(keys, id); taken != nil {
			return taken
		}
	}
	return err
}

func (w *writer) insert(u *user.User, keys user.Keys, tokens []token) error {
	if err := w.insertUser.exec(columnValues(columns, u, keys.Username, keys.Email)...); err != nil {
		return err
	}
	w.index.replace(u.ID, nil, tokens)
	return nil
}

// deleteCompletely deletes a user and its entries in the index.
func (w *writer) deleteCompletely(cur *user.User) error {
	before, err := w.indexKeys(cur, nil)
	if err != nil {
		return err
	}
	if err := w.deleteUser.exec(cur.ID); err != nil {
		return err
	}
	w.index.replace(cur.ID, userTokens(cur, before), nil)
	return nil
}

func (w *writer) update(cur, next *user.User, keys user.Keys) error {
	before, err := w.indexKeys(cur, next)
	if err != nil {
		return err
	}
	if next.Equal(cur, rareColumns) {
		err = w.updateUser.exec(columnValues(updateColumns, next, cur.ID)...)
	} else {
		err = w.updateUserFully.exec(columnValues(allUpdateColumns, next, textOrNull(keys.Username), textOrNull(keys.Email), cur.ID)...)
	}
	if err != nil {
		return err
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

// changedKeys returns the normal forms of the names that change; others are empty.
func changedKeys(op user.Op, cur, next *user.User) (keys user.Keys, err error) {
	if next == nil {
		return keys, nil
	}
	if update, ok := op.(*user.Update); ok {
		keys = update.Keys
	}
	var failure *user.Error
	switch {
	case cur != nil && next.Username == cur.Username:
		keys.Username = ""
	case keys.Username == "":
		if keys.Username, failure = user.UsernameKey(next.Username); failure != nil {
			return keys, failure
		}
	}
	switch {
	case cur != nil && next.Email == cur.Email:
		keys.Email = ""
	case keys.Email == "":
		if keys.Email, failure = user.EmailKey(next.Email); failure != nil {
			return keys, failure
		}
	}
	return keys, nil
}

// holders returns the users with the given names, or nil.
func (w *writer) holders(keys user.Keys) (byName, byEmail *user.User, err error) {
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

// taken returns an error if another user than id has one of the names.
func (w *writer) taken(keys user.Keys, id int64) error {
	byName, byEmail, err := w.holders(keys)
	switch {
	case err != nil:
		return err
	case byName != nil && byName.ID != id:
		return user.NewTakenError(user.UsernameTaken, byName.Deleted())
	case byEmail != nil && byEmail.ID != id:
		return user.NewTakenError(user.EmailTaken, byEmail.Deleted())
	}
	return nil
}

func (w *writer) valid(u *user.User) user.Result {
	return user.Result{Outcome: user.OutcomeValid, User: u, Position: w.next - 1}
}

// finish writes the log rows of a decision and returns the result.
func (w *writer) finish(outcome user.Outcome, id int64, d *user.Decision, c *user.Change) (user.Result, error) {
	for i := range d.Rows {
		row := &d.Rows[i]
		if row.Position != w.next+int64(i) || !row.Time.Equal(w.now) {
			return user.Result{}, fmt.Errorf("row %d of the decision: position %d, time %s, want position %d, time %s",
				i, row.Position, row.Time, w.next+int64(i), w.now)
		}
		if err := w.insertRow.exec(row.Position, row.UserID, row.Time.UnixMicro(), row.Action, encodeMap(formMap, row.Details)); err != nil {
			return user.Result{}, err
		}
	}
	w.next += int64(len(d.Rows))
	if w.store.observe != nil {
		w.committed = append(w.committed, user.CommittedChange{UserID: id, User: d.User.Summary(), Rows: user.Summaries(d.Rows), Origin: c.By.Origin})
	}
	return user.Result{Outcome: outcome, User: cloneUser(d.User), Rows: cloneRows(d.Rows), Position: w.next - 1}, nil
}
