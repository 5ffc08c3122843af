package intercept

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// ToConnect returns the error that is sent to the client for err, which must not be nil. known
// is false for an unexpected error: the result is INTERNAL and err must be logged. A
// *connect.Error in err is kept, unless it has no code of its own.
func ToConnect(err error) (converted *connect.Error, expected bool) {
	if _, ok := user.AsError(err); !ok {
		if connectErr, ok := protocolError(err); ok {
			return connectErr, true
		}
	}
	s, expected := rpcstatus.From(err)
	return rpcstatus.ConnectError(s), expected
}

// NewTooLargeError returns the error for a message of more than limit bytes. Readers below
// the interceptors return it.
func NewTooLargeError(limit int64) *connect.Error {
	s, _ := rpcstatus.From(&user.Error{
		Code: user.ResourceExhausted, Reason: user.MessageTooLarge,
		Message:  "message too large: limit is " + strconv.FormatInt(limit, 10) + " bytes",
		Metadata: map[string]string{"limit": strconv.FormatInt(limit, 10)},
	})
	return rpcstatus.ConnectError(s)
}

// NewPlainTooLargeError is NewTooLargeError without details, for services other than user.v1.
func NewPlainTooLargeError(limit int64) error {
	return connect.NewError(connect.CodeResourceExhausted, NewTooLargeError(limit).Unwrap())
}

// NewTooComplexError returns the error for a message whose decoded size exceeds limit bytes.
func NewTooComplexError(limit int64) *connect.Error {
	s, _ := rpcstatus.From(&user.Error{
		Code: user.ResourceExhausted, Reason: user.MessageTooLarge,
		Message:  "message too complex: decoded size exceeds " + strconv.FormatInt(limit, 10) + " bytes",
		Metadata: map[string]string{"limit": strconv.FormatInt(limit, 10)},
	})
	return rpcstatus.ConnectError(s)
}

// NewBodyTimeoutError returns the error for a request body that was not received in time.
func NewBodyTimeoutError() *connect.Error {
	return connect.NewError(connect.CodeDeadlineExceeded, errors.New("request body timeout"))
}

// Errors is an interceptor that maps the errors and panics of handlers, and of the interceptors inside of it, to Connect errors.
type Errors struct {
	serverOnly

	log               *slog.Logger
	passConnectErrors bool // return a handler's *connect.Error unchanged
}

// NewErrors returns an interceptor that logs unexpected errors.
func NewErrors(log *slog.Logger) *Errors { return &Errors{log: log} }

// KeepConnectErrors returns a copy that passes a *connect.Error unchanged, for handlers of
// other services.
func (e *Errors) KeepConnectErrors() *Errors { return &Errors{log: e.log, passConnectErrors: true} }

// WrapUnary maps the errors and panics of unary calls.
func (e *Errors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		defer func() {
			if err = recovered(recover(), err); err != nil {
				res, err = nil, e.convert(ctx, req.Spec().Procedure, err)
			}
		}()
		return next(ctx, req)
	}
}

// WrapStreamingHandler maps the errors and panics of streams.
func (e *Errors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		defer func() { err = e.ended(ctx, conn, recovered(recover(), err)) }()
		return next(ctx, sendErrorConn{conn})
	}
}

// recovered returns the error of a call: its panic as an error, or err.
func recovered(value any, err error) error {
	switch value {
	case nil:
		return err
	case http.ErrAbortHandler: // aborts the response on purpose
		panic(value)
	}
	return panics.New(value)
}

// ended returns the error of a stream that is sent to the client.
func (e *Errors) ended(ctx context.Context, conn connect.StreamingHandlerConn, err error) error {
	if err == nil {
		return nil
	}
	return e.convert(ctx, conn.Spec().Procedure, err)
}

func (e *Errors) convert(ctx context.Context, procedure string, err error) error {
	if connectErr := (*connect.Error)(nil); e.passConnectErrors && errors.As(err, &connectErr) {
		return connectErr
	}
	converted, expected := ToConnect(err)
	// The cause of the cancellation may be the server's own, such as a shutdown. Reads fail with it, too.
	reason, ended := user.AsError(context.Cause(ctx))
	if _, domain := user.AsError(err); expected && ended && !domain {
		converted, _ = ToConnect(reason)
	}
	if expected {
		return converted
	}
	attrs := []slog.Attr{
		slog.String("procedure", procedure), slog.Any("error", err),
	}
	if stack := panics.Stack(err); stack != "" {
		attrs = append(attrs, slog.String("stack", stack))
	} else if ctxErr := ctx.Err(); ctxErr != nil {
		// A driver may return its own error for an interrupted statement. The call was
		// canceled or timed out either way.
		e.log.LogAttrs(ctx, slog.LevelWarn, "error after call ended", attrs...)
		converted, _ = ToConnect(ctxErr)
		if ended {
			converted, _ = ToConnect(reason)
		}
		return converted
	}
	incident := rand.Text()
	attrs = append(attrs, slog.String("incident", incident))
	e.log.LogAttrs(ctx, slog.LevelError, "unexpected error", attrs...)
	return rpcstatus.ConnectError(rpcstatus.Internal(incident))
}

// protocolError returns the *connect.Error in err. An error with code UNKNOWN is not kept:
// its text may contain internals.
func protocolError(err error) (*connect.Error, bool) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return nil, false
	}
	switch {
	case connect.IsNotModifiedError(e):
		return e, true
	case e.Code() == connect.CodeUnknown:
		return nil, false
	case e.Code() == connect.CodeResourceExhausted && len(e.Details()) == 0 && isReadLimit(e):
		return withDetailsOf(e, &user.Error{
			Code: user.ResourceExhausted, Reason: user.MessageTooLarge, Message: e.Message(),
		}), true
	}
	return truncated(e), true
}

// maxProtocolMessage is the maximum length of an error message of package connect, which
// may quote a request header.
const maxProtocolMessage = 512

func truncated(e *connect.Error) *connect.Error {
	if len(e.Message()) <= maxProtocolMessage {
		return e
	}
	out := connect.NewError(e.Code(), errors.New(rpcstatus.Truncate(e.Message(), maxProtocolMessage)))
	for _, detail := range e.Details() {
		out.AddDetail(detail)
	}
	maps.Copy(out.Meta(), e.Meta())
	return out
}

// isReadLimit reports whether connect rejected a message for its size. Only the text of the
// error shows that.
func isReadLimit(e *connect.Error) bool {
	return strings.Contains(e.Message(), "larger than configured max")
}

func withDetailsOf(e *connect.Error, like *user.Error) *connect.Error {
	s, _ := rpcstatus.From(like)
	converted := rpcstatus.ConnectError(s)
	for key, values := range e.Meta() {
		converted.Meta()[key] = values
	}
	return converted
}
