package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/tokens"
	"github.com/yourorg/userservice/service/user"
)

var errFault = errors.New("fault of a test")

const head = 10

// rows is a store with a row for each position up to head. The call with the number fault fails.
type rows struct {
	*Findings

	rows     map[int64]*user.Activity
	held     bool // another user has each normal form
	oldNames bool

	calls, fault int
}

func (s *rows) fail() error {
	if s.calls++; s.calls == s.fault {
		return errFault
	}
	return nil
}

func (s *rows) Row(position int64) (*user.Activity, error) { return s.rows[position], s.fail() }

func (*rows) Head() int64 { return head }

func (s *rows) Missing(_ int64, format string, args ...any) error {
	if err := s.fail(); err != nil {
		return err
	}
	return s.Add(format, args...)
}

func (s *rows) CurrentNames() bool { return !s.oldNames }

func (s *rows) Holds(string, string) (bool, error) { return s.held, s.fail() }

// valid returns a user that agrees with its rows, the second and the last of the log.
func valid() (*rows, *user.User, user.Keys) {
	u := &user.User{ID: 1, Username: "Ann", Email: "ann@example.com", Version: 1, Status: user.StatusActive, StatusPosition: 2, LastActivityID: head}
	return &rows{Findings: new(Findings), rows: map[int64]*user.Activity{
		2:    {Position: 2, UserID: 1, Action: user.ActionCreated},
		head: {Position: head, UserID: 1, Action: user.ActionUpdated},
	}}, u, user.Keys{Username: "ann", Email: "ann@example.com"}
}

var checkedUsers = map[string]struct {
	change func(s *rows, u *user.User, keys *user.Keys)
	want   string // a part of the only finding; "": none
}{
	"valid":                          {func(*rows, *user.User, *user.Keys) {}, ""},
	"no version":                     {func(_ *rows, u *user.User, _ *user.Keys) { u.Version = 0 }, "invalid version 0"},
	"no status":                      {func(_ *rows, u *user.User, _ *user.Keys) { u.Status = user.StatusNone }, "or status 0"},
	"deleted, not to be purged":      {func(_ *rows, u *user.User, _ *user.Keys) { u.DeletedAt = time.Unix(1, 0) }, "does not match purge_at"},
	"to be purged, not deleted":      {func(_ *rows, u *user.User, _ *user.Keys) { u.PurgeAt = time.Unix(1, 0) }, "does not match purge_at"},
	"another username":               {func(_ *rows, _ *user.User, k *user.Keys) { k.Username = "ben" }, "stored normal forms"},
	"another e-mail address":         {func(_ *rows, _ *user.User, k *user.Keys) { k.Email = "ben@example.com" }, "stored normal forms"},
	"a username in use":              {func(s *rows, _ *user.User, k *user.Keys) { s.held, k.Username = true, "ben" }, ""},
	"normal forms of an old release": {func(s *rows, _ *user.User, k *user.Keys) { s.oldNames, k.Username = true, "ben" }, ""},
	"an invalid username":            {func(s *rows, u *user.User, _ *user.Keys) { s.held, u.Username = true, "" }, "stored normal forms"},
	"an invalid e-mail address":      {func(s *rows, u *user.User, _ *user.Keys) { s.held, u.Email = true, "" }, "stored normal forms"},
	"status by a missing row":        {func(_ *rows, u *user.User, _ *user.Keys) { u.StatusPosition = 3 }, "row 3 did not set its status"},
	"status by the row of another":   {func(s *rows, _ *user.User, _ *user.Keys) { s.rows[2].UserID = 2 }, "row 2 did not set its status"},
	"status by another row":          {func(_ *rows, u *user.User, _ *user.Keys) { u.StatusPosition = head }, "row 10 did not set its status"},
	"status after the check began":   {func(s *rows, u *user.User, _ *user.Keys) { u.StatusPosition, s.rows[head] = head+1, nil }, ""},
	"change by a missing row":        {func(s *rows, _ *user.User, _ *user.Keys) { s.rows[head] = nil }, "row 10 is not its last change"},
	"change by the row of another":   {func(s *rows, _ *user.User, _ *user.Keys) { s.rows[head].UserID = 2 }, "row 10 is not its last change"},
	"change by an activity":          {func(s *rows, _ *user.User, _ *user.Keys) { s.rows[head].Action = "app.seen" }, "row 10 is not its last change"},
	"change after the check began":   {func(s *rows, u *user.User, _ *user.Keys) { u.LastActivityID, s.rows[head] = head+1, nil }, ""},
}

// A user that does not agree with its rows or its normal forms is a finding.
func TestUser(t *testing.T) {
	t.Parallel()
	for name, row := range checkedUsers {
		s, u, keys := valid()
		row.change(s, u, &keys)
		err := s.User(s, u, keys)
		if got := strings.Join(s.List, "; "); err != nil || len(s.List) > 1 || (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: User() = %q, %v, want %q", name, got, err, row.want)
		}
	}
}

// An error of the store ends the check, whichever call fails.
func TestFaultOfStore(t *testing.T) {
	t.Parallel()
	for name, row := range checkedUsers {
		for fault, calls := 0, 0; fault <= calls; fault++ {
			s, u, keys := valid()
			row.change(s, u, &keys)
			s.fault = fault
			err := s.User(s, u, keys)
			if fault == 0 {
				calls = s.calls
			} else if !errors.Is(err, errFault) {
				t.Errorf("%s: call %d of %d fails: User() = %v, want the fault", name, fault, calls, err)
			}
		}
	}
}

func TestTooManyFindings(t *testing.T) {
	t.Parallel()
	var f Findings
	for i := range maxFindings {
		if err := f.Add("finding %d", i); err != nil {
			t.Fatalf("Add() = %v after %d findings", err, i)
		}
	}
	if err := f.Add("one more"); !errors.Is(err, ErrTooManyFindings) || len(f.List) != maxFindings {
		t.Errorf("Add() = %v with %d findings, want ErrTooManyFindings with %d", err, len(f.List), maxFindings)
	}
}

// inBucket returns the first ids of a group.
func inBucket(n, count int) (ids []int64) {
	for id := int64(1); len(ids) < count; id++ {
		if bucket(id) == n {
			ids = append(ids, id)
		}
	}
	return ids
}

// Of the users of a group, those whose entries differ are found.
func TestIndex(t *testing.T) {
	t.Parallel()
	for _, group := range []int{0, 1, buckets - 1} {
		ids := inBucket(group, 3)
		var f Findings
		err := f.Index(func(visit Visit) error {
			for i, id := range ids {
				visit(id, 5, 1)
				visit(id, tokens.Token(5+i%2), Minus) // another one for the second user
			}
			return nil
		})
		want := []string{fmt.Sprintf("user %d: its entries in the index are not those of its fields", ids[1])}
		if err != nil || !slices.Equal(f.List, want) {
			t.Errorf("group %d: Index() = %q, %v, want %q", group, f.List, err, want)
		}
	}
}

// Users are spread over the groups, so that the users of one fit into memory.
func TestBucketsAreUsed(t *testing.T) {
	t.Parallel()
	const users = 4 * buckets
	counts := make([]int, buckets)
	for id := range int64(users) {
		counts[bucket(id<<22)]++
	}
	if most := slices.Max(counts); most > 20 {
		t.Errorf("%d of %d users are in one of %d groups, want at most 20", most, users, buckets)
	}
}

// An error of either pass is the error of the check.
func TestFaultOfIndex(t *testing.T) {
	t.Parallel()
	for fault := 1; fault <= 2; fault++ {
		var f Findings
		pass := 0
		err := f.Index(func(visit Visit) error {
			visit(1, 5, 1)
			if pass++; pass == fault {
				return errFault
			}
			return nil
		})
		if !errors.Is(err, errFault) {
			t.Errorf("pass %d fails: Index() = %v, want the fault", fault, err)
		}
	}
}
