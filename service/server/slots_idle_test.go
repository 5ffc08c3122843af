package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// A stream that waits holds no slot, so that any number of idle streams leave the processors to others: for changes, or for a client
// that does not read, in the middle of the turns of a replay.
func TestIdleStreamsHoldNoSlot(t *testing.T) {
	s := servertest.Start(t, servertest.Admin(), servertest.Config(func(c *server.Config) { c.StallTimeout = time.Hour }))
	var create userv1.CreateUsersRequest
	var ids []int64
	for i := range 400 {
		name := fmt.Sprintf("user%d", i)
		create.Requests = append(create.Requests, &userv1.CreateUserRequest{
			Username: name, Email: name + "@example.org", Metadata: map[string]string{"key": strings.Repeat("x", 300)},
		})
	}
	created, err := s.GRPC().CreateUsers(t.Context(), &create)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range created.GetResults() {
		ids = append(ids, result.GetUser().GetUserId())
	}
	for _, test := range []struct {
		path    string
		request proto.Message
	}{
		{"/user.v1.UserService/StreamUserActivities", &userv1.StreamUserActivitiesRequest{}},
		{"/user.v1.UserService/StreamUserActivities", &userv1.StreamUserActivitiesRequest{FromHead: true, Progress: true}},
		{"/user.v1.UserService/StreamUserActivities", &userv1.StreamUserActivitiesRequest{UserId: ids[0]}},
		{"/user.v1.UserService/WatchUsers", &userv1.WatchUsersRequest{}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{UserIds: ids}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{UserIds: ids, AfterActivityId: int64(len(ids))}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{All: true}},
		{"/user.v1.UserService/WatchUserStatus", &userv1.WatchUserStatusRequest{All: true, AfterActivityId: 1}},
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
		for _, path := range []string{"0/activities", fmt.Sprint(ids[0], "/activities"), "0/activities?from_head=true"} {
			for _, http2 := range []bool{false, true} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/users/"+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Accept", accept)
				response, err := s.HTTP(http2).Do(request)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = response.Body.Close() })
			}
		}
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
