package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

const (
	connectionAge      = 10 * time.Second
	connectionAgeGrace = 5 * time.Second
	shortestAge        = connectionAge * 9 / 10
	longestAge         = connectionAge * 11 / 10
)

func startAging(t *testing.T) *servertest.Server {
	t.Helper()
	return servertest.Start(t, servertest.Memory(), servertest.Parallel(), servertest.Config(func(c *server.Config) {
		c.MaxConnectionAge, c.MaxConnectionAgeGrace = connectionAge, connectionAgeGrace
	}))
}

// A client that calls all the time uses a new connection after each age, and no call fails.
func TestConnectionsAreReplaced(t *testing.T) {
	const duration = 5 * connectionAge
	for _, protocol := range servertest.Protocols() {
		t.Run(protocol.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := startAging(t).Client(protocol)
				used := make(map[net.Conn]struct{})
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					GotConn: func(info httptrace.GotConnInfo) { used[info.Conn] = struct{}{} },
				})
				for began := time.Now(); time.Since(began) < duration; time.Sleep(time.Second / 2) {
					_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: 1})
					if got, want := connect.CodeOf(err), connect.CodeNotFound; got != want {
						t.Fatalf("GetUser after %v = %v, want %v", time.Since(began), err, want)
					}
				}
				if got, least, most := len(used), int(duration/longestAge), 1+int(duration/shortestAge); got < least || got > most {
					t.Errorf("%d connections in %v, want %d to %d", got, duration, least, most)
				}
			})
		})
	}
}

// A call over a connection that was idle until the end of the grace does not fail.
func TestCallAfterIdleConnectionAge(t *testing.T) {
	const idle = connectionAge + connectionAgeGrace + 257*time.Millisecond // not at the instant of a sweep
	for _, protocol := range servertest.Protocols() {
		if protocol.HTTP2 {
			continue // its clients are notified, and open another connection
		}
		t.Run(protocol.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := startAging(t).Client(protocol)
				for call := range 30 { // the age has a jitter
					_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
					if got, want := connect.CodeOf(err), connect.CodeNotFound; got != want {
						t.Fatalf("call %d = %v, want %v", call, err, want)
					}
					time.Sleep(idle)
				}
			})
		})
	}
}

// A stream goes on when its connection has reached its age, and ends after the grace with an error that clients retry.
func TestStreamOutlivesConnectionAge(t *testing.T) {
	for _, protocol := range servertest.Protocols() {
		t.Run(protocol.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testStreamOutlivesAge(t, protocol) })
		})
	}
}

func testStreamOutlivesAge(t *testing.T, protocol servertest.Protocol) {
	t.Helper()
	s := startAging(t)
	created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	record := &userv1.RecordUserActivityRequest{UserId: created.GetUser().GetUserId(), Action: "test.late"}
	began := time.Now()
	stream, err := s.Client(protocol).StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{UserId: record.GetUserId()})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(longestAge+time.Second, func() {
		if _, err := s.GRPC().RecordUserActivity(t.Context(), record); err != nil {
			t.Error(err)
		}
	})
	late := 0
	for stream.Receive() {
		if stream.Msg().GetAction() == record.GetAction() {
			late++
		}
	}
	if got, want := connect.CodeOf(stream.Err()), connect.CodeUnavailable; got != want || late != 1 || !strings.Contains(stream.Err().Error(), "maximum age") {
		t.Errorf("stream ended with %v after %d late rows, want %v after 1", stream.Err(), late, want)
	}
	if took := time.Since(began); took < shortestAge+connectionAgeGrace || took > longestAge+connectionAgeGrace+time.Second {
		t.Errorf("stream ended after %v, want %v to %v", took, shortestAge+connectionAgeGrace, longestAge+connectionAgeGrace)
	}
}

// Each stream that waits ends like that, over its own connection.
func TestStreamsEndWithTheirConnection(t *testing.T) {
	streams := map[string]func(context.Context, *servertest.Server) error{
		"StreamUserActivities": func(ctx context.Context, s *servertest.Server) error {
			return drainStream(s.GRPC().StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{}))
		},
		"WatchUsers": func(ctx context.Context, s *servertest.Server) error {
			return drainStream(s.GRPC().WatchUsers(ctx, &userv1.WatchUsersRequest{}))
		},
		"WatchUserStatus": func(ctx context.Context, s *servertest.Server) error {
			return drainStream(s.GRPC().WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{All: true}))
		},
		"SyncUserStatus": func(ctx context.Context, s *servertest.Server) error {
			stream, err := s.GRPC().SyncUserStatus(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&userv1.UserStatusUpdate{}); err != nil {
				return err
			}
			for {
				if _, err := stream.Receive(); err != nil {
					return err
				}
			}
		},
		"BatchUpdateUsers": func(ctx context.Context, s *servertest.Server) error {
			stream, err := s.GRPC().BatchUpdateUsers(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&userv1.UpdateUserRequest{UserId: 1}); err != nil {
				return err
			}
			time.Sleep(2 * connectionAge)
			_, err = stream.CloseAndReceive()
			return err
		},
		"health Watch": func(ctx context.Context, s *servertest.Server) error {
			client := connect.NewClient[healthv1.HealthCheckRequest, healthv1.HealthCheckResponse](
				s.HTTP(true), "http://userd.test/grpc.health.v1.Health/Watch", connect.WithGRPC())
			return drainStream(client.CallServerStream(ctx, connect.NewRequest(new(healthv1.HealthCheckRequest))))
		},
	}
	for name, run := range streams {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := run(t.Context(), startAging(t))
				if got, want := connect.CodeOf(err), connect.CodeUnavailable; got != want || !strings.Contains(err.Error(), "maximum age") {
					t.Errorf("stream ended with %v, want %v", err, want)
				}
				if got, want := infoOf(err).GetMetadata()["position"], positions[name]; got != want {
					t.Errorf("position = %q, want %q", got, want)
				}
			})
		})
	}
}

// positions to resume from, in TestStreamsEndWithTheirConnection.
var positions = map[string]string{"StreamUserActivities": "0", "WatchUsers": "0", "WatchUserStatus": "0", "SyncUserStatus": "0"}

// infoOf returns the error info of an error, nil if it has none.
func infoOf(err error) *errdetails.ErrorInfo {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return nil
	}
	for _, detail := range failure.Details() {
		if value, err := detail.Value(); err == nil {
			if info, ok := value.(*errdetails.ErrorInfo); ok {
				return info
			}
		}
	}
	return nil
}

// A REST stream reports that end, too.
func TestRESTStreamsEndWithTheirConnection(t *testing.T) {
	for _, media := range []string{"text/event-stream", "application/x-ndjson"} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2: %t", media, http2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := startAging(t)
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://userd.test/api/v1/users/0/activities", nil)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Accept", media)
					res, err := s.HTTP(http2).Do(req)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = res.Body.Close() }()
					body, err := io.ReadAll(res.Body)
					if err != nil || !strings.Contains(string(body), `"SERVER_DRAINING"`) || !strings.Contains(string(body), `"position":"0"`) {
						t.Errorf("stream ended with %q, %v, want SERVER_DRAINING with position 0", body, err)
					}
				})
			})
		}
	}
}

// drainStream receives until the stream ends, and returns its error.
func drainStream[T any](stream *connect.ServerStreamForClient[T], err error) error {
	if err != nil {
		return err
	}
	for stream.Receive() {
	}
	return stream.Err()
}
