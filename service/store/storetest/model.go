package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Model is an in-memory [user.Store]: the reference implementation that other stores are
// compared with, and a fake for tests. It is simple instead of fast: each write copies all data.
type Model struct {
	clock    func() time.Time
	ids      *user.IDs
	observer func(user.Commit)

	writing sync.Mutex // serializes writes
	mu      sync.Mutex // protects data and closed
	data    *modelData
	closed  bool
}

var _ user.Store = (*Model)(nil)

// modelData is the contents of a Model. Users and rows in it are never modified, only
// replaced.
type modelData struct {
	users    map[int64]*user.User
	keys     map[int64]user.Keys // by user ID
	log      []user.Activity
	end      user.Head // of the log
	requests map[requestKey]request
}

type requestKey struct{ caller, procedure, id string }

type request struct {
	fingerprint [32]byte
	created     time.Time
	result      user.Result
	userID      int64
}

func (d *modelData) clone() *modelData {
	return &modelData{
		end: d.end, users: maps.Clone(d.users), keys: maps.Clone(d.keys),
		log: slices.Clone(d.log), requests: maps.Clone(d.requests),
	}
}

// NewModel returns an empty store; a nil clock means time.Now.
func NewModel(clock func() time.Time) *Model {
	if clock == nil {
		clock = time.Now
	}
	return &Model{
		clock: clock, ids: user.NewIDs(nil),
		data: &modelData{
			end: user.Head{Epoch: "model"}, users: map[int64]*user.User{}, keys: map[int64]user.Keys{}, requests: map[requestKey]request{},
		},
	}
}

// Reopen returns a new store with the data of m, which must be closed.
func (m *Model) Reopen(clock func() time.Time) *Model {
	next := NewModel(clock)
	next.data = m.data
	return next
}

// Submit applies the batch before it returns.
func (m *Model) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	pending, end := user.NewPending()
	m.writing.Lock()
	defer m.writing.Unlock()
	if err := m.checkOpen(ctx); err != nil {
		end(nil, err)
		return pending
	}
	tx := &modelTx{model: m, data: m.data.clone()}
	tx.clock = user.Truncate(m.clock())
	tx.now = tx.clock
	if tx.now.Before(tx.data.end.Time) {
		tx.now = tx.data.end.Time
	}
	results, err := tx.batch(batch)
	m.mu.Lock()
	m.data = tx.data
	m.mu.Unlock()
	if m.observer != nil && len(tx.committed) > 0 {
		m.observer(user.Commit{Head: tx.data.end, Changes: tx.committed})
	}
	end(results, err)
	return pending
}

func (m *Model) checkOpen(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if m.closed {
		return user.NewStoreUnavailableError()
	}
	return nil
}

// modelTx is a transaction: it modifies a copy of the data, which Submit then installs.
type modelTx struct {
	model     *Model
	data      *modelData
	now       time.Time
	clock     time.Time
	committed []user.CommittedChange
}

func (tx *modelTx) batch(batch user.Batch) ([]user.Result, error) {
	before, results := tx.data.clone(), make([]user.Result, len(batch.Changes))
	userBytes := 0
	for i, c := range batch.Changes {
		var err error
		if results[i], err = tx.changeRecovering(c); err == nil {
			results[i].LimitUser(&userBytes, batch.MaxUserBytes)
			continue
		}
		if batch.Atomic {
			tx.data, tx.committed = before, nil
			return nil, &user.ItemError{Index: i, Err: err}
		}
		results[i] = user.Result{Err: err} // a change that fails modifies nothing
	}
	return results, nil
}

func (tx *modelTx) changeRecovering(c user.Change) (result user.Result, err error) {
	defer func() {
		if value := recover(); value != nil {
			result, err = user.Result{}, fmt.Errorf("panic: %v", value)
		}
	}()
	return tx.change(c)
}

func (tx *modelTx) change(c user.Change) (user.Result, error) {
	if c.IdempotencyKey == nil || c.ValidateOnly {
		return tx.decide(c)
	}
	key := requestKey{c.IdempotencyKey.Caller, c.IdempotencyKey.Procedure, c.IdempotencyKey.ID}
	if r, ok := tx.data.requests[key]; ok && tx.clock.Sub(r.created) < user.RequestIDLifetime && !tx.data.prunedAny(r.result.Rows) {
		if r.fingerprint != c.IdempotencyKey.Fingerprint {
			return user.Result{}, user.NewRequestIDReusedError()
		}
		if err := c.ReserveResult(r.result.User); err != nil {
			return user.Result{}, err
		}
		return cloneResult(r.result), nil
	}
	result, err := tx.decide(c)
	if err != nil || c.Prepare {
		return result, err
	}
	id := c.Op.Target()
	if result.User != nil {
		id = result.User.ID
	}
	tx.data.requests[key] = request{c.IdempotencyKey.Fingerprint, tx.clock, cloneResult(result), id}
	return result, nil
}

func (tx *modelTx) decide(c user.Change) (user.Result, error) {
	create, ok := c.Op.(*user.Create)
	if !ok {
		return tx.apply(c.Op, c)
	}
	byName, byEmail := tx.holder(create.Keys.Username, ""), tx.holder("", create.Keys.Email)
	if byName == nil && byEmail == nil {
		mine := *create
		mine.ID = 0
		for !c.ValidateOnly && (mine.ID == 0 || tx.data.users[mine.ID] != nil) {
			var err error
			if mine.ID, err = tx.model.ids.New(tx.clock); err != nil {
				return user.Result{}, err
			}
		}
		return tx.apply(&mine, c)
	}
	skip, instead, err := create.Resolve(c.OnConflict, byName, byEmail)
	switch {
	case err != nil:
		return user.Result{}, err
	case instead != nil:
		return tx.apply(instead, c)
	case c.ValidateOnly:
		return tx.result(user.OutcomeValid, skip), nil
	default:
		return tx.result(user.OutcomeUnchanged, skip), nil
	}
}

func (tx *modelTx) apply(op user.Op, c user.Change) (user.Result, error) {
	id, outcome := op.Target(), user.OutcomeUpdated
	if create, ok := op.(*user.Create); ok {
		id, outcome = create.ID, user.OutcomeCreated
	}
	cur := tx.data.users[id]
	if cur != nil {
		cur = cur.Clone()
	}
	if err := c.ReserveResult(cur); err != nil {
		return user.Result{}, err
	}
	d, err := op.Decide(cur, user.CommitStamp{LogTime: tx.now, Clock: tx.clock, Earliest: tx.clock, NextPosition: tx.data.end.Position + 1}, c.By)
	if err != nil {
		return user.Result{}, err
	}
	if err := tx.unique(d.User, id); err != nil {
		return user.Result{}, err
	}
	if c.ValidateOnly {
		return tx.result(user.OutcomeValid, d.User), nil
	}
	if !d.Changed() {
		outcome = user.OutcomeUnchanged
	}
	if !d.Store && !d.Changed() {
		return tx.result(outcome, d.User), nil
	}
	if d.Store {
		if d.User == nil {
			delete(tx.data.users, id)
			delete(tx.data.keys, id)
			maps.DeleteFunc(tx.data.requests, func(_ requestKey, r request) bool { return r.userID == id })
		} else {
			tx.data.users[id] = d.User.Clone()
			tx.data.keys[id] = keysOf(d.User)
		}
	}
	tx.data.log = append(tx.data.log, cloneRows(d.Rows)...)
	if n := len(d.Rows); n > 0 {
		tx.data.end.Position, tx.data.end.Time = d.Rows[n-1].Position, d.Rows[n-1].Time
	}
	tx.committed = append(tx.committed, user.CommittedChange{UserID: id, User: d.User.Summary(), Rows: user.Summaries(d.Rows), Origin: c.By.Origin})
	result := tx.result(outcome, d.User)
	result.Rows = cloneRows(d.Rows)
	return result, nil
}

func (tx *modelTx) result(outcome user.Outcome, u *user.User) user.Result {
	return user.Result{Outcome: outcome, User: cloneUser(u), Position: tx.data.end.Position}
}

// unique returns an error if another user than id has the username or e-mail address of u.
func (tx *modelTx) unique(u *user.User, id int64) error {
	if u == nil {
		return nil
	}
	keys := keysOf(u)
	if h := tx.holder(keys.Username, ""); h != nil && h.ID != id {
		return user.NewTakenError(user.UsernameTaken, h.Deleted())
	}
	if h := tx.holder("", keys.Email); h != nil && h.ID != id {
		return user.NewTakenError(user.EmailTaken, h.Deleted())
	}
	return nil
}

// holder returns the user with the username or the e-mail address, or nil.
func (tx *modelTx) holder(username, email string) *user.User {
	for id, keys := range tx.data.keys {
		if keys.Username == username || keys.Email == email {
			return tx.data.users[id]
		}
	}
	return nil
}

// keysOf returns the normal forms of u's names, which are valid.
func keysOf(u *user.User) user.Keys {
	username, err := user.UsernameKey(u.Username)
	email, err2 := user.EmailKey(u.Email)
	if err != nil || err2 != nil {
		panic(errors.Join(err, err2))
	}
	return user.Keys{Username: username, Email: email}
}

func cloneUser(u *user.User) *user.User {
	if u == nil {
		return nil
	}
	return u.Clone()
}

func cloneRows(rows []user.Activity) []user.Activity {
	own := slices.Clone(rows)
	for i := range own {
		own[i].Details = maps.Clone(own[i].Details)
	}
	return own
}

func cloneResult(r user.Result) user.Result {
	r.User, r.Rows = cloneUser(r.User), cloneRows(r.Rows)
	return r
}
