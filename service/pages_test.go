package service_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/pagetoken"
	"github.com/yourorg/userservice/service/user"
)

// orders are the values of order_by with the cursors that fit.
var orders = map[string]user.Order{
	"user_id": user.ByID, "username": user.ByUsername, "email": user.ByEmail, "created_at": user.ByCreated, "last_activity_id": user.ByLastActivity,
}

// A token with the right checksum and any cursor is rejected, or continues the list after the cursor.
func TestForgedPageTokens(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.create(t, fmt.Sprintf("user-%d", i))
	}
	numbers := []int64{math.MinInt64, -1, 0, 1, 3, math.MaxInt64}
	for orderBy, order := range orders {
		for _, direction := range []string{"", " desc"} {
			for _, key := range []string{"", "user-1", "\x00", "\xff", "zzz"} {
				for _, position := range numbers {
					for _, id := range numbers {
						cursor := user.ListCursor{Key: key, Position: position, ID: id}
						req := &userv1.ListUsersRequest{OrderBy: orderBy + direction}
						req.PageToken = forged(t, cursor, "ListUsers", r.feed.Head().Epoch, "", req.GetOrderBy(), "false")
						res, err := r.ListUsers(t.Context(), req)
						if !cursor.Fits(order) {
							wantInvalid(t, err, "page_token")
						} else if err != nil || len(res.GetUsers()) > 5 {
							t.Errorf("ListUsers(%v) after %+v = %v, %v, want a part of the list", req, cursor, res, err)
						}
					}
				}
			}
		}
	}
	for _, order := range []userv1.ActivityOrder{1, 2} {
		for _, reached := range numbers {
			req := &userv1.ListUserActivitiesRequest{Order: order}
			req.PageToken = forged(t, reached, userv1connect.UserServiceListUserActivitiesProcedure, r.feed.Head().Epoch, "0", order.String(), "")
			if res, err := r.ListUserActivities(t.Context(), req); reached < 1 {
				wantInvalid(t, err, "page_token")
			} else if len(res.GetActivities()) > 5 || err != nil && !user.HasReason(err, user.PositionOutOfRange) {
				t.Errorf("ListUserActivities(%v) after %d = %v, %v, want a part of the list", req, reached, res, err)
			}
		}
	}
}

func forged(t *testing.T, cursor any, query ...string) string {
	t.Helper()
	token, err := pagetoken.Encode(cursor, query...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A page token of another epoch is rejected: its position is another one in a restored log.
func TestPageTokensOfAnotherEpoch(t *testing.T) {
	r, other := newRig(t), newRig(t)
	for _, rig := range []*rig{r, other} {
		rig.create(t, "ann")
		rig.create(t, "bob")
	}
	users, err := other.ListUsers(t.Context(), &userv1.ListUsersRequest{PageSize: 1, OrderBy: "last_activity_id"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.ListUsers(t.Context(), &userv1.ListUsersRequest{OrderBy: "last_activity_id", PageToken: users.GetNextPageToken()})
	wantInvalid(t, err, "page_token")
	rows, err := other.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{PageToken: rows.GetNextPageToken()})
	wantInvalid(t, err, "page_token")
}

// A list that is read in pages while users are created, deleted and updated has each user that exists for its whole
// duration once, and no user twice. Only in the order of changes, an updated user is returned again.
func TestPagesDuringWrites(t *testing.T) {
	t.Parallel() // it waits for the disk
	r := newRig(t)
	created := 0
	var ids []int64 // of the users that are not deleted
	create := func(initial int) {
		created++
		ids = append(ids, r.create(t, fmt.Sprintf("%c-user-%d", 'a'+rune(initial), created)).GetUserId())
	}
	for i := range 10 {
		create(i)
	}
	rapid.Check(t, func(rt *rapid.T) {
		present := slices.Clone(ids)
		changed := make(map[int64]bool) // updated or deleted while the list is read
		write := func() {
			at := rapid.IntRange(0, len(ids)-1).Draw(rt, "user")
			switch rapid.IntRange(0, 3).Draw(rt, "write") {
			case 0:
				create(rapid.IntRange(0, 25).Draw(rt, "initial"))
			case 1:
				update(t, r, ids[at], created)
				changed[ids[at]] = true
			case 2:
				if len(ids) > 1 {
					remove(t, r, ids[at])
					changed[ids[at]] = true
					ids = slices.Delete(ids, at, at+1)
				}
			}
		}
		orderBy := rapid.SampledFrom([]string{"user_id", "username", "email", "created_at", "last_activity_id"}).Draw(rt, "order")
		direction := rapid.SampledFrom([]string{"", " desc"}).Draw(rt, "direction")
		req := &userv1.ListUsersRequest{OrderBy: orderBy + direction, PageSize: int32(rapid.IntRange(2, 8).Draw(rt, "size"))}
		seen := make(map[int64]int)
		for first := true; first || req.GetPageToken() != ""; first = false {
			res, err := r.ListUsers(t.Context(), req)
			if err != nil {
				rt.Fatal(err)
			}
			for _, u := range res.GetUsers() {
				seen[u.GetUserId()]++
			}
			req.PageToken = res.GetNextPageToken()
			if rapid.Bool().Draw(rt, "writes") {
				write()
			}
		}
		for id, n := range seen {
			if n > 1 && (orderBy != "last_activity_id" || !changed[id]) {
				rt.Errorf("%v: user %d was returned %d times, want 1", req, id, n)
			}
		}
		for _, id := range present {
			if seen[id] == 0 && !changed[id] {
				rt.Errorf("%v: user %d was not returned, want it once", req, id)
			}
		}
	})
}

func remove(t *testing.T, r *rig, id int64) {
	t.Helper()
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
}

func update(t *testing.T, r *rig, id int64, n int) {
	t.Helper()
	_, err := r.UpdateUser(t.Context(), &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{fmt.Sprint(n)}}})
	if err != nil {
		t.Fatal(err)
	}
}

// The log that is read in pages while rows are added has each row once: newest first, those up to the first page.
func TestPagesOfLogDuringWrites(t *testing.T) {
	r := newRig(t)
	r.create(t, "ann")
	rapid.Check(t, func(rt *rapid.T) {
		req := &userv1.ListUserActivitiesRequest{
			Order:    rapid.SampledFrom([]userv1.ActivityOrder{1, 2}).Draw(rt, "order"),
			PageSize: int32(rapid.IntRange(1, 50).Draw(rt, "size")),
		}
		var got []int64
		head := r.feed.Head().Position
		for first := true; first || req.GetPageToken() != ""; first = false {
			res, err := r.ListUserActivities(t.Context(), req)
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, positions(res.GetActivities())...)
			if rapid.IntRange(0, 9).Draw(rt, "write") == 0 {
				r.create(t, fmt.Sprintf("user-%d", r.feed.Head().Position))
			}
			req.PageToken = res.GetNextPageToken()
		}
		want := make([]int64, head)
		for i := range want {
			want[i] = int64(i) + 1
		}
		if req.GetOrder() == userv1.ActivityOrder_ACTIVITY_ORDER_NEWEST_FIRST {
			slices.Reverse(want)
		} else {
			got = got[:min(int(head), len(got))]
		}
		if !slices.Equal(got, want) {
			rt.Errorf("positions = %v, want %v", got, want)
		}
	})
}
