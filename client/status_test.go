package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// Each message gets one response and is applied, although connections fail. The same check finds a planted fault.
func TestStatusesAreSentAgain(t *testing.T) {
	tooOld := func(stream int64, message any) {
		if update, ok := message.(*userv1.UserStatusUpdate); ok && stream > 1 && update.GetTimestamp() != nil {
			update.Timestamp = timestamppb.New(update.GetTimestamp().AsTime().Add(-time.Minute))
		}
	}
	for _, test := range []struct {
		name    string
		planted func(int64, any)
		want    bool
	}{
		{"random bytes", nil, false},
		{"planted: times are too old", tooOld, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servertest.Start(t)
			writer := newClient(t, s)
			const users, n = 20, 2000
			var ids []int64
			for i := range users {
				ids = append(ids, createUser(t, writer, i).GetUserId())
			}
			f := newFaultyNet(t, s, 40, 300, 20_000)
			c := newFaultyClient(t, f, client.WithInterceptors(&plant{change: test.planted}))
			requests, responses := make(chan *userv1.UserStatusUpdate), make(chan *userv1.UserStatusUpdate)
			ended := make(chan error, 1)
			go func() { ended <- c.SyncUserStatus(limited(t), requests, responses) }()
			go func() {
				defer close(requests)
				for i := range n {
					requests <- &userv1.UserStatusUpdate{UserId: ids[i%users], Status: userv1.UserStatus(i/users%2 + 2), ClientSeq: int64(i + 1)}
				}
			}()
			next := int64(1)
			for response := range responses {
				if response.GetClientSeq() == 0 {
					continue
				}
				if response.GetClientSeq() != next || response.GetError() != nil {
					t.Fatalf("response %v, want number %d", response, next)
				}
				next++
			}
			if err := <-ended; err != nil || next != n+1 {
				t.Fatalf("SyncUserStatus() = %v after %d responses, want %d", err, next-1, n)
			}
			found := false
			for _, id := range ids {
				after, err := writer.GetUser(limited(t), id)
				if err != nil {
					t.Fatal(err)
				}
				if after.GetVersion() != n/users+1 {
					found = true
					t.Logf("version = %d, want %d", after.GetVersion(), n/users+1)
				}
			}
			if found != test.want {
				t.Errorf("a fault is found: %t, want %t", found, test.want)
			}
			if f.failures() < 5 {
				t.Errorf("%d connections failed, want at least 5", f.failures())
			}
		})
	}
}

// A status whose response is lost is sent again. It does not replace one that another caller has set since, and is not
// lost if nobody has, whatever the clock of the client says. The same check finds a planted fault.
func TestStatusIsSentAgainWithItsTime(t *testing.T) {
	untimed := func(_ int64, message any) {
		if update, ok := message.(*userv1.UserStatusUpdate); ok {
			update.Timestamp = nil
		}
	}
	for _, test := range []struct {
		name    string
		ahead   time.Duration
		applied bool // the server has received the message
		planted func(int64, any)
		want    userv1.UserStatus
	}{
		{"response lost", 0, true, nil, userv1.UserStatus_USER_STATUS_INACTIVE},
		{"response lost, clock ahead", time.Hour, true, nil, userv1.UserStatus_USER_STATUS_INACTIVE},
		{"response lost, clock behind", -time.Hour, true, nil, userv1.UserStatus_USER_STATUS_INACTIVE},
		{"message lost", 0, false, nil, userv1.UserStatus_USER_STATUS_SUSPENDED},
		{"message lost, clock ahead", time.Hour, false, nil, userv1.UserStatus_USER_STATUS_SUSPENDED},
		{"message lost, clock behind", -time.Hour, false, nil, userv1.UserStatus_USER_STATUS_SUSPENDED},
		{"planted: sent again as a new status", 0, true, untimed, userv1.UserStatus_USER_STATUS_SUSPENDED},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servertest.Start(t)
			writer := newClient(t, s)
			id := createUser(t, writer, 1).GetUserId()
			f := &mutedNet{dial: s.Dial}
			c, err := client.New([]string{"http://userd.test"}, client.WithDialer(f.Dial), fast(),
				client.WithClock(func() time.Time { return time.Now().Add(test.ahead) }), client.WithInterceptors(&plant{change: test.planted}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			session := c.OpenStatusSession(limited(t), nil)
			if _, err := session.Follow(limited(t), id); err != nil {
				t.Fatal(err)
			}
			f.mute(test.applied)
			result := make(chan *userv1.UserStatusUpdate, 1)
			go func() {
				update, err := session.Set(limited(t), id, userv1.UserStatus_USER_STATUS_SUSPENDED)
				if err != nil {
					t.Error(err)
				}
				result <- update
			}()
			if test.applied {
				for update, err := range writer.StatusChanges(limited(t), &userv1.WatchUserStatusRequest{UserIds: []int64{id}}) {
					if err != nil {
						t.Fatal(err)
					}
					if update.GetStatus() == userv1.UserStatus_USER_STATUS_SUSPENDED {
						break
					}
				}
				_, err := writer.UpdateUserStatus(limited(t), &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_INACTIVE})
				if err != nil {
					t.Fatal(err)
				}
			} else {
				<-f.swallowed
			}
			f.cut()
			if got := (<-result).GetStatus(); got != test.want {
				t.Errorf("Set() = %v, want %v", got, test.want)
			}
			if u, err := writer.GetUser(limited(t), id); err != nil || u.GetStatus() != test.want {
				t.Errorf("status = %v, %v, want %v", u.GetStatus(), err, test.want)
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A session that lost its connections knows the last status of each user it follows, and no position twice.
func TestSessionFollowsAgain(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all users: ", all), func(t *testing.T) {
			s := servertest.Start(t)
			writer := newClient(t, s)
			var mu sync.Mutex
			got, want := map[int64]userv1.UserStatus{}, map[int64]userv1.UserStatus{}
			seen := map[int64]bool{}
			changed := make(chan struct{}, 1)
			f := newFaultyNet(t, s, 30, 300, 3000)
			c := newFaultyClient(t, f)
			session := c.OpenStatusSession(limited(t), func(update *userv1.UserStatusUpdate) {
				mu.Lock()
				defer mu.Unlock()
				if seen[update.GetActivityId()] {
					t.Errorf("position %d is delivered twice", update.GetActivityId())
				}
				seen[update.GetActivityId()] = true
				got[update.GetUserId()] = update.GetStatus()
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			var ids []int64
			for i := range 10 {
				ids = append(ids, createUser(t, writer, i).GetUserId())
			}
			if all {
				if err := session.FollowAll(limited(t)); err != nil {
					t.Fatal(err)
				}
			} else {
				for _, id := range ids {
					if _, err := session.Follow(limited(t), id); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range 300 {
				id, status := ids[i%len(ids)], userv1.UserStatus(i/len(ids)%3+1)
				if _, err := writer.UpdateUserStatus(limited(t), &userv1.UpdateUserStatusRequest{UserId: id, Status: status}); err != nil {
					t.Fatal(err)
				}
				want[id] = status
			}
			for ctx := limited(t); ; {
				mu.Lock()
				equal := maps.Equal(got, want)
				mu.Unlock()
				if equal {
					break
				}
				select {
				case <-changed:
				case <-ctx.Done():
					t.Fatalf("statuses = %v, want %v", got, want)
				}
			}
			if err := session.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			if f.failures() < 3 {
				t.Errorf("%d connections failed, want at least 3", f.failures())
			}
		})
	}
}

// A watch of users ends when the last of them is deleted.
func TestWatchUserStatusEndsWithItsUsers(t *testing.T) {
	s := servertest.Start(t)
	c := newClient(t, s)
	users := []*userv1.User{createUser(t, c, 1), createUser(t, c, 2)}
	request := &userv1.WatchUserStatusRequest{UserIds: []int64{users[0].GetUserId(), users[1].GetUserId()}}
	failures := 0
	err := c.WatchUserStatus(limited(t), request, func(update *userv1.UserStatusUpdate) error {
		if update.GetError() != nil {
			failures++
			return nil
		}
		_, err := c.DeleteUser(limited(t), update.GetUserId())
		return err
	})
	if err != nil || failures != len(users) {
		t.Errorf("WatchUserStatus() = %v after %d failures, want nil after %d", err, failures, len(users))
	}
}

// A deletion is delivered once to a client of all users, although the stream is interrupted behind it.
func TestDeletionIsDeliveredOnce(t *testing.T) {
	watch := func(ctx context.Context, t *testing.T, c *client.Client, fn func(*userv1.UserStatusUpdate)) {
		t.Helper()
		err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{All: true, Progress: true}, func(update *userv1.UserStatusUpdate) error {
			fn(update)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("WatchUserStatus() = %v, want context.Canceled", err)
		}
	}
	session := func(ctx context.Context, t *testing.T, c *client.Client, fn func(*userv1.UserStatusUpdate)) {
		t.Helper()
		s := c.OpenStatusSession(ctx, fn)
		if err := s.FollowAll(ctx); err != nil {
			t.Error(err)
		}
		fn(&userv1.UserStatusUpdate{Progress: true})
		<-ctx.Done()
		if err := s.Close(); !errors.Is(err, context.Canceled) {
			t.Errorf("Close() = %v, want context.Canceled", err)
		}
	}
	for name, follow := range map[string]func(context.Context, *testing.T, *client.Client, func(*userv1.UserStatusUpdate)){
		"WatchUserStatus": watch, "StatusSession": session,
	} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t)
			writer := newClient(t, s, fast())
			first, second := createUser(t, writer, 1), createUser(t, writer, 2)
			ctx, cancel := context.WithCancel(limited(t))
			updates := make(chan *userv1.UserStatusUpdate, 100)
			var following sync.WaitGroup
			following.Go(func() {
				follow(ctx, t, newClient(t, s, fast()), func(update *userv1.UserStatusUpdate) { updates <- update })
			})
			next := func(want int64) {
				t.Helper()
				for update := range updates {
					if update.GetProgress() {
						continue
					}
					if update.GetUserId() != want || update.GetError() == nil {
						t.Fatalf("update = %v, want the deletion of %d", update, want)
					}
					return
				}
			}
			<-updates // it follows
			for _, u := range []*userv1.User{first, second} {
				if _, err := writer.DeleteUser(limited(t), u.GetUserId()); err != nil {
					t.Fatal(err)
				}
				next(u.GetUserId())
				s.Restart()
			}
			cancel()
			following.Wait()
		})
	}
}

// A session ends with its context at once, although the server sends nothing.
func TestStatusSessionEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servertest.Start(t, servertest.Memory())
		c := newClient(t, s)
		u := createUser(t, c, 1)
		ctx, cancel := context.WithCancel(t.Context())
		session := c.OpenStatusSession(ctx, nil)
		if _, err := session.Follow(limited(t), u.GetUserId()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := session.Close(); !errors.Is(err, context.Canceled) || time.Since(start) != 0 {
			t.Errorf("Close() = %v after %v, want context.Canceled at once", err, time.Since(start))
		}
	})
}
