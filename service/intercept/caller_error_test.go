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

// brokenWire is a stream whose peer has gone, as package connect tells of it.
type brokenWire struct{ connect.StreamingHandlerConn }

func (brokenWire) Send(any) error {
	return connect.NewError(connect.CodeUnknown, errors.New("write envelope: connection reset by peer"))
}

func (brokenWire) Spec() connect.Spec { return connect.Spec{} }

// A response that cannot be written is nobody's fault but its reader's, even before the
// context of the call has ended.
func TestResponseThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	errs := intercept.NewErrors(slog.New(slog.NewTextHandler(&log, nil)))
	err := errs.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
		return conn.Send(nil)
	})(t.Context(), brokenWire{})
	if connect.CodeOf(err) != connect.CodeCanceled || log.Len() > 0 || strings.Contains(err.Error(), "peer") {
		t.Errorf("WrapStreamingHandler = %v, want canceled, and nothing logged: %s", err, log.String())
	}
}
