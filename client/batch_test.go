package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// Each item has its result, with its error, although a response has the first 1,000 failures only.
func TestBatchesWithManyFailures(t *testing.T) {
	c := newClient(t, servertest.Start(t))
	u := createUser(t, c, 1)
	const n = 7000
	fails := func(i int) bool { return i%2 == 1 }
	next := 0
	check := func(want error) func(client.ItemResult) error {
		next = 0
		return func(r client.ItemResult) error {
			if r.Index != int64(next) || fails(next) != errors.Is(r.Err, want) || fails(next) != (r.Outcome == userv1.ItemOutcome_ITEM_OUTCOME_FAILED) {
				return fmt.Errorf("result %d = %+v, want a failure: %t", next, r, fails(next))
			}
			next++
			return nil
		}
	}
	summary, err := c.BatchUpdateUsers(limited(t), numbered(n, func(i int) *userv1.UpdateUserRequest {
		id := u.GetUserId()
		if fails(i) {
			id = 5
		}
		return &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{strconv.Itoa(i)}}}
	}), check(client.ErrUserNotFound))
	if want := (client.BatchSummary{Updated: n / 2, Failed: n / 2}); err != nil || summary != want || next != n {
		t.Errorf("BatchUpdateUsers() = %+v, %v, want %+v", summary, err, want)
	}
	if after, err := c.GetUser(limited(t), u.GetUserId()); err != nil || after.GetVersion() != 1+n/2 {
		t.Errorf("version = %d, %v, want %d", after.GetVersion(), err, 1+n/2)
	}
	summary, err = c.BatchCreateUsers(limited(t), numbered(n, func(i int) *userv1.BatchCreateUsersRequest {
		name := fmt.Sprint("batch ", i)
		if fails(i) {
			name = "user 1"
		}
		return &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: name, Email: fmt.Sprintf("b%d@example.org", i)}}
	}), check(client.ErrUsernameTaken))
	if want := (client.BatchSummary{Created: n / 2, Failed: n / 2}); err != nil || summary != want || next != n {
		t.Errorf("BatchCreateUsers() = %+v, %v, want %+v", summary, err, want)
	}
}

// A batch ends with the error of report, and an empty one without a call.
func TestBatchEnds(t *testing.T) {
	c := newClient(t, servertest.Start(t))
	stop := errors.New("enough")
	items := numbered(3, func(i int) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{UserId: int64(i + 1), User: &userv1.User{Tags: []string{"x"}}}
	})
	reported := 0
	summary, err := c.BatchUpdateUsers(limited(t), items, func(client.ItemResult) error {
		reported++
		return stop
	})
	if !errors.Is(err, stop) || reported != 1 || summary.Failed != 1 {
		t.Errorf("BatchUpdateUsers() = %+v, %v after %d reports, want one report and its error", summary, err, reported)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if summary, err := c.BatchUpdateUsers(limited(t), slices.Values([]*userv1.UpdateUserRequest(nil)), nil); err != nil || summary != (client.BatchSummary{}) {
		t.Errorf("BatchUpdateUsers() of no items = %+v, %v, want nothing", summary, err)
	}
	if _, err := c.BatchUpdateUsers(limited(t), items, nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("BatchUpdateUsers() of a closed client = %v, want ErrClosed", err)
	}
}
