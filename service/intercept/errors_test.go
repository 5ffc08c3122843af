package intercept_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

func TestToConnect(t *testing.T) {
	limit := connect.NewError(connect.CodeResourceExhausted, errors.New("message size 9 is larger than configured max 8"))
	for name, test := range map[string]struct {
		err      error
		code     connect.Code
		reason   string
		expected bool
	}{
		"domain":               {fmt.Errorf("get: %w", user.NewNotFoundError(7)), connect.CodeNotFound, "USER_NOT_FOUND", true},
		"deadline":             {context.DeadlineExceeded, connect.CodeDeadlineExceeded, "", true},
		"canceled":             {fmt.Errorf("wait: %w", context.Canceled), connect.CodeCanceled, "", true},
		"kept":                 {connect.NewError(connect.CodeUnimplemented, errors.New("no")), connect.CodeUnimplemented, "", true},
		"read limit":           {fmt.Errorf("receive: %w", limit), connect.CodeResourceExhausted, "MESSAGE_TOO_LARGE", true},
		"our limit":            {intercept.NewTooLargeError(8), connect.CodeResourceExhausted, "MESSAGE_TOO_LARGE", true},
		"without code":         {connect.NewError(connect.CodeUnknown, errors.New("inside")), connect.CodeInternal, "INTERNAL", false},
		"unknown":              {io.ErrUnexpectedEOF, connect.CodeInternal, "INTERNAL", false},
		"not modified":         {connect.NewNotModifiedError(nil), connect.CodeUnknown, "", true},
		"domain, as cause of":  {connect.NewError(connect.CodeInternal, user.NewStoreFullError()), connect.CodeResourceExhausted, "STORE_FULL", true},
		"retry is not lost on": {user.NewOverloadedError(), connect.CodeUnavailable, "OVERLOADED", true},
	} {
		t.Run(name, func(t *testing.T) {
			got, expected := intercept.ToConnect(test.err)
			if got.Code() != test.code || expected != test.expected {
				t.Errorf("ToConnect() = %v, %v", got, expected)
			}
			if reason := reasonOf(t, got); reason != test.reason {
				t.Errorf("reason = %q", reason)
			}
		})
	}
}

func reasonOf(t *testing.T, err *connect.Error) string {
	t.Helper()
	for _, d := range err.Details() {
		value, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if info, ok := value.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// A driver error after the call was canceled is not an unexpected error.
func TestErrorAfterCancellation(t *testing.T) {
	var log strings.Builder
	e := intercept.NewErrors(slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := e.WrapStreamingHandler(func(context.Context, connect.StreamingHandlerConn) error {
		return errors.New("interrupted (9)")
	})(ctx, newConn(connect.StreamTypeServer, nil))
	if connect.CodeOf(err) != connect.CodeCanceled || strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error = %v, want CANCELED", err)
	}
	if !strings.Contains(log.String(), "interrupted") || strings.Contains(log.String(), "incident") {
		t.Errorf("log = %s", log.String())
	}
}

func TestLongProtocolErrorIsTruncated(t *testing.T) {
	t.Parallel()
	long := connect.NewError(connect.CodeInvalidArgument, errors.New(strings.Repeat("x", 100_000)))
	long.Meta().Set("K", "v")
	got, expected := intercept.ToConnect(long)
	if !expected || got.Code() != connect.CodeInvalidArgument || len(got.Message()) > 512 || got.Meta().Get("K") != "v" {
		t.Errorf("ToConnect = %v with %d bytes and %v, expected %v", got.Code(), len(got.Message()), got.Meta(), expected)
	}
}
