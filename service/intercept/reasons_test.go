package intercept_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

func TestErrorsAreCountedByReason(t *testing.T) {
	registry := prometheus.NewRegistry()
	r, err := intercept.NewReasons(registry)
	if err != nil {
		t.Fatal(err)
	}
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
		unary := r.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, c.err })
		stream := r.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error { return c.err })
		_, got := unary(t.Context(), getUser(""))
		if again := stream(t.Context(), nil); got != c.err || again != c.err { //nolint:errorlint // identity
			t.Errorf("%v became %v and %v", c.err, got, again)
		}
		if c.reason == "" {
			check(t, registry, before, "userd_errors_total")
		} else {
			check(t, registry, 2, "userd_errors_total", "reason", string(c.reason))
		}
	}
}

func TestEveryReasonOfTheProtoIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := intercept.NewReasons(registry); err != nil {
		t.Fatal(err)
	}
	for number, name := range userv1.ErrorReason_name {
		if got := len(series(t, registry, "userd_errors_total", "reason", name)); number != 0 && got != 1 {
			t.Errorf("%s: got %d series, want 1", name, got)
		}
	}
}
