package main_test

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// BenchmarkMirror copies 100,000 users, or as many as USERD_BENCH_USERS says.
func BenchmarkMirror(b *testing.B) {
	users := 100_000
	if text := os.Getenv("USERD_BENCH_USERS"); text != "" {
		var err error
		if users, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	p := program{dir: b.TempDir()}.start(b)
	client := p.client(b, 1<<20)
	importUsers(b, client, users)
	before := processorTime(b, p)
	for b.Loop() {
		if got := mirrorOnce(b, client); got != users {
			b.Fatalf("received %d users, want %d", got, users)
		}
	}
	copied := float64(users) * float64(b.N)
	b.ReportMetric(copied/b.Elapsed().Seconds(), "users/s")
	b.ReportMetric(float64((processorTime(b, p)-before).Microseconds())/copied, "server-µs/user")
}

// mirrorOnce reads until synced and returns the number of users.
func mirrorOnce(b *testing.B, client userv1connect.UserServiceClient) (users int) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	stream, err := client.WatchUsers(ctx, &userv1.WatchUsersRequest{})
	if err != nil {
		b.Fatal(err)
	}
	for stream.Receive() {
		if stream.Msg().GetSynced() {
			return users
		}
		users++
	}
	b.Fatal(stream.Err())
	return 0
}

// BenchmarkMirrorFanOut makes one change, which 1000 streams receive: mirrors, and for comparison streams
// of all activities.
func BenchmarkMirrorFanOut(b *testing.B) {
	b.Run("mirrors", func(b *testing.B) { fanOut(b, mirrorChanges) })
	b.Run("activities", func(b *testing.B) { fanOut(b, newActivities) })
}

// fanOut measures the memory of idle streams and the cost of a change. open returns when the stream is at the
// head, and then sends the result of each message.
func fanOut(b *testing.B, open func(context.Context, userv1connect.UserServiceClient, chan<- error) error) {
	const connections, streams = 10, 1000
	p := program{dir: b.TempDir(), flags: []string{"--memory-limit", "460MiB"}}.start(b)
	client := p.client(b, 1<<20)
	importUsers(b, client, 1)
	id := userIDs(b, client)[0]
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	received := make(chan error, streams)
	before := residentBytes(b, p)
	var opening errgroup.Group
	for range connections {
		client := connected(b, p)
		for range streams / connections {
			opening.Go(func() error { return open(ctx, client, received) })
		}
	}
	if err := opening.Wait(); err != nil {
		b.Fatal(err)
	}
	idle := residentBytes(b, p) - before
	used := processorTime(b, p)
	b.ResetTimer()
	for i := range b.N {
		_, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus(1 + (i+1)%2)})
		for n := 0; err == nil && n < streams; n++ {
			select {
			case err = <-received:
			case <-time.After(time.Minute):
				b.Fatal("timed out waiting for a stream")
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(idle)/streams/1024, "KiB/stream")
	b.ReportMetric(float64((processorTime(b, p)-used).Microseconds())/float64(b.N)/streams, "server-µs/delivery")
}

// mirrorChanges returns when the stream is synced, and then sends the result of each message.
func mirrorChanges(ctx context.Context, client userv1connect.UserServiceClient, received chan<- error) error {
	stream, err := client.WatchUsers(ctx, &userv1.WatchUsersRequest{})
	if err != nil {
		return err
	}
	for !stream.Msg().GetSynced() {
		if !stream.Receive() {
			return stream.Err()
		}
	}
	go func() {
		for stream.Receive() {
			received <- nil
		}
		if ctx.Err() == nil {
			received <- stream.Err()
		}
	}()
	return nil
}

// newActivities returns when the stream has received the first row, and then sends the result of each row.
func newActivities(ctx context.Context, client userv1connect.UserServiceClient, received chan<- error) error {
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		return err
	}
	if !stream.Receive() {
		return stream.Err()
	}
	go func() {
		for stream.Receive() {
			received <- nil
		}
		if ctx.Err() == nil {
			received <- stream.Err()
		}
	}()
	return nil
}
