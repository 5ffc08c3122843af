package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/store/faulty"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

// callerStore records the reads of handlers, and how many had a caller.
type callerStore struct {
	user.Store

	reads, withCaller *atomic.Int64
}

func (s callerStore) Get(ctx context.Context, id int64) (*user.User, error) {
	s.reads.Add(1)
	if user.CallerFromContext(ctx) != "" {
		s.withCaller.Add(1)
	}
	return s.Store.Get(ctx, id)
}

// The order of the interceptors shows where two of them would respond to one request: the outer one
// does. Every failure, also a panic, has a log line with code and trace, a metric and a counted reason,
// because the observing interceptors are outside.
func TestChainOrder(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.TracingOptions{Service: "userd", Console: &lockedBuffer{}})
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	var reads, withCaller atomic.Int64
	g := startGuarded(t, servertest.Admin(), servertest.Tracing(tracing), servertest.Log(slog.NewJSONHandler(&log, nil)),
		servertest.Store(func(s user.Store) user.Store {
			return callerStore{faulty.New(s, faulty.PanicInHandler), &reads, &withCaller}
		}),
		servertest.Config(func(c *server.Config) { c.MaxCallDuration = time.Second }))
	head, err := g.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := g.grpc(g.token(t, "ann", time.Hour, auth.UsersRead, auth.ActivitiesRead))
	ahead := user.FormatPosition(head.Epoch, 7)
	for _, c := range []struct {
		name        string
		call        func(context.Context, userv1connect.UserServiceClient, int64) error
		user        int64
		minPosition string
		code        connect.Code
		reason      user.Reason
		position    bool // the response has a position
		reached     bool // the handler was reached
	}{
		{"authorization before the wait for a position and validation", listActivities, 0, ahead, connect.CodePermissionDenied, user.PermissionMissing, false, false},
		{"deadline before the wait for a position", getUser, 42, ahead, connect.CodeUnavailable, user.PositionNotReached, true, false},
		{"position before validation", getUser, -1, "", connect.CodeInvalidArgument, user.InvalidField, true, false},
		{"position before validation of a stream", streamActivities, -1, "", connect.CodeInvalidArgument, user.InvalidField, true, false},
		{"recovery before the handler", getUser, faulty.PanicUser, "", connect.CodeInternal, user.InternalError, true, true},
		{"recovery before the handler of a stream", streamActivities, faulty.PanicUser, "", connect.CodeInternal, user.InternalError, true, true},
		{"caller before the handler", getUser, 42, "", connect.CodeNotFound, user.UserNotFound, true, true},
		{"caller before the handler of a stream", streamActivities, 42, "", connect.CodeNotFound, user.UserNotFound, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, start := reads.Load(), time.Now()
			ctx, info := connect.NewClientContext(t.Context())
			if c.minPosition != "" {
				info.RequestHeader().Set("Userd-Min-Position", c.minPosition)
			}
			err := c.call(ctx, client, c.user)
			wantError(t, err, c.code, c.reason)
			if took := time.Since(start); took > 4*time.Second { // a wait for a position takes 5 s
				t.Errorf("the call took %v, want the deadline of 1 s", took)
			}
			if got := positionHeader(info, err) != ""; got != c.position {
				t.Errorf("response has a position: %t, want %t", got, c.position)
			}
			if got := reads.Load() > before; got != c.reached {
				t.Errorf("handler reached: %t, want %t", got, c.reached)
			}
		})
	}
	if reads.Load() == 0 || withCaller.Load() != reads.Load() {
		t.Errorf("%d of %d reads had a caller, want all", withCaller.Load(), reads.Load())
	}
	_, metrics := fetch(t, g.AdminURL()+"/metrics")
	for _, want := range []struct {
		code   string
		reason user.Reason
		calls  int
		metric string // code and method of a unary call
	}{
		{"permission_denied", user.PermissionMissing, 1, `grpc_code="PermissionDenied",grpc_method="ListUserActivities"`},
		{"unavailable", user.PositionNotReached, 1, `grpc_code="Unavailable",grpc_method="GetUser"`},
		{"invalid_argument", user.InvalidField, 2, `grpc_code="InvalidArgument",grpc_method="GetUser"`},
		{"internal", user.InternalError, 2, `grpc_code="Internal",grpc_method="GetUser"`},
		{"not_found", user.UserNotFound, 2, `grpc_code="NotFound",grpc_method="GetUser"`},
	} {
		if got := tracedCalls(t, &log, want.code); got != want.calls {
			t.Errorf("%d log lines with a trace have code %s, want %d", got, want.code, want.calls)
		}
		for _, metric := range []string{
			fmt.Sprintf("userd_errors_total{reason=%q} %d\n", want.reason, want.calls),
			"grpc_server_handled_total{" + want.metric + `,grpc_service="user.v1.UserService",grpc_type="unary"} 1` + "\n",
		} {
			if !strings.Contains(metrics, metric) {
				t.Errorf("metrics have no %s", metric)
			}
		}
	}
}

// tracedCalls returns the number of log lines of calls with the code and a trace.
func tracedCalls(t *testing.T, log *lockedBuffer, code string) (n int) {
	t.Helper()
	for text := range strings.Lines(log.String()) {
		var line struct {
			Msg, Code string
			TraceID   string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line.Msg == "finished call" && line.TraceID != "" && line.Code == code {
			n++
		}
	}
	return n
}

func getUser(ctx context.Context, client userv1connect.UserServiceClient, id int64) error {
	_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
	return err
}

func listActivities(ctx context.Context, client userv1connect.UserServiceClient, id int64) error {
	_, err := client.ListUserActivities(ctx, &userv1.ListUserActivitiesRequest{UserId: id, PageSize: -1})
	return err
}

func streamActivities(ctx context.Context, client userv1connect.UserServiceClient, id int64) error {
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: id, ReplayOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	stream.Receive()
	return stream.Err()
}

// positionHeader returns the position in the header of a response or in the metadata of its error.
func positionHeader(info connect.CallInfo, err error) string {
	var failure *connect.Error
	if header := info.ResponseHeader(); header.Get("Userd-Position") != "" || !errors.As(err, &failure) {
		return header.Get("Userd-Position")
	}
	return failure.Meta().Get("Userd-Position")
}
