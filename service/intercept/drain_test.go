package intercept_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// A call canceled by the server fails with the server's reason, unless it had a result.
func TestCallCanceledByTheServer(t *testing.T) {
	e := intercept.NewErrors(slog.New(slog.DiscardHandler))
	ctx, end := context.WithCancelCause(t.Context())
	end(user.NewDrainingError("e", 7))
	for _, c := range []struct {
		err    error
		code   connect.Code
		reason user.Reason
	}{
		{context.Canceled, connect.CodeUnavailable, user.ServerDraining},
		{context.Cause(ctx), connect.CodeUnavailable, user.ServerDraining},
		{errors.New("interrupted (9)"), connect.CodeUnavailable, user.ServerDraining},
		{user.NewNotFoundError(1), connect.CodeNotFound, user.UserNotFound},
	} {
		_, err := e.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, c.err
		})(ctx, connect.NewRequest(&struct{}{}))
		var connectErr *connect.Error
		if !errors.As(err, &connectErr) || connectErr.Code() != c.code || reasonOf(t, connectErr) != string(c.reason) {
			t.Errorf("%v: error = %v", c.err, err)
		}
	}
}

func TestDrainedStreamsAreSampled(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	o, err := intercept.NewObserver(intercept.ObserverOptions{Logger: log, Interval: time.Hour, Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	run := o.WrapStreamingHandler(
		intercept.NewErrors(log).WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
			return user.NewDrainingError("e", 7)
		}))
	for range 1000 {
		_ = run(t.Context(), newConn(connect.StreamTypeServer, nil))
	}
	if lines := strings.Count(out.String(), "msg=\"finished call\""); lines != 1 || !strings.Contains(out.String(), "level=INFO") {
		t.Errorf("got %d log lines, want 1: %s", lines, out.String())
	}
}
