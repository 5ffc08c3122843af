package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// positionRows request positions after the head of the log.
func positionRows(head user.Head) map[string]failing {
	list := func(reason user.Reason, status int, header http.Header, want *errorContent) failing {
		return failing{reason: reason, status: status, header: header, want: want, rpc: listUsers, rest: listedByREST}
	}
	wanting := func(position string) http.Header { return http.Header{"Userd-Min-Position": {position}} }
	// The deadline is set by the header of each protocol. The client itself has none, because it could
	// expire before the response arrives.
	ahead := wanting(fmt.Sprintf("%s:%d", head.Epoch, head.Position+1000))
	ahead.Set("Connect-Timeout-Ms", "100")
	ahead.Set("Grpc-Timeout", "100m")
	ahead.Set("X-Server-Timeout", "0.1")
	return map[string]failing{
		"no position": list(user.InvalidField, 400, wanting("x"), nil),
		"position of another log": list(user.PositionOutOfRange, 400, wanting("other:1"), &errorContent{
			Code: connect.CodeOutOfRange, Reason: "POSITION_OUT_OF_RANGE", Message: "the position belongs to another log",
			Metadata: map[string]string{
				"epoch": head.Epoch, "first_position": "1", "last_position": strconv.FormatInt(head.Position, 10),
			},
		}),
		"position not reached": list(user.PositionNotReached, 503, ahead, &errorContent{
			Code: connect.CodeUnavailable, Reason: "POSITION_NOT_REACHED",
			Message: "timed out waiting for the requested position", Retry: true,
		}),
	}
}

var listedByREST = request{method: "GET", path: "/api/v1/users"}

func listUsers(ctx context.Context, c userv1connect.UserServiceClient) error {
	_, err := c.ListUsers(ctx, &userv1.ListUsersRequest{})
	return err
}

// limited is a call beyond a limit.
type limited struct {
	failing

	config func(*server.Config)
	before func(*testing.T, *servertest.Server) // may be nil
	store  func(user.Store) user.Store          // nil: the plain store
}

const (
	mostBytes = 64 << 10
	mostItems = 2
)

func limitRows() map[string]limited {
	tooLong := strings.Repeat("a", 2*mostBytes)
	exhausted := func(reason user.Reason, message string, limit int) *errorContent {
		return &errorContent{
			Code: connect.CodeResourceExhausted, Reason: string(reason), Message: message,
			Metadata: map[string]string{"limit": strconv.Itoa(limit)},
		}
	}
	streams := exhausted(user.TooManyStreams, "more than 1 streams are open", 1)
	streams.Retry = true
	return map[string]limited{
		"message": {config: func(c *server.Config) { c.MaxMessageBytes = mostBytes }, failing: failing{
			reason: user.MessageTooLarge, status: 413,
			rpc: func(ctx context.Context, c userv1connect.UserServiceClient) error {
				_, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: tooLong})
				return err
			},
			rest: request{method: "POST", path: "/api/v1/users", body: `{"username": "` + tooLong + `"}`},
			want: exhausted(user.MessageTooLarge, "message too large: limit is 65536 bytes", mostBytes),
		}},
		"items": {config: func(c *server.Config) { c.MaxStreamItems = mostItems }, failing: failing{
			reason: user.TooManyItems, rpc: sendTooManyItems, noREST: "no client stream has a route",
			want: exhausted(user.TooManyItems, "more than 2 items in one stream", mostItems),
		}},
		"streams": {config: func(c *server.Config) { c.MaxStreamsPerCaller = 1 }, before: holdStream, failing: failing{
			reason: user.TooManyStreams, status: 429, rpc: openStream,
			rest: request{method: "GET", path: "/api/v1/users/0/activities", header: http.Header{"Accept": {"application/x-ndjson"}}},
			want: streams,
		}},
		"follows": {store: func(store user.Store) user.Store { return everybodyStore{store} }, failing: failing{
			reason: user.TooManyFollows, rpc: followTooMany, http2: true,
			noREST: "users:watchStatus names at most as many users as may be followed, or it breaks a rule",
			want:   exhausted(user.TooManyFollows, "more than 10000 followed users on one stream", feed.MaxFollows),
		}},
		"rate": {config: func(c *server.Config) { c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 1 }, failing: failing{
			reason: user.RateLimited, status: 429, rpc: listUsers, rest: listedByREST, hasty: true,
			want: &errorContent{
				Code: connect.CodeResourceExhausted, Reason: "RATE_LIMITED", Retry: true,
				Message: "request rate limit of the caller exceeded",
			},
		}},
	}
}

// An exceeded limit is the same error over every protocol.
func TestLimitErrorsAreEqualOverAllProtocols(t *testing.T) {
	t.Parallel()
	for name, row := range limitRows() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := []servertest.Option{servertest.Parallel()}
			if row.config != nil {
				options = append(options, servertest.Config(row.config))
			}
			if row.store != nil {
				options = append(options, servertest.Store(row.store))
			}
			s := servertest.Start(t, options...)
			if row.before != nil {
				row.before(t, s)
			}
			row.compare(t, s)
			if after, err := s.Store().Head(t.Context()); err != nil || after.Position != 0 {
				t.Errorf("store head = %v, %v, want it unchanged", after, err)
			}
		})
	}
}

func sendTooManyItems(ctx context.Context, c userv1connect.UserServiceClient) error {
	stream, err := c.BatchCreateUsers(ctx)
	if err != nil {
		return err
	}
	for n := range mostItems + 1 {
		name := fmt.Sprintf("user%d", n)
		// The server may respond before it has read the whole request.
		_ = stream.Send(&userv1.BatchCreateUsersRequest{
			User: &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"},
		})
	}
	_, err = stream.CloseAndReceive()
	return err
}

func openStream(ctx context.Context, c userv1connect.UserServiceClient) error {
	stream, err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	stream.Receive()
	return stream.Err()
}

// holdStream opens a stream until the end of the test.
func holdStream(t *testing.T, s *servertest.Server) {
	t.Helper()
	stream, err := s.GRPC().StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{Progress: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	if !stream.Receive() { // the first progress row: the stream is open
		t.Fatal(stream.Err())
	}
}

// everybodyStore has a user for every id; storing so many would be slow.
type everybodyStore struct{ user.Store }

func (everybodyStore) Statuses(_ context.Context, ids []int64) ([]user.CurrentStatus, error) {
	statuses := make([]user.CurrentStatus, len(ids))
	for i, id := range ids {
		statuses[i] = user.CurrentStatus{UserID: id, Status: user.StatusActive}
	}
	return statuses, nil
}

// firstFollowed makes a message that is shorter than its prefix. Sent after a separate prefix, it must
// not count as excessive empty frames.
const firstFollowed = 1

// followTooMany returns the error of the message that exceeds the limit; the stream continues.
func followTooMany(ctx context.Context, c userv1connect.UserServiceClient) error {
	stream, err := c.SyncUserStatus(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.CloseResponse() }()
	sent := make(chan error, 1)
	go func() {
		defer func() { _ = stream.CloseRequest() }()
		for n := range int64(feed.MaxFollows + 1) {
			if err := stream.Send(&userv1.UserStatusUpdate{UserId: firstFollowed + n}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var last *userv1.ItemFailure
	for n := range feed.MaxFollows + 1 {
		response, err := stream.Receive()
		if err != nil {
			return err
		}
		if last = response.GetFailure(); last != nil && n < feed.MaxFollows {
			return fmt.Errorf("message %d: %v", n, last)
		}
	}
	return errors.Join(asError(last), <-sent)
}

// asError converts the failure of an item to the error of a call.
func asError(f *userv1.ItemFailure) error {
	if f == nil {
		return nil
	}
	e := connect.NewError(connect.Code(f.GetCode()), errors.New(f.GetMessage()))
	details := []proto.Message{&errdetails.ErrorInfo{Reason: f.GetReason().String(), Domain: rpcstatus.Domain, Metadata: f.GetMetadata()}}
	if len(f.GetFieldViolations()) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: f.GetFieldViolations()})
	}
	for _, detail := range details {
		packed, err := connect.NewErrorDetail(detail)
		if err != nil {
			return err
		}
		e.AddDetail(packed)
	}
	return e
}
