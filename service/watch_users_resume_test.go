package service_test

import (
	"fmt"
	"maps"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// A client that stops after any message and resumes later ends with the same copy as one that never stopped.
func TestWatchUsersResumesAfterEachMessage(t *testing.T) {
	for _, req := range []*userv1.WatchUsersRequest{
		{}, {ShowDeleted: true}, {Filter: "status = ACTIVE"}, {Filter: "NOT status = ACTIVE", ShowDeleted: true}, {Filter: `username = "user-1*"`},
	} {
		t.Run(fmt.Sprintf("filter %q, deleted %t", req.GetFilter(), req.GetShowDeleted()), func(t *testing.T) {
			r := newRig(t)
			var users []*userv1.User
			for i := range 12 {
				users = append(users, r.create(t, fmt.Sprintf("user-%d", i)))
			}
			change := func(first int) { // each kind of change, to users that only it changes
				id := func(i int) int64 { return users[first+i].GetUserId() }
				r.setStatus(t, id(0), suspended, nil)
				r.delete(t, id(1))
				r.delete(t, id(2))
				r.purge(t, id(2))
				r.setStatus(t, id(3), suspended, nil)
				r.setStatus(t, id(3), active, nil)
			}
			change(0)
			before := r.copies(t, req, nil, 0)
			change(4)
			whole := before[len(before)-1]
			final := r.copies(t, req, whole.users, whole.position)
			want := final[len(final)-1].users
			fresh := r.copies(t, req, nil, 0)
			if got := fresh[len(fresh)-1].users; !maps.Equal(got, want) {
				t.Errorf("copy = %v, want that of a new stream, %v", want, got)
			}
			for _, part := range before {
				resumed := r.copies(t, req, part.users, part.position)
				if got := resumed[len(resumed)-1].users; !maps.Equal(got, want) {
					t.Errorf("copy resumed at position %d = %v, want %v", part.position, got, want)
				}
			}
		})
	}
}

// copyAt is a copy after a message.
type copyAt struct {
	position int64
	users    map[int64]string // name and status
}

// copies reads up to synced and returns the copy after each message, starting with a copy at a position.
func (r *rig) copies(t *testing.T, req *userv1.WatchUsersRequest, users map[int64]string, position int64) (copies []copyAt) {
	t.Helper()
	users = maps.Clone(users)
	if users == nil {
		users = map[int64]string{}
	}
	w := r.watch(t, &userv1.WatchUsersRequest{Filter: req.GetFilter(), ShowDeleted: req.GetShowDeleted(), AfterActivityId: position})
	for {
		m := w.next()
		if m.GetActivityId() < position {
			t.Fatalf("message %v after position %d", m, position)
		}
		position = m.GetActivityId()
		if u := m.GetUser(); u != nil {
			users[m.GetUserId()] = fmt.Sprint(u.GetUsername(), u.GetStatus(), u.GetDeletedAt() != nil)
		} else if m.GetRemoved() {
			delete(users, m.GetUserId())
		}
		copies = append(copies, copyAt{position, maps.Clone(users)})
		if m.GetSynced() {
			return copies
		}
	}
}
