package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// Rows are delivered once, in order, although connections fail at random bytes. The same check finds planted faults.
func TestActivitiesResume(t *testing.T) {
	after := func(change int64) func(int64, any) {
		return func(stream int64, message any) {
			if request, ok := message.(*userv1.StreamUserActivitiesRequest); ok && stream > 1 && request.GetAfterActivityId() > 1 {
				request.AfterActivityId += change
			}
		}
	}
	for _, test := range []struct {
		name     string
		protocol client.Protocol
		planted  func(int64, any)
		halfOpen bool
		want     bool // a fault is found
	}{
		{"gRPC", client.GRPC, nil, false, false},
		{"gRPC-Web", client.GRPCWeb, nil, false, false},
		{"Connect", client.Connect, nil, false, false},
		{"half-open", client.GRPC, nil, true, false},
		{"planted: behind a row that was not delivered", client.GRPC, after(1), false, true},
		{"planted: behind an earlier row", client.GRPC, after(-1), false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servertest.Start(t, servertest.Config(func(c *server.Config) { c.KeepaliveMinTime = 0 })) // pings detect half-open connections
			writer := newClient(t, s)
			u := createUser(t, writer, 1)
			const total = 2000
			change(t, writer, u.GetUserId(), 0, total/2)
			failures := 40
			if test.halfOpen {
				failures = 4
			}
			f := newFaultyNet(t, s, failures, 500, 10_000)
			f.halfOpen = test.halfOpen
			options := []client.Option{client.WithProtocol(test.protocol)}
			if test.planted != nil {
				options = append(options, client.WithInterceptors(&plant{change: test.planted}))
			}
			c := newFaultyClient(t, f, options...)
			var writing sync.WaitGroup
			writing.Go(func() {
				for from := total / 2; from < total; from += 20 {
					change(t, writer, u.GetUserId(), from, from+20)
				}
			})
			var got []int64
			for row, err := range c.Activities(limited(t), &userv1.StreamUserActivitiesRequest{}) {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, row.GetActivityId()); row.GetActivityId() == total+1 {
					break
				}
			}
			writing.Wait() // the last response may be outstanding
			found := checkPositions(got)
			if (found != nil) != test.want {
				t.Errorf("fault = %v, want one: %t", found, test.want)
			}
			if f.failures() == 0 {
				t.Error("no connection failed")
			}
		})
	}
}

// change makes a row of the log for each number.
func change(t *testing.T, c *client.Client, id int64, from, to int) {
	t.Helper()
	_, err := c.BatchUpdateUsers(context.WithoutCancel(t.Context()), numbered(to-from, func(i int) *userv1.UpdateUserRequest {
		return &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Tags: []string{strconv.Itoa(from + i)}}}
	}), nil)
	if err != nil {
		t.Error(err)
	}
}

// record adds an activity to the log of a user.
func record(t *testing.T, c *client.Client, id int64) {
	t.Helper()
	if _, err := c.RecordUserActivity(context.WithoutCancel(t.Context()), &userv1.RecordUserActivityRequest{UserId: id, Action: "app.event"}); err != nil {
		t.Error(err)
	}
}

// checkPositions returns an error unless positions are 1, 2, 3 and so on.
func checkPositions(positions []int64) error {
	for i, position := range positions {
		if position != int64(i+1) {
			return fmt.Errorf("row %d has position %d", i+1, position)
		}
	}
	return nil
}

// Servers that drain, and start again, do not interrupt a stream for its caller.
func TestActivitiesResumeAfterRestart(t *testing.T) {
	s := servertest.Start(t)
	c := newClient(t, s, fast())
	u := createUser(t, c, 1)
	ctx, cancel := context.WithCancel(limited(t))
	var got []int64
	received := make(chan int64)
	ended := make(chan error, 1)
	go func() {
		ended <- c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: u.GetUserId()}, func(row *userv1.UserActivity) error {
			got = append(got, row.GetActivityId())
			received <- row.GetActivityId()
			return nil
		})
	}()
	<-received
	for range 3 {
		record(t, c, u.GetUserId())
		<-received
		s.Restart()
	}
	record(t, c, u.GetUserId())
	<-received
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("StreamUserActivities() = %v, want context.Canceled", err)
	}
	if err := checkPositions(got); err != nil || len(got) != 5 {
		t.Errorf("positions = %v, want 1 to 5", got)
	}
}

// from_head has one start, also after an interruption before the first row.
func TestActivitiesFromHeadResume(t *testing.T) {
	s := servertest.Start(t)
	writer := newClient(t, s)
	u := createUser(t, writer, 1)
	opened := make(chan struct{}, 10)
	c := newClient(t, s, fast(), client.WithInterceptors(&plant{change: func(int64, any) { opened <- struct{}{} }}))
	first := make(chan int64)
	ctx, cancel := context.WithCancel(limited(t))
	ended := make(chan error, 1)
	go func() {
		ended <- c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true, Progress: true}, func(row *userv1.UserActivity) error {
			if row.GetAction() != "" {
				first <- row.GetActivityId()
			} else {
				opened <- struct{}{} // caught up
			}
			return nil
		})
	}()
	<-opened
	<-opened
	s.Restart()
	record(t, writer, u.GetUserId())
	if got := <-first; got != 2 {
		t.Errorf("first row = %d, want 2", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("StreamUserActivities() = %v, want context.Canceled", err)
	}
}

// Items are applied once although connections fail while a chunk is sent, and although responses are lost. The same check finds a planted fault.
func TestBatchesResume(t *testing.T) {
	fresh := func(_ int64, message any) {
		switch item := message.(type) {
		case *userv1.UpdateUserRequest:
			item.RequestId = uuid.NewString()
		case *userv1.BatchCreateUsersRequest:
			item.User.RequestId = uuid.NewString()
		}
	}
	for _, test := range []struct {
		name    string
		planted func(int64, any)
		want    bool // a fault is found
	}{
		{"random bytes", nil, false},
		{"planted: new request ids", fresh, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := servertest.Start(t, servertest.Config(func(c *server.Config) {
				c.KeepaliveMinTime, c.MemoryLimit = 0, "off" // the test shares the memory, and with -race it has much
			}))
			u := createUser(t, newClient(t, s), 1)
			faulty := func() (*client.Client, *faultyNet) {
				f := newFaultyNet(t, s, 7, 60_000, 110_000) // a chunk has about 120 KB, and the server applies 500 items at a time
				lost := new(lostResponses)
				lost.left.Store(2)
				options := []client.Option{client.WithInterceptors(lost)}
				if test.planted != nil {
					options = append(options, client.WithInterceptors(&plant{change: test.planted}))
				}
				return newFaultyClient(t, f, options...), f
			}
			const n = 4500
			c, updates := faulty()
			summary, err := c.BatchUpdateUsers(limited(t), numbered(n, func(i int) *userv1.UpdateUserRequest {
				return &userv1.UpdateUserRequest{UserId: u.GetUserId(), User: &userv1.User{Metadata: map[string]string{"n": strconv.Itoa(i)}}}
			}), nil)
			if err != nil || summary.Updated != n {
				t.Fatalf("BatchUpdateUsers() = %+v, %v, want %d updated", summary, err, n)
			}
			after, err := c.GetUser(limited(t), u.GetUserId())
			if err != nil {
				t.Fatal(err)
			}
			if test.want && after.GetVersion() != n+1 {
				return // the fault is found
			}
			next := int64(0)
			c, creates := faulty()
			created, err := c.BatchCreateUsers(limited(t), numbered(n, func(i int) *userv1.BatchCreateUsersRequest {
				return &userv1.BatchCreateUsersRequest{User: &userv1.CreateUserRequest{Username: fmt.Sprint("batch ", i), Email: fmt.Sprintf("batch%d@example.org", i)}}
			}), func(r client.ItemResult) error {
				if r.Index != next {
					t.Errorf("result %d has index %d", next, r.Index)
				}
				next++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			found := after.GetVersion() != n+1 || after.GetMetadata()["n"] != strconv.Itoa(n-1) || created.Created != n
			if found != test.want {
				t.Errorf("version = %d, created = %d, want %d and %d: a fault is found: %t, want %t", after.GetVersion(), created.Created, n+1, n, found, test.want)
			}
			if updates.failures() < 2 || creates.failures() < 2 {
				t.Errorf("%d and %d connections failed, want at least 2 each", updates.failures(), creates.failures())
			}
		})
	}
}

func numbered[T any](n int, item func(int) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := range n {
			if !yield(item(i)) {
				return
			}
		}
	}
}
