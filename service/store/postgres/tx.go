package postgres

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

// tx is a transaction that has locked the counter row. It has what load has read, and the changes decided on it, which
// flush writes. What was not read before is read when it is needed.
type tx struct {
	store  *Store
	ctx    context.Context //nolint:containedctx // of the transaction
	conn   *pgx.Conn
	number int64 // of the transaction in this process, by which its outcome is found

	head       user.Head // before the transaction
	first      int64     // position of the oldest retained row
	now        time.Time // time of its rows
	clock, due time.Time // best known and earliest possible time
	next       int64     // position of the next row

	users     map[int64]*state // with a nil user: there is none
	usernames map[string]int64 // by key; 0: free
	emails    map[string]int64
	requests  map[requestKey]*decide.Request // nil: there is none

	ids       []int64          // unused ids for new users
	before    map[int64]*state // of changed users, as stored
	prepared  map[int64][]tokens.Token
	rows      []user.Activity
	details   [][]byte // of the rows, encoded
	written   int      // number of rows that are written
	committed []user.CommittedChange
	saved     map[requestKey]savedRequest
	shared    map[sharedKey][]byte // encoded users of saved results
	undo      []func()

	failure error // of the database; the transaction cannot continue
}

var _ decide.Tx = (*tx)(nil)

// state is a user with its keys. It is not modified.
type state struct {
	user *user.User
	keys user.Keys
}

// failed records an error of the database.
func (t *tx) failed(err error) error {
	if t.failure == nil {
		t.failure = err
	}
	return err
}

// mark returns the state of the transaction for rollback.
func (t *tx) mark() int { return len(t.undo) }

// rollback reverts the changes since mark.
func (t *tx) rollback(mark int) {
	for i := len(t.undo) - 1; i >= mark; i-- {
		t.undo[i]()
	}
	t.undo = t.undo[:mark]
}

// Stamp implements decide.Tx.
func (t *tx) Stamp() user.CommitStamp {
	return user.CommitStamp{LogTime: t.now, Clock: t.clock, Earliest: t.due, NextPosition: t.next}
}

// First implements decide.Tx.
func (t *tx) First() int64 { return t.first }

// NewID implements decide.Tx.
func (t *tx) NewID() (int64, error) {
	if last := len(t.ids) - 1; last >= 0 {
		id := t.ids[last]
		t.ids = t.ids[:last]
		return id, nil
	}
	return t.store.ids.New(t.clock)
}

// findIDs finds unused ids for the users that parts create.
func (t *tx) findIDs(parts []part) error {
	const spare = 16 // some are in use
	n := spare
	for _, p := range parts {
		n += p.To - p.From
	}
	drawn := make(map[int64]struct{}, n)
	for range n {
		id, err := t.store.ids.New(t.clock)
		if err != nil {
			return err
		}
		drawn[id] = struct{}{}
	}
	rows, err := t.conn.Query(t.ctx, "SELECT id FROM unnest($1::bigint[]) AS n(id) WHERE NOT EXISTS (SELECT FROM users WHERE user_id = id)",
		slices.Collect(maps.Keys(drawn)))
	if err == nil {
		t.ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	return err
}

// User implements decide.Tx.
func (t *tx) User(id int64) (*user.User, error) {
	if s, known := t.users[id]; known {
		return s.user, nil
	}
	if err := t.loadUsers("user_id = $1", id); err != nil {
		return nil, err
	}
	if t.users[id] == nil {
		t.users[id] = &state{}
	}
	return t.users[id].user, nil
}

// loadUsers reads users outside of load.
func (t *tx) loadUsers(where string, arg any) error {
	rows, err := t.conn.Query(t.ctx, userSelect+"WHERE "+where, arg)
	if err != nil {
		return t.failed(err)
	}
	if err := eachUser(rows, func(u *user.User, keys user.Keys, _ int) { t.add(u, keys) }); err != nil {
		return t.failed(err)
	}
	return nil
}

// add adds a user as it was read.
func (t *tx) add(u *user.User, keys user.Keys) {
	if t.users[u.ID] == nil {
		t.users[u.ID] = &state{u, keys}
		t.usernames[keys.Username], t.emails[keys.Email] = u.ID, u.ID
	}
}

// Holders implements decide.Tx.
func (t *tx) Holders(keys user.Keys) (byName, byEmail *user.User, err error) {
	if byName, err = t.holder(t.usernames, "username_key", keys.Username); err != nil {
		return nil, nil, err
	}
	byEmail, err = t.holder(t.emails, "email_key", keys.Email)
	return byName, byEmail, err
}

// holder returns the user with a key, or nil.
func (t *tx) holder(holders map[string]int64, column, key string) (*user.User, error) {
	if key == "" {
		return nil, nil //nolint:nilnil // it has no holder
	}
	id, known := holders[key]
	if !known {
		if err := t.loadUsers(column+" = $1", []byte(key)); err != nil {
			return nil, err
		}
		if id, known = holders[key]; !known {
			holders[key] = 0
		}
	}
	if id == 0 {
		return nil, nil //nolint:nilnil // it has no holder
	}
	return t.users[id].user, nil
}

// taken reports whether another user has one of the keys.
func (t *tx) taken(id int64, keys user.Keys) (bool, error) {
	byName, byEmail, err := t.Holders(keys)
	return byName != nil && byName.ID != id || byEmail != nil && byEmail.ID != id, err
}

// Insert implements decide.Tx. Whether the id of a new user is in use is known when it is written.
func (t *tx) Insert(u *user.User, keys user.Keys, index decide.Index) error {
	if s := t.users[u.ID]; s != nil && s.user != nil {
		return decide.ErrSameID
	}
	if taken, err := t.taken(u.ID, keys); err != nil || taken {
		return errOr(err, decide.ErrTaken)
	}
	t.set(u.ID, &state{u, keys})
	t.prepared[u.ID] = index.Tokens
	return nil
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// Update implements decide.Tx.
func (t *tx) Update(cur, next *user.User, keys user.Keys) error {
	if taken, err := t.taken(cur.ID, keys); err != nil || taken {
		return errOr(err, decide.ErrTaken)
	}
	old := t.users[cur.ID].keys
	if keys.Username == "" {
		keys.Username = old.Username
	}
	if keys.Email == "" {
		keys.Email = old.Email
	}
	t.set(cur.ID, &state{next, keys})
	delete(t.prepared, cur.ID)
	return nil
}

// Delete implements decide.Tx.
func (t *tx) Delete(cur *user.User) error {
	t.set(cur.ID, &state{})
	t.forgetResults(cur.ID)
	return nil
}

// forgetResults drops the results that contain a user, as deleteResults does in the database.
func (t *tx) forgetResults(id int64) {
	saved, shared, requests := maps.Clone(t.saved), maps.Clone(t.shared), maps.Clone(t.requests)
	t.undo = append(t.undo, func() { t.saved, t.shared, t.requests = saved, shared, requests })
	maps.DeleteFunc(t.saved, func(_ requestKey, r savedRequest) bool { return r.userID == id })
	maps.DeleteFunc(t.shared, func(k sharedKey, _ []byte) bool { return k.id == id })
	for k, r := range t.requests {
		if r != nil && r.Result.User != nil && r.Result.User.ID == id {
			t.requests[k] = nil
		}
	}
}

// set replaces the state of a user.
func (t *tx) set(id int64, next *state) {
	old := t.users[id]
	_, changed := t.before[id]
	if !changed {
		t.before[id] = old
	}
	t.move(id, old, next)
	t.undo = append(t.undo, func() {
		t.move(id, next, old)
		if !changed {
			delete(t.before, id)
		}
	})
}

// move replaces the state of a user and the holders of its names.
func (t *tx) move(id int64, from, to *state) {
	if from != nil && from.user != nil {
		t.usernames[from.keys.Username], t.emails[from.keys.Email] = 0, 0
	}
	if to != nil && to.user != nil {
		t.usernames[to.keys.Username], t.emails[to.keys.Email] = id, id
	}
	if to == nil {
		delete(t.users, id)
	} else {
		t.users[id] = to
	}
}

// Append implements decide.Tx.
func (t *tx) Append(row *user.Activity, details []byte) error {
	n := len(t.rows)
	t.rows, t.details = append(t.rows, *row), append(t.details, details)
	t.next++
	t.undo = append(t.undo, func() {
		t.rows, t.details = t.rows[:n], t.details[:n]
		t.next--
	})
	return nil
}

// Changed implements decide.Tx.
func (t *tx) Changed(change user.CommittedChange) {
	n := len(t.committed)
	t.committed = append(t.committed, change)
	t.undo = append(t.undo, func() { t.committed = t.committed[:n] })
}
