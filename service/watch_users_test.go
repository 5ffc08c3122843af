package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/user"
)

// watching is an open call of WatchUsers.
type watching struct {
	t      *testing.T
	stream *connect.ServerStreamForClient[userv1.WatchUsersResponse]
}

func (r *rig) watch(t *testing.T, req *userv1.WatchUsersRequest) *watching {
	t.Helper()
	stream, err := r.client(t).WatchUsers(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return &watching{t, stream}
}

// next receives a message.
func (w *watching) next() *userv1.WatchUsersResponse {
	w.t.Helper()
	if !w.stream.Receive() {
		w.t.Fatalf("stream ended: %v", w.stream.Err())
	}
	return w.stream.Msg()
}

// want checks the next messages: POSITION and a username, -ID, or synced.
func (w *watching) want(messages ...string) {
	w.t.Helper()
	for _, want := range messages {
		if got := describe(w.next()); got != want {
			w.t.Fatalf("message = %s, want %s", got, want)
		}
	}
}

func describe(m *userv1.WatchUsersResponse) string {
	text := fmt.Sprint(m.GetActivityId(), " ")
	switch {
	case m.GetUser() != nil:
		return text + m.GetUser().GetUsername()
	case m.GetRemoved():
		return text + "removed"
	case m.GetSynced():
		return text + "synced"
	case m.GetProgress():
		return text + "progress"
	}
	return text + "empty"
}

// purge purges a deleted user.
func (r *rig) purge(t *testing.T, id int64) {
	t.Helper()
	r.clock.move(user.DefaultRetention + time.Second)
	if _, err := user.ApplyOne(t.Context(), r.store, user.Change{Op: &user.Purge{ID: id}}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) delete(t *testing.T, id int64) {
	t.Helper()
	if _, err := r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}); err != nil {
		t.Fatal(err)
	}
}

func TestWatchUsersSendsStateThenChanges(t *testing.T) {
	r := newRig(t)
	ann, bob := r.create(t, "ann"), r.create(t, "bob") // rows 1 and 2
	r.setStatus(t, ann.GetUserId(), suspended, nil)    // 3
	all := r.watch(t, &userv1.WatchUsersRequest{})
	all.want("2 bob", "3 ann", "3 synced")
	active := r.watch(t, &userv1.WatchUsersRequest{Filter: "status = ACTIVE"})
	active.want("2 bob", "3 synced") // no removal of ann, which the client cannot have
	deleted := r.watch(t, &userv1.WatchUsersRequest{ShowDeleted: true})
	deleted.want("2 bob", "3 ann", "3 synced")

	r.setStatus(t, bob.GetUserId(), inactive, nil) // 4
	all.want("4 bob")
	active.want("4 removed")
	deleted.want("4 bob")
	r.create(t, "cid") // 5
	all.want("5 cid")
	active.want("5 cid")
	deleted.want("5 cid")
	r.delete(t, bob.GetUserId()) // 6
	all.want("6 removed")
	active.want("6 removed")
	deleted.want("6 bob")
	r.purge(t, bob.GetUserId()) // 7
	all.want("7 removed")
	active.want("7 removed")
	deleted.want("7 removed")
}

func TestWatchUsersResumes(t *testing.T) {
	r := newRig(t)
	var users []*userv1.User
	for i := range 6 {
		users = append(users, r.create(t, fmt.Sprintf("user-%d", i)))
	}
	r.setStatus(t, users[0].GetUserId(), suspended, nil) // 7
	r.delete(t, users[1].GetUserId())                    // 8
	r.delete(t, users[2].GetUserId())                    // 9
	r.purge(t, users[2].GetUserId())                     // 10
	epoch := r.feed.Head().Epoch
	for name, c := range map[string]struct {
		req  *userv1.WatchUsersRequest
		want []string
	}{
		"from the start":           {&userv1.WatchUsersRequest{}, []string{"4 user-3", "5 user-4", "6 user-5", "7 user-0", "10 synced"}},
		"within the initial users": {&userv1.WatchUsersRequest{AfterActivityId: 5}, []string{"6 user-5", "7 user-0", "8 removed", "10 removed", "10 synced"}},
		"with a filter": {&userv1.WatchUsersRequest{AfterActivityId: 5, Filter: "status = ACTIVE"},
			[]string{"6 user-5", "7 removed", "8 removed", "10 removed", "10 synced"}},
		"at the head": {&userv1.WatchUsersRequest{AfterActivityId: 10, Epoch: epoch}, []string{"10 synced"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := r.watch(t, c.req)
			first := w.next()
			if describe(first) != c.want[0] || first.GetEpoch() != epoch {
				t.Fatalf("first message = %v, want %s with epoch %s", first, c.want[0], epoch)
			}
			w.want(c.want[1:]...)
		})
	}
}

func TestWatchUsersRejectsInvalidRequests(t *testing.T) {
	r := newRig(t)
	r.create(t, "ann")
	for name, c := range map[string]struct {
		req    *userv1.WatchUsersRequest
		reason user.Reason
	}{
		"filter":           {&userv1.WatchUsersRequest{Filter: "status ="}, user.InvalidField},
		"fields":           {&userv1.WatchUsersRequest{Fields: []string{"nickname"}}, user.InvalidField},
		"ahead of the log": {&userv1.WatchUsersRequest{AfterActivityId: 2}, user.PositionOutOfRange},
		"another epoch":    {&userv1.WatchUsersRequest{AfterActivityId: 1, Epoch: "other"}, user.PositionOutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			w := r.watch(t, c.req)
			if w.stream.Receive() {
				t.Fatalf("received %v", w.stream.Msg())
			}
			if got := reasonOf(t, w.stream.Err()); got != c.reason {
				t.Errorf("reason = %s, want %s", got, c.reason)
			}
		})
	}
}

func TestWatchUsersReturnsSelectedFields(t *testing.T) {
	r := newRig(t)
	ann := r.create(t, "ann")
	got := r.watch(t, &userv1.WatchUsersRequest{Fields: []string{"email"}}).next()
	if got.GetUserId() != ann.GetUserId() || got.GetUser().GetEmail() != ann.GetEmail() || got.GetUser().GetUsername() != "" {
		t.Errorf("message = %v, want the id and the e-mail address of %v", got, ann)
	}
}

// Progress is sent while changes of other users are skipped, and at the interval.
func TestWatchUsersReportsProgress(t *testing.T) {
	r := newRig(t, func(o *service.Options) { o.Heartbeat = 20 * time.Millisecond })
	r.create(t, "ann")
	w := r.watch(t, &userv1.WatchUsersRequest{Filter: `username = "none*"`, Progress: true})
	w.want("1 synced", "1 progress")
	r.create(t, "bob")
	for m := w.next(); m.GetActivityId() != 2; m = w.next() {
		if !m.GetProgress() && !m.GetRemoved() {
			t.Fatalf("message = %v, want progress", m)
		}
	}
}

// Pages are joined without loss, and large users do not end a stream.
func TestWatchUsersReadsManyPages(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 400 {
		name := fmt.Sprintf("user-%d", i)
		r.create(t, name, func(req *userv1.CreateUserRequest) {
			if i%3 == 0 {
				req.Metadata = map[string]string{"note": strings.Repeat("x", 1000), "more": strings.Repeat("y", 1000)}
			}
		})
		want = append(want, name)
	}
	w := r.watch(t, &userv1.WatchUsersRequest{})
	var got []string
	for m := w.next(); !m.GetSynced(); m = w.next() {
		got = append(got, m.GetUser().GetUsername())
	}
	if !slices.Equal(got, want) {
		t.Errorf("received %d users %q, want %d", len(got), got, len(want))
	}
}

func TestWatchUsersEndsWithThePositionAtADrain(t *testing.T) {
	r := newRig(t)
	r.create(t, "ann")
	w := r.watch(t, &userv1.WatchUsersRequest{})
	w.want("1 ann", "1 synced")
	r.feed.Drain()
	if w.stream.Receive() {
		t.Fatalf("received %v", w.stream.Msg())
	}
	if position, err := drainedAt(w.stream.Err()); err != nil || position != 1 {
		t.Errorf("drained at %d, %v, want 1", position, err)
	}
}
