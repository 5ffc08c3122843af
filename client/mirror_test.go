package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// A mirror that lost its connections equals the directory. The same check finds a planted fault.
func TestMirrorResumes(t *testing.T) {
	lost := make(map[int64]bool) // streams that have lost a message
	lose := func(stream int64, message any) bool {
		update, ok := message.(*userv1.WatchUsersResponse)
		if !ok || stream < 3 || update.GetUser() == nil || lost[stream] {
			return false
		}
		lost[stream] = true
		return true
	}
	for _, test := range []struct {
		name    string
		planted func(int64, any) bool
		want    bool
	}{
		{"random bytes", nil, false},
		{"planted: resumes behind a message that was not applied", lose, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servertest.Start(t)
			writer := newClient(t, s)
			var ids []int64
			_, err := writer.BatchCreateUsers(limited(t), numbered(1000, func(i int) *userv1.BatchCreateUsersRequest {
				return &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: fmt.Sprint("user ", i), Email: fmt.Sprintf("u%d@example.org", i)}}
			}), func(r client.ItemResult) error {
				ids = append(ids, r.UserID)
				return r.Err
			})
			if err != nil {
				t.Fatal(err)
			}
			f := newFaultyNet(t, s, 60, 1000, 30_000)
			c := newFaultyClient(t, f, client.WithInterceptors(&plant{lose: test.planted}))
			m := c.Mirror(limited(t), client.MirrorOptions{})
			defer m.Close()
			var mu sync.Mutex
			changes := map[int64]*userv1.User{}
			m.OnChange(func(change client.MirrorChange) {
				mu.Lock()
				defer mu.Unlock()
				if before := changes[change.UserID]; !proto.Equal(before, change.Before) {
					t.Errorf("change of user %d from %v, want from %v", change.UserID, change.Before, before)
				}
				changes[change.UserID] = change.After
			})
			for part := range slices.Chunk(ids, 25) { // each user changes once, so a lost change stays lost
				_, err := writer.BatchUpdateUsers(limited(t), numbered(len(part)-1, func(i int) *userv1.UpdateUserRequest {
					return &userv1.UpdateUserRequest{UserId: part[i], User: &userv1.User{Tags: []string{"changed"}}}
				}), nil)
				if err == nil {
					_, err = writer.DeleteUser(limited(t), part[len(part)-1])
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			last, err := writer.UpdateUser(limited(t), &userv1.UpdateUserRequest{UserId: ids[0], User: &userv1.User{Tags: []string{"last"}}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err = m.WaitFor(ctx, last.GetLastActivityId())
			if err != nil && !test.want {
				t.Fatal(err, m.Status())
			}
			found := err
			if found == nil {
				found = sameUsers(t, writer, m)
			}
			if (found != nil) != test.want {
				t.Errorf("fault = %v, want one: %t", found, test.want)
			}
			if f.failures() < 5 {
				t.Errorf("%d connections failed, want at least 5", f.failures())
			}
		})
	}
}

// sameUsers compares a mirror with the directory.
func sameUsers(t *testing.T, c *client.Client, m *client.Mirror) error {
	t.Helper()
	n := 0
	for u, err := range c.Users(limited(t), &userv1.ListUsersRequest{PageSize: 1000}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		got, _ := m.Get(u.GetUserId())
		byName, _ := m.ByUsername("  " + u.GetUsername() + " ")
		byEmail, _ := m.ByEmail(u.GetEmail())
		if !proto.Equal(got, u) || byName != got || byEmail != got {
			return fmt.Errorf("user %v, want %v", got, u)
		}
	}
	if m.Len() != n || len(slices.Collect(m.Users())) != n {
		return fmt.Errorf("%d users, want %d", m.Len(), n)
	}
	return nil
}

// A mirror with a filter has the matching users. When its position cannot be resumed, it fetches all users again, and
// keeps its copy until then.
func TestMirrorStartsAgain(t *testing.T) {
	s := servertest.Start(t)
	writer := newClient(t, s)
	staying, leaving := createUser(t, writer, 1), createUser(t, writer, 2)
	foreign := func(_ int64, message any) {
		if request, ok := message.(*userv1.WatchUsersRequest); ok && request.GetEpoch() != "" {
			request.Epoch = "other"
		}
	}
	c := newClient(t, s, fast(), client.WithInterceptors(&plant{change: foreign}))
	m := c.Mirror(limited(t), client.MirrorOptions{Filter: "status = ACTIVE"})
	defer m.Close()
	if err := m.WaitReady(limited(t)); err != nil || m.Len() != 2 {
		t.Fatalf("WaitReady() = %v, %d users, want 2", err, m.Len())
	}
	removed := make(chan client.MirrorChange, 1)
	stop := m.OnChange(func(change client.MirrorChange) { removed <- change })
	s.Stop()
	if m.Len() != 2 || !m.Status().Ready {
		t.Errorf("a disconnected mirror has %d users, %+v, want 2, ready", m.Len(), m.Status())
	}
	s.Restart()
	_, err := writer.UpdateUserStatus(limited(t), &userv1.UpdateUserStatusRequest{UserId: leaving.GetUserId(), Status: userv1.UserStatus_USER_STATUS_INACTIVE})
	if err != nil {
		t.Fatal(err)
	}
	if change := <-removed; change.UserID != leaving.GetUserId() || change.Before == nil || change.After != nil {
		t.Errorf("change = %+v, want the removal of user %d", change, leaving.GetUserId())
	}
	stop()
	updated, err := writer.UpdateUser(limited(t), &userv1.UpdateUserRequest{UserId: staying.GetUserId(), User: &userv1.User{Username: "Ann Müller"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.WaitFor(limited(t), updated.GetLastActivityId()); err != nil {
		t.Fatal(err)
	}
	if u, ok := m.ByUsername("ANN  MU\u0308LLER"); !ok || !proto.Equal(u, updated) {
		t.Errorf("ByUsername() = %v, want %v", u, updated)
	}
	if u, ok := m.ByUsername("user 1"); ok {
		t.Errorf("ByUsername() of the earlier name = %v, want none", u)
	}
	if u, ok := m.Get(leaving.GetUserId()); ok {
		t.Errorf("Get() of a removed user = %v, want none", u)
	}
}

func TestMirrorEnds(t *testing.T) {
	c := newClient(t, servertest.Start(t))
	m := c.Mirror(limited(t), client.MirrorOptions{Filter: "name ="})
	<-m.Done()
	if !errors.Is(m.Err(), client.ErrInvalidField) || !errors.Is(m.WaitReady(limited(t)), client.ErrInvalidField) {
		t.Errorf("Err() = %v, want ErrInvalidField", m.Err())
	}
}
