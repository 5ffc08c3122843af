package intercept

import (
	"context"
	"errors"

	"connectrpc.com/connect"
)

// callerError marks an error as the caller's, whatever its code: gRPC asks for INTERNAL
// where a message is compressed and the request does not say how.
type callerError struct{ message string }

func (e *callerError) Error() string { return e.message }

// NewCallerError returns an error of the protocol that its caller has made. Logs and
// metrics never show it as a failure of the server.
func NewCallerError(code connect.Code, message string) *connect.Error {
	return connect.NewError(code, &callerError{message})
}

// recordedCode returns the code under which logs and metrics have an error.
func recordedCode(err error) connect.Code {
	if errors.As(err, new(*callerError)) && connect.CodeOf(err) == connect.CodeInternal {
		return connect.CodeInvalidArgument
	}
	return connect.CodeOf(err)
}

// gone returns the error of a Send for its caller to see: what cannot be written has
// lost its reader, whose context may end a moment later. A reader that is only stalled can
// still be told why its stream ends.
func gone(err error) error {
	var stalled interface{ Stalled() bool }
	if errors.As(err, &stalled) {
		return err
	}
	failure := (*connect.Error)(nil)
	if errors.As(err, &failure) && failure.Code() == connect.CodeUnknown {
		return connect.NewError(connect.CodeCanceled, errors.Join(errors.New("the response cannot be written"), context.Canceled))
	}
	return err
}

// goneConn is a stream whose writes fail for their reader's sake.
type goneConn struct{ connect.StreamingHandlerConn }

// Send sends a message.
func (c goneConn) Send(message any) error {
	if err := c.StreamingHandlerConn.Send(message); err != nil {
		return gone(err)
	}
	return nil
}
