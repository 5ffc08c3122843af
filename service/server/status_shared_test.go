package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
)

// Streams of all protocols, two of each, receive the same status changes, and each message is counted.
func TestStatusChangeOnAllProtocols(t *testing.T) {
	const streamsOfEach, changes = 2, 6
	s := servertest.Start(t, servertest.Admin())
	created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "anna", Email: "anna@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetUser().GetUserId()
	type watcher struct {
		name    string
		receive func() (*userv1.UserStatusUpdate, error)
	}
	var watchers []watcher
	for _, p := range servertest.Protocols() {
		for range streamsOfEach {
			stream, err := s.Client(p).WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{UserIds: []int64{id}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = stream.Close() })
			watchers = append(watchers, watcher{p.Name, func() (*userv1.UserStatusUpdate, error) {
				stream.Receive()
				return stream.Msg(), stream.Err()
			}})
		}
	}
	want := created.GetUser().GetStatus()
	for n := range 1 + changes { // first the present status
		if n > 0 {
			want = userv1.UserStatus(2 + n%2)
			if _, err := s.GRPC().UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{UserId: id, Status: want}); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range watchers {
			got, err := w.receive()
			if err != nil || got.GetStatus() != want || got.GetUserId() != id || got.GetActivityId() != int64(1+n) {
				t.Errorf("%s: change %d = %v, %v, want status %v", w.name, n, got, err, want)
			}
		}
	}
	status, text := fetch(t, s.AdminURL()+"/metrics")
	counted := fmt.Sprintf(`grpc_server_msg_sent_total{grpc_method="WatchUserStatus",grpc_service="user.v1.UserService",grpc_type="server_stream"} %d`,
		len(watchers)*(1+changes))
	if status != http.StatusOK || !strings.Contains(text, counted+"\n") {
		t.Errorf("metrics have no line %s", counted)
	}
}
