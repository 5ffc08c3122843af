package intercept_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/intercept"
)

// brokenWire is a stream whose client has disconnected, as package connect reports it.
type brokenWire struct{ connect.StreamingHandlerConn }

func (brokenWire) Send(any) error {
	return connect.NewError(connect.CodeUnknown, errors.New("write envelope: connection reset by peer"))
}

func (brokenWire) Spec() connect.Spec { return connect.Spec{} }

// A failed write is CANCELED even before the context is canceled.
func TestFailedWriteIsCanceled(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	errs := intercept.NewErrors(slog.New(slog.NewTextHandler(&log, nil)))
	err := errs.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		return conn.Send(nil)
	})(t.Context(), brokenWire{})
	if connect.CodeOf(err) != connect.CodeCanceled || log.Len() > 0 || strings.Contains(err.Error(), "peer") {
		t.Errorf("WrapStreamingHandler = %v, want CANCELED and an empty log: %s", err, log.String())
	}
}
