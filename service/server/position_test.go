package server_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

func TestResponseHasPosition(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	n := 0
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		n++
		ctx, info := connect.NewClientContext(t.Context())
		name := "user" + strconv.Itoa(n)
		if _, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"}); err != nil {
			t.Fatal(err)
		}
		epoch, position := positionOf(t, info.ResponseHeader())
		if position != int64(n) {
			t.Errorf("the write has position %d, want %d", position, n)
		}
		ctx, info = connect.NewClientContext(t.Context())
		if _, err := client.ListUsers(ctx, &userv1.ListUsersRequest{}); err != nil {
			t.Fatal(err)
		}
		if readEpoch, read := positionOf(t, info.ResponseHeader()); read < position || readEpoch != epoch {
			t.Errorf("the read has %s:%d after %s:%d", readEpoch, read, epoch, position)
		}
	})
}

func TestReadWaitsForPosition(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	client := s.GRPC()
	head, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type response struct {
		users int
		err   error
	}
	read := make(chan response, 1)
	go func() {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Userd-Min-Position", head.Epoch+":1")
		list, err := client.ListUsers(ctx, &userv1.ListUsersRequest{})
		read <- response{len(list.GetUsers()), err}
	}()
	if _, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got.err != nil || got.users != 1 {
		t.Errorf("got %+v", got)
	}
}

// A response has one position, also that of a stream.
func TestStreamsHaveOnePosition(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		activities, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
		if err != nil || activities.Receive() || activities.Err() != nil {
			t.Fatal(err, activities.Err())
		}
		positionOf(t, activities.ResponseHeader())
		users, err := client.WatchUsers(ctx, &userv1.WatchUsersRequest{})
		if err != nil || !users.Receive() {
			t.Fatal(err, users.Err())
		}
		positionOf(t, users.ResponseHeader())
		statuses, err := client.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{All: true})
		if err != nil {
			t.Fatal(err)
		}
		positionOf(t, statuses.ResponseHeader())
	})
	ctx, info := connect.NewClientContext(t.Context())
	batch, err := s.GRPC().BatchUpdateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := batch.CloseAndReceive(); err != nil {
		t.Fatal(err)
	}
	positionOf(t, info.ResponseHeader())
}

func TestBadMinPosition(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	call := func(value string) error {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Userd-Min-Position", value)
		_, err := s.GRPC().ListUsers(ctx, &userv1.ListUsersRequest{})
		return err
	}
	for _, value := range []string{"x", ":1", "e:", "e:-1", "e:1x"} {
		wantError(t, call(value), connect.CodeInvalidArgument, user.InvalidField)
	}
	info := wantError(t, call("other:1"), connect.CodeOutOfRange, user.PositionOutOfRange)
	head, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m := info.GetMetadata(); m["epoch"] != head.Epoch || m["first_position"] != "1" || m["last_position"] != "0" {
		t.Errorf("got metadata %v", m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.GRPC().ListUsers(ctx, &userv1.ListUsersRequest{}); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("canceled: got %v", err)
	}
}

func positionOf(t *testing.T, header http.Header) (epoch string, position int64) {
	t.Helper()
	values := header.Values("Userd-Position")
	if len(values) != 1 {
		t.Fatalf("got positions %q", values)
	}
	epoch, digits, _ := strings.Cut(values[0], ":")
	position, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || epoch == "" {
		t.Fatalf("got position %q", values[0])
	}
	return epoch, position
}
