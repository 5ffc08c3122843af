package decide_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

var (
	errFault = errors.New("fault of a test")
	now      = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// memory is a transaction of a store in memory. The call of a method with the number fault fails.
type memory struct {
	users    map[int64]*user.User
	keys     map[int64]user.Keys
	request  *decide.Request
	result   user.Result // stored
	ids      []int64     // the next new ids
	saved    *encoding.Result
	savedFor int64
	changed  user.Keys // of the last update
	rows     int
	position int64

	calls, fault int
}

func (m *memory) fail() error {
	if m.calls++; m.calls == m.fault {
		return errFault
	}
	return nil
}

func (m *memory) Stamp() user.CommitStamp {
	return user.CommitStamp{LogTime: now, Clock: now, Earliest: now, NextPosition: m.position + 1}
}

func (m *memory) First() int64 { return 1 }

func (m *memory) NewID() (id int64, err error) {
	if len(m.ids) > 1 {
		id, m.ids = m.ids[0], m.ids[1:]
	} else {
		id = m.ids[0]
	}
	return id, m.fail()
}

func (m *memory) User(id int64) (*user.User, error) { return m.users[id], m.fail() }

func (m *memory) Holders(names user.Keys) (byName, byEmail *user.User, err error) {
	for id, keys := range m.keys {
		if names.Username != "" && keys.Username == names.Username {
			byName = m.users[id]
		}
		if names.Email != "" && keys.Email == names.Email {
			byEmail = m.users[id]
		}
	}
	return byName, byEmail, m.fail()
}

func (m *memory) Insert(u *user.User, keys user.Keys, _ decide.Index) error {
	if err := m.fail(); err != nil {
		return err
	}
	if m.users[u.ID] != nil {
		return decide.ErrSameID
	}
	return m.put(u, keys)
}

func (m *memory) Update(_, next *user.User, keys user.Keys) error {
	if err := m.fail(); err != nil {
		return err
	}
	m.changed = keys
	return m.put(next, keys)
}

func (m *memory) put(u *user.User, keys user.Keys) error {
	for id, other := range m.keys {
		if id != u.ID && (keys.Username != "" && other.Username == keys.Username || keys.Email != "" && other.Email == keys.Email) {
			return decide.ErrTaken
		}
	}
	own := m.keys[u.ID]
	if keys.Username != "" {
		own.Username = keys.Username
	}
	if keys.Email != "" {
		own.Email = keys.Email
	}
	m.users[u.ID], m.keys[u.ID] = u, own
	return nil
}

func (m *memory) Delete(cur *user.User) error {
	delete(m.users, cur.ID)
	delete(m.keys, cur.ID)
	return m.fail()
}

func (m *memory) Append(*user.Activity, []byte) error {
	m.rows++
	m.position++
	return m.fail()
}

func (*memory) Changed(user.CommittedChange) {}

func (m *memory) Request(*user.IdempotencyKey) (*decide.Request, error) { return m.request, m.fail() }

func (m *memory) Result(encoding.Result) (user.Result, error) { return m.result, m.fail() }

func (m *memory) SaveRequest(_ *user.IdempotencyKey, id int64, result encoding.Result) error {
	m.saved, m.savedFor = &result, id
	return m.fail()
}

// newMemory returns a transaction with the users ann (1), ben (2) and the deleted cal (3), who is due.
func newMemory(t *testing.T) *memory {
	t.Helper()
	m := &memory{users: make(map[int64]*user.User), keys: make(map[int64]user.Keys), position: 100}
	for i, name := range []string{"ann", "ben", "cal"} {
		m.ids = []int64{int64(i + 1)}
		apply(t, m, &user.Change{Op: create(t, name)})
	}
	apply(t, m, &user.Change{Op: &user.Delete{ID: 3}})
	m.ids = []int64{4}
	return m
}

func apply(t *testing.T, m *memory, c *user.Change) user.Result {
	t.Helper()
	result, err := change(m, c)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func change(m *memory, c *user.Change) (user.Result, error) {
	prepared := decide.Prepare(c)
	return decide.Change(m, c, &prepared)
}

func create(t *testing.T, name string) *user.Create {
	t.Helper()
	op, err := user.NewCreate(user.User{Username: name, Email: name + "@example.com", Tags: []string{"a"}, Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func rename(t *testing.T, id int64, name string) *user.Update {
	t.Helper()
	op, err := user.NewUpdate(id, user.NewPatch(user.User{Username: name, Email: name + "@example.com"}), "")
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// changes are changes of a newMemory.
func changes(t *testing.T) map[string]user.Change {
	t.Helper()
	key := &user.IdempotencyKey{ID: "1"}
	return map[string]user.Change{
		"create":                         {Op: create(t, "new"), IdempotencyKey: key},
		"create, validate only":          {Op: create(t, "new"), ValidateOnly: true},
		"create taken":                   {Op: create(t, "ann")},
		"create taken, validate only":    {Op: create(t, "ann"), ValidateOnly: true, OnConflict: user.ConflictSkip},
		"create taken, skip":             {Op: create(t, "ann"), OnConflict: user.ConflictSkip, IdempotencyKey: key},
		"create taken, update":           {Op: create(t, "ann"), OnConflict: user.ConflictUpdate},
		"update":                         {Op: rename(t, 1, "ada"), IdempotencyKey: key},
		"update, validate only":          {Op: rename(t, 1, "ada"), ValidateOnly: true},
		"update to a taken name":         {Op: rename(t, 1, "ben")},
		"update to a taken name, dry":    {Op: rename(t, 1, "ben"), ValidateOnly: true},
		"update without effect":          {Op: rename(t, 1, "ann")},
		"update of the e-mail address":   {Op: &user.Update{ID: 1, Patch: user.NewPatch(user.User{Username: "ann", Email: "ada@example.com"}), Keys: create(t, "ada").Keys}},
		"update of the username":         {Op: &user.Update{ID: 1, Patch: user.NewPatch(user.User{Username: "ada", Email: "ann@example.com"}), Keys: create(t, "ada").Keys}},
		"update of a missing user":       {Op: rename(t, 9, "ada")},
		"delete":                         {Op: &user.Delete{ID: 1}},
		"purge":                          {Op: &user.Purge{ID: 3}, IdempotencyKey: key},
		"record":                         {Op: &user.Record{ID: 1, Action: "a"}},
		"read":                           {Op: &user.ReadBarrier{ID: 1}},
		"status of another time":         {Op: &user.SetStatus{ID: 1, Status: user.StatusActive, Time: now.Add(time.Second)}},
		"status, prepared for a request": {Op: &user.SetStatus{ID: 1, Status: user.StatusSuspended}, IdempotencyKey: key, Prepare: true},
	}
}

// An unexpected error of the transaction is the error of the change, whichever call fails.
func TestFaultOfTransaction(t *testing.T) {
	t.Parallel()
	for name, c := range changes(t) {
		for _, stored := range []bool{false, true} {
			start := func(fault int) *memory {
				m := newMemory(t)
				if stored {
					m.request = &decide.Request{Fingerprint: make([]byte, 32), Created: now}
				}
				m.calls, m.fault = 0, fault
				return m
			}
			m := start(0)
			_, _ = change(m, &c)
			for fault := 1; fault <= m.calls; fault++ {
				if result, err := change(start(fault), &c); !errors.Is(err, errFault) {
					t.Errorf("%s, stored %t: call %d of %d fails: Change() = %+v, %v, want the fault", name, stored, fault, m.calls, result, err)
				}
			}
		}
	}
}

// A result does not share its user with the transaction.
func TestResultIsNotShared(t *testing.T) {
	t.Parallel()
	for name, c := range changes(t) {
		m := newMemory(t)
		inUse := maps.Clone(m.users)
		result, err := change(m, &c)
		if err != nil || result.User == nil {
			continue
		}
		if result.User == inUse[result.User.ID] {
			t.Errorf("%s: the result has the user of the transaction, want a copy", name)
		}
	}
}

// The results of changes that fail because of the state of the store, or have no effect.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"create":                         "created 4, saved for 4 with 1 rows from 105",
		"create, validate only":          "valid 0",
		"create taken":                   string(user.UsernameTaken),
		"create taken, validate only":    "valid 1",
		"create taken, skip":             "unchanged 1, saved for 1 with 0 rows from 0",
		"create taken, update":           "unchanged 1",
		"update":                         "updated 1, keys {ada ada@example.com}, saved for 1 with 1 rows from 105",
		"update, validate only":          "valid 1",
		"update to a taken name":         string(user.UsernameTaken),
		"update to a taken name, dry":    string(user.UsernameTaken),
		"update without effect":          "unchanged 1",
		"update of the e-mail address":   "updated 1, keys { ada@example.com}",
		"update of the username":         "updated 1, keys {ada }",
		"update of a missing user":       string(user.UserNotFound),
		"delete":                         "updated 1",
		"purge":                          "updated 0, saved for 3 with 1 rows from 105",
		"record":                         "updated 1",
		"read":                           "unchanged 1",
		"status of another time":         "unchanged 1",
		"status, prepared for a request": "updated 1",
	}
	names := map[user.Outcome]string{user.OutcomeCreated: "created", user.OutcomeUpdated: "updated", user.OutcomeUnchanged: "unchanged", user.OutcomeValid: "valid"}
	for name, c := range changes(t) {
		m := newMemory(t)
		result, err := change(m, &c)
		got := names[result.Outcome]
		if result.User != nil {
			got += fmt.Sprint(" ", result.User.ID)
		} else {
			got += " 0"
		}
		if m.changed != (user.Keys{}) {
			got += fmt.Sprintf(", keys %v", m.changed)
		}
		if m.saved != nil {
			got += fmt.Sprintf(", saved for %d with %d rows from %d", m.savedFor, m.saved.Rows, m.saved.First)
		}
		if failure, ok := user.AsError(err); ok {
			got = string(failure.Reason)
		}
		if got != want[name] {
			t.Errorf("%s: Change() = %s, %v, want %s", name, got, err, want[name])
		}
	}
}

// Without an unused id a create fails.
func TestNoUnusedID(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	m.ids = []int64{1}
	if result, err := change(m, &user.Change{Op: create(t, "new")}); err == nil {
		t.Errorf("Change(create) = %+v, want an error: all ids are in use", result)
	}
}

// An entry of the unique index without a user is an unexpected error.
func TestTakenByNoUser(t *testing.T) {
	t.Parallel()
	for name, op := range map[string]user.Op{"create": create(t, "eve"), "update": rename(t, 1, "eve")} {
		m := newMemory(t)
		m.keys[9] = create(t, "eve").Keys
		result, err := change(m, &user.Change{Op: op})
		if _, expected := user.AsError(err); err == nil || expected {
			t.Errorf("Change(%s) = %+v, %v, want an unexpected error", name, result, err)
		}
	}
}

// A stored result is returned until it expires, or one of its rows is pruned, and only for the same request.
func TestStoredResult(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		request decide.Request
		want    string
	}{
		"":                   {decide.Request{Created: now, Result: encoding.Result{First: 1, Rows: 1}}, "stored"},
		"almost expired":     {decide.Request{Created: now.Add(time.Nanosecond - user.RequestIDLifetime)}, "stored"},
		"expired":            {decide.Request{Created: now.Add(-user.RequestIDLifetime)}, "new"},
		"pruned":             {decide.Request{Created: now, Result: encoding.Result{First: 0, Rows: 1}}, "new"},
		"without rows":       {decide.Request{Created: now, Result: encoding.Result{First: 0, Rows: 0}}, "stored"},
		"of another request": {decide.Request{Created: now, Fingerprint: []byte("other")}, "reused"},
	} {
		m := newMemory(t)
		m.request, m.result = &row.request, user.Result{Outcome: user.OutcomeCreated, Position: 7}
		if m.request.Fingerprint == nil {
			m.request.Fingerprint = make([]byte, 32)
		}
		result, err := change(m, &user.Change{Op: &user.Record{ID: 1, Action: "a"}, IdempotencyKey: new(user.IdempotencyKey)})
		got := fmt.Sprintf("%+v", result)
		switch {
		case user.HasReason(err, user.RequestIDReused):
			got = "reused"
		case err != nil:
			got = err.Error()
		case result.Position == 7:
			got = "stored"
		case result.Outcome == user.OutcomeUpdated:
			got = "new"
		}
		if got != row.want {
			t.Errorf("request %s: Change() = %s, want %s", name, got, row.want)
		}
	}
}

// A decision with a row at another position than that of the transaction is an unexpected error.
func TestRowsOfDecisionAreChecked(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]user.Activity{
		"position": {Position: 104, Time: now}, "time": {Position: 105, Time: now.Add(1)},
	} {
		op := opFunc(func(cur *user.User) user.Decision { return user.Decision{User: cur, Rows: []user.Activity{row}} })
		if result, err := change(newMemory(t), &user.Change{Op: op}); err == nil {
			t.Errorf("wrong %s: Change() = %+v, want an error", name, result)
		}
	}
}

// Any op may change names. Their normal forms are those of the new names, which must be valid.
func TestNormalFormsOfOtherOps(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		username, email string
		want            user.Keys
		valid           bool
	}{
		{"Ada", "ann@example.com", user.Keys{Username: "ada"}, true},
		{"ann", "ADA@example.com", user.Keys{Email: "ada@example.com"}, true},
		{"", "ann@example.com", user.Keys{}, false},
		{"ann", "", user.Keys{}, false},
	} {
		m := newMemory(t)
		op := opFunc(func(cur *user.User) user.Decision {
			next := cur.Clone()
			next.Username, next.Email = row.username, row.email
			return user.Decision{User: next, Store: true}
		})
		if _, err := change(m, &user.Change{Op: op}); (err == nil) != row.valid || m.changed != row.want {
			t.Errorf("names %q, %q: keys = %v, %v, want %v, valid %t", row.username, row.email, m.changed, err, row.want, row.valid)
		}
	}
}

// opFunc is an op on ann.
type opFunc func(cur *user.User) user.Decision

func (opFunc) Target() int64 { return 1 }

func (f opFunc) Decide(cur *user.User, _ user.CommitStamp, _ user.Author) (user.Decision, error) {
	return f(cur), nil
}
