package server_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

func TestDrainEndsEveryStream(t *testing.T) {
	var log lockedBuffer
	s := servertest.Start(t, servertest.Log(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if _, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	type open struct {
		name string
		next func() error // receives until the stream ends
	}
	var streams []open
	for _, p := range servertest.Protocols() {
		stream, err := s.Client(p).StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() {
			t.Fatalf("%s: no row: %v", p.Name, stream.Err())
		}
		streams = append(streams, open{p.Name, func() error {
			for stream.Receive() {
			}
			return stream.Err()
		}})
		t.Cleanup(func() { _ = stream.Close() })
	}
	bidi, err := s.GRPC().SyncUserStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := bidi.Send(&userv1.UserStatusUpdate{}); err != nil {
		t.Fatal(err)
	}
	if _, err := bidi.Receive(); err != nil {
		t.Fatal(err)
	}
	streams = append(streams, open{"bidi", func() error {
		for {
			if _, err := bidi.Receive(); err != nil {
				return err
			}
		}
	}})
	t.Cleanup(func() { _ = bidi.CloseResponse() })

	s.Stop()
	for _, stream := range streams {
		info := wantError(t, stream.next(), connect.CodeUnavailable, user.ServerDraining)
		if m := info.GetMetadata(); m["position"] != "1" || m["epoch"] == "" {
			t.Errorf("%s: got metadata %v", stream.name, m)
		}
	}
	for _, step := range []string{"mark not ready", "end streams", "wait for in-flight calls", "close store"} {
		log.await(t, step)
	}
}

func TestRestartKeepsWrites(t *testing.T) {
	s := servertest.Start(t)
	client := s.GRPC()
	created, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	s.Restart()
	got, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: created.GetUser().GetUserId()})
	if err != nil || got.GetUser().GetUsername() != "ada" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestHealthOverTheWire(t *testing.T) {
	s := servertest.Start(t)
	client := grpchealth.NewClient(s.HTTP(true), "http://userd.test", connect.WithGRPC())
	for _, name := range []string{"", "user.v1.UserService", "user.v1.UserService.Write"} {
		got, err := client.Check(t.Context(), &grpchealth.CheckRequest{Service: name})
		if err != nil || got.Status != grpchealth.StatusServing {
			t.Errorf("%q: got %v, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := client.Watch(ctx, &grpchealth.CheckRequest{})
	if first := <-events; first.Response == nil || first.Response.Status != grpchealth.StatusServing {
		t.Fatalf("got %+v", first)
	}
	s.Stop()
	if next := <-events; next.Response != nil && next.Response.Status == grpchealth.StatusServing {
		t.Errorf("Watch after shutdown = %+v, want no SERVING", next)
	}
	cancel()
	for range events { // until the watch has ended
	}
}

func TestReflection(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	client := grpcreflect.NewClient(s.HTTP(true), "http://userd.test", connect.WithGRPC())
	stream := client.NewStream(t.Context())
	names, err := stream.ListServices()
	if err != nil || !slices.Contains(names, userv1connect.UserServiceName) {
		t.Errorf("got %v, %v", names, err)
	}
	files, err := stream.FileContainingSymbol(userv1connect.UserServiceName)
	if err != nil || len(files) == 0 {
		t.Errorf("got %d files, %v", len(files), err)
	}
	if _, err := stream.Close(); err != nil {
		t.Error(err)
	}
}
