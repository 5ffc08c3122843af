package intercept_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

func TestErrorsAreCountedByReason(t *testing.T) {
	o, registry := newMetrics(t)
	e := intercept.NewErrors(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		err    error
		reason user.Reason // empty: not counted
	}{
		{nil, ""},
		{user.NewNotFoundError(1), user.UserNotFound},
		{fmt.Errorf("handle: %w", user.NewStoreFullError()), user.StoreFull},
		{errors.New("bug"), user.InternalError},
		{&user.Error{Reason: "MADE_UP"}, ""},
		{connect.NewError(connect.CodeInvalidArgument, errors.New("cannot be read")), ""},
		{context.Canceled, ""},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), ""},
	} {
		before := total(t, registry, "userd_errors_total")
		unary := o.WrapUnary(e.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, c.err }))
		stream := o.WrapStreamingHandler(e.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { return c.err }))
		_, _ = unary(t.Context(), getUser(""))
		_ = stream(t.Context(), newConn(connect.StreamTypeServer, nil))
		if c.reason == "" {
			check(t, registry, before, "userd_errors_total")
		} else {
			check(t, registry, 2, "userd_errors_total", "reason", string(c.reason))
		}
	}
}
