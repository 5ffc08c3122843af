package intercept

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/reqinfo"
)

// callerError marks an error as caused by the caller, whatever its code. The gRPC protocol
// requires INTERNAL for a compressed message without an encoding.
type callerError struct{ message string }

func (e *callerError) Error() string { return e.message }

// NewCallerError returns a protocol error that logs and metrics do not report as a server
// failure.
func NewCallerError(code connect.Code, message string) *connect.Error {
	return connect.NewError(code, &callerError{message})
}

// recordedCode returns the code of an error for logs and metrics.
func recordedCode(err error) connect.Code {
	if errors.As(err, new(*callerError)) && connect.CodeOf(err) == connect.CodeInternal {
		return connect.CodeInvalidArgument
	}
	return connect.CodeOf(err)
}

// mapSendError returns the error of a failed Send. A failed write is CANCELED, because the client has
// disconnected and the context may be canceled only later. A stalled write is kept, because
// the client can still receive the status.
func mapSendError(err error) error {
	var stalled interface{ Stalled() bool }
	if errors.As(err, &stalled) {
		return err
	}
	failure := (*connect.Error)(nil)
	if errors.As(err, &failure) && failure.Code() == connect.CodeUnknown {
		return connect.NewError(connect.CodeCanceled, fmt.Errorf("response write failed: %w", context.Canceled))
	}
	return err
}

type sendErrorConn struct{ connect.StreamingHandlerConn }

// Send sends a message.
func (c sendErrorConn) Send(message any) error {
	if err := c.StreamingHandlerConn.Send(message); err != nil {
		return mapSendError(err)
	}
	return nil
}

// Share implements reqinfo.SharedLayer.
func (c sendErrorConn) Share(any, *reqinfo.SharedSends) connect.StreamingHandlerConn {
	return c.StreamingHandlerConn
}
