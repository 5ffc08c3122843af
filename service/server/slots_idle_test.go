package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// A stream that waits holds no slot, so that any number of idle streams leave the processors to others.
func TestIdleStreamsHoldNoSlot(t *testing.T) {
	s := servertest.Start(t, servertest.Admin())
	for _, test := range []struct {
		path    string
		request proto.Message
	}{
		{"/user.v1.UserService/StreamUserActivities", &userv1.StreamUserActivitiesRequest{}},
		{"/user.v1.UserService/StreamUserActivities", &userv1.StreamUserActivitiesRequest{FromHead: true, Progress: true}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{All: true}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{All: true, Progress: true}},
		{"/grpc.health.v1.Health/Watch", &grpc_health_v1.HealthCheckRequest{}},
	} {
		for _, kind := range []string{"application/grpc", "application/grpc-web", "application/connect+proto"} {
			peer := dialHTTP2(t, s)
			peer.contentType = kind
			peer.call(t, 1, test.path, test.request)
			peer.await(t, func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok })
		}
	}
	both, err := s.GRPC().SyncUserStatus(t.Context())
	if err == nil {
		err = both.Send(&userv1.UserStatusUpdate{}) // follows all users
	}
	if err == nil {
		_, err = both.Receive()
	}
	if err != nil {
		t.Fatal(err)
	}
	batch, err := s.GRPC().BatchUpdateUsers(t.Context())
	if err == nil {
		err = batch.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Username: "anna"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/users/0/activities", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		response, err := s.HTTP(true).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
	}
	var held string
	for range 100 { // a stream that has just started may still run
		_, text := fetch(t, s.AdminURL()+"/metrics")
		_, after, _ := strings.Cut(text, "\nuserd_slots_held ")
		if held, _, _ = strings.Cut(after, "\n"); held == "0" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("slots held by idle streams: %q, want 0", held)
}
