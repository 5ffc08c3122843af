// Package check has the checks of a store that do not depend on its database: of users against the log, and of the index.
package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

const maxFindings = 100

// ErrTooManyFindings is the error of a check that ends early.
var ErrTooManyFindings = errors.New("too many findings")

// Findings are the problems found, in words for an operator.
type Findings struct{ List []string }

// Add adds a finding. It fails with ErrTooManyFindings if there are many.
func (f *Findings) Add(format string, args ...any) error {
	if len(f.List) == maxFindings {
		return ErrTooManyFindings
	}
	f.List = append(f.List, fmt.Sprintf(format, args...))
	return nil
}

// Store is what the check of a user reads.
type Store interface {
	// Row returns a row of the log without details, or nil.
	Row(position int64) (*user.Activity, error)
	// Head returns the position up to which the log is checked.
	Head() int64
	// Missing adds a finding about a missing row, unless the row was pruned.
	Missing(position int64, format string, args ...any) error
	// CurrentNames reports whether the stored normal forms are those of the current rules.
	CurrentNames() bool
	// Holds reports whether a user has the normal form of a name, in the column username_key or email_key.
	Holds(column, key string) (bool, error)
}

// User checks a user against the log, and its names against their normal forms.
func (f *Findings) User(s Store, u *user.User, keys user.Keys) error {
	if u.Version < 1 || !u.Status.Valid() {
		return f.Add("user %d: invalid version %d or status %d", u.ID, u.Version, u.Status)
	}
	if u.Deleted() == u.PurgeAt.IsZero() {
		return f.Add("user %d: deleted_at %v does not match purge_at %v", u.ID, u.DeletedAt, u.PurgeAt)
	}
	wrong, err := wrongKeys(s, u, keys)
	if wrong {
		err = f.Add("user %d: stored normal forms do not match its names", u.ID)
	}
	if err != nil || u.StatusPosition > s.Head() { // changed after the check began
		return err
	}
	row, err := s.Row(u.StatusPosition)
	if err != nil {
		return err
	}
	setsStatus := []string{user.ActionCreated, user.ActionStatusChanged, user.ActionDeleted, user.ActionUndeleted}
	if row == nil || row.UserID != u.ID || !slices.Contains(setsStatus, row.Action) {
		err = s.Missing(u.StatusPosition, "user %d: log row %d did not set its status", u.ID, u.StatusPosition)
	}
	if err != nil || u.LastActivityID > s.Head() { // changed after the check began
		return err
	}
	if row, err = s.Row(u.LastActivityID); err != nil {
		return err
	}
	if row == nil || row.UserID != u.ID || !strings.HasPrefix(row.Action, user.ReservedAction) {
		return s.Missing(u.LastActivityID, "user %d: log row %d is not its last change", u.ID, u.LastActivityID)
	}
	return nil
}

// wrongKeys reports whether the stored normal forms of a user do not match its names. A mismatch is allowed before the names
// are normalized again, and where another user already has the normal form.
func wrongKeys(s Store, u *user.User, keys user.Keys) (wrong bool, err error) {
	if !s.CurrentNames() {
		return false, nil
	}
	username, invalid := user.UsernameKey(u.Username)
	email, newEmailError := user.EmailKey(u.Email)
	if invalid != nil || newEmailError != nil {
		return true, nil //nolint:nilerr // an invalid name is a finding
	}
	for _, key := range []struct{ stored, want, column string }{
		{keys.Username, username, "username_key"}, {keys.Email, email, "email_key"},
	} {
		if key.stored == key.want {
			continue
		}
		if held, err := s.Holds(key.column, key.want); err != nil || !held {
			return err == nil, err
		}
	}
	return false, nil
}

// buckets is the number of groups of users that Index compares.
const buckets = 4096

// Visit receives a token of a user with sign 1, or an entry of the index with sign Minus.
type Visit func(id int64, t tokens.Token, sign uint64)

// Minus is the sign of entries of the index.
const Minus = ^uint64(0)

// Index compares the index with the tokens of the users, both of which each passes to its argument. They are compared by
// a sum for each group of users; of the first group that differs, the users are found.
func (f *Findings) Index(each func(Visit) error) error {
	var sums [buckets]uint64
	err := each(func(id int64, t tokens.Token, sign uint64) { sums[bucket(id)] += sign * entrySum(id, t) })
	if err != nil {
		return err
	}
	different := slices.IndexFunc(sums[:], func(sum uint64) bool { return sum != 0 })
	if different < 0 {
		return nil
	}
	users := make(map[int64]uint64)
	err = each(func(id int64, t tokens.Token, sign uint64) {
		if bucket(id) == different {
			users[id] += sign * entrySum(id, t)
		}
	})
	for id, sum := range users {
		if sum != 0 && err == nil {
			err = f.Add("user %d: its entries in the index are not those of its fields", id)
		}
	}
	return err
}

// bucket returns the group of a user.
func bucket(id int64) int { return int(entrySum(id, 0) % buckets) } //nolint:gosec,nolintlint // less than buckets

// entrySum returns a hash of an entry of the index (the finalizer of MurmurHash3).
func entrySum(id int64, t tokens.Token) uint64 {
	h := uint64(id)*0x9e3779b97f4a7c15 + uint64(t) //nolint:gosec,nolintlint // any 64 bits
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
