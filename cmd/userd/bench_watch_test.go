package main_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// BenchmarkMirror copies 100,000 users.
func BenchmarkMirror(b *testing.B) {
	const users = 100_000
	p := program{dir: b.TempDir()}.start(b)
	client := p.client(b, 1<<20)
	importUsers(b, client, users)
	before := processorTime(b, p)
	for b.Loop() {
		if got := mirrorOnce(b, client); got != users {
			b.Fatalf("received %d users, want %d", got, users)
		}
	}
	b.ReportMetric(users*float64(b.N)/b.Elapsed().Seconds(), "users/s")
	b.ReportMetric(float64((processorTime(b, p)-before).Microseconds())/float64(b.N)/users, "server-µs/user")
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

// BenchmarkMirrorFanOut makes one change, which 1000 mirrors receive.
func BenchmarkMirrorFanOut(b *testing.B) {
	const connections, mirrors = 10, 1000
	p := program{dir: b.TempDir(), flags: []string{"--memory-limit", "460MiB"}}.start(b)
	client := p.client(b, 1<<20)
	importUsers(b, client, 1)
	id := userIDs(b, client)[0]
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	received := make(chan error, mirrors)
	before := residentBytes(b, p)
	var open errgroup.Group
	for range connections {
		client := connected(b, p)
		for range mirrors / connections {
			open.Go(func() error { return mirrorChanges(ctx, client, received) })
		}
	}
	if err := open.Wait(); err != nil {
		b.Fatal(err)
	}
	idle := residentBytes(b, p) - before
	used := processorTime(b, p)
	b.ResetTimer()
	for i := range b.N {
		_, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus(1 + (i+1)%2)})
		for n := 0; err == nil && n < mirrors; n++ {
			select {
			case err = <-received:
			case <-time.After(time.Minute):
				b.Fatal("timed out waiting for a mirror")
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(idle)/mirrors/1024, "KiB/mirror")
	b.ReportMetric(float64((processorTime(b, p)-used).Microseconds())/float64(b.N)/mirrors, "server-µs/delivery")
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
