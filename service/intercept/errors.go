package intercept

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// ToConnect returns what a caller may know of err, which must not be nil. known is
// false where err is an unexpected failure: the answer is then INTERNAL without an
// incident, and err belongs into the log.
//
// An error that is a *connect.Error already, as those of a message that cannot be
// read are, is kept.
func ToConnect(err error) (answer *connect.Error, known bool) {
	if _, ok := user.AsError(err); !ok {
		if kept, ok := protocolError(err); ok {
			return kept, true
		}
	}
	s, known := rpcstatus.From(err)
	return fromStatus(s), known
}

// NewTooLargeError is the answer to a message beyond the limit, in bytes. Readers below the
// handlers give it, since what cannot be read never reaches an interceptor.
func NewTooLargeError(limit int64) *connect.Error {
	s, _ := rpcstatus.From(&user.Error{
		Code: user.ResourceExhausted, Reason: user.MessageTooLarge,
		Message:  "a message is larger than " + strconv.FormatInt(limit, 10) + " bytes",
		Metadata: map[string]string{"limit": strconv.FormatInt(limit, 10)},
	})
	return fromStatus(s)
}

// NewPlainTooLargeError is NewTooLargeError without details, for services that do not use those of
// user.v1.
func NewPlainTooLargeError(limit int64) error {
	return connect.NewError(connect.CodeResourceExhausted, NewTooLargeError(limit).Unwrap())
}

// NewTooComplexError is the error for a message that takes more than the limit, in bytes, when it
// is decoded.
func NewTooComplexError(limit int64) *connect.Error {
	s, _ := rpcstatus.From(&user.Error{
		Code: user.ResourceExhausted, Reason: user.MessageTooLarge,
		Message:  "a message has too many elements: decoded it takes more than " + strconv.FormatInt(limit, 10) + " bytes",
		Metadata: map[string]string{"limit": strconv.FormatInt(limit, 10)},
	})
	return fromStatus(s)
}

// NewBodyTimeoutError is the answer to a message that did not come in its time.
func NewBodyTimeoutError() *connect.Error {
	return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the message did not come within its time"))
}

// Errors turns the errors of handlers into answers.
type Errors struct {
	serverOnly

	log  *slog.Logger
	keep bool // a *connect.Error of a handler passes unchanged
}

// NewErrors returns an interceptor that logs unexpected failures.
func NewErrors(log *slog.Logger) *Errors { return &Errors{log: log} }

// KeepConnectErrors returns an interceptor that passes a *connect.Error unchanged, for
// handlers that speak Connect's own errors.
func (e *Errors) KeepConnectErrors() *Errors { return &Errors{log: e.log, keep: true} }

// WrapUnary answers the errors of unary calls.
func (e *Errors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, e.answer(ctx, req.Spec(), err)
		}
		return res, nil
	}
}

// WrapStreamingHandler answers the errors of streams.
func (e *Errors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := next(ctx, goneConn{conn}); err != nil {
			return e.answer(ctx, conn.Spec(), err)
		}
		return nil
	}
}

func (e *Errors) answer(ctx context.Context, spec connect.Spec, err error) error {
	if own := (*connect.Error)(nil); e.keep && errors.As(err, &own) {
		return own
	}
	answer, known := ToConnect(err)
	if known && answer.Code() != connect.CodeCanceled {
		return answer
	}
	// The server may have had a reason of its own to end the call, when it stops.
	reason, ended := user.AsError(context.Cause(ctx))
	if known && ended {
		answer, _ = ToConnect(reason)
	}
	if known {
		return answer
	}
	attrs := []slog.Attr{
		slog.String("procedure", spec.Procedure), slog.Any("error", err),
	}
	if p := (*panicError)(nil); errors.As(err, &p) {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	} else if gone := ctx.Err(); gone != nil {
		// Drivers give an interrupted statement errors of their own. The caller has
		// gone or run out of time either way.
		e.log.LogAttrs(ctx, slog.LevelWarn, "failure of a call that had ended", attrs...)
		answer, _ = ToConnect(gone)
		if ended {
			answer, _ = ToConnect(reason)
		}
		return answer
	}
	incident := rand.Text()
	attrs = append(attrs, slog.String("incident", incident))
	e.log.LogAttrs(ctx, slog.LevelError, "unexpected failure", attrs...)
	return fromStatus(rpcstatus.Internal(incident))
}

// protocolError returns the *connect.Error within err. Those without a code of their
// own are not kept: their texts come from anywhere.
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

// longestProtocolMessage bounds the message of an error of package connect, which may
// repeat a header of the caller's.
const longestProtocolMessage = 512

// truncated returns the error with a message that is not too long.
func truncated(e *connect.Error) *connect.Error {
	if len(e.Message()) <= longestProtocolMessage {
		return e
	}
	out := connect.NewError(e.Code(), errors.New(rpcstatus.Truncate(e.Message(), longestProtocolMessage)))
	for _, detail := range e.Details() {
		out.AddDetail(detail)
	}
	maps.Copy(out.Meta(), e.Meta())
	return out
}

// isReadLimit reports whether connect itself found a message too large. It says so
// in its text alone.
func isReadLimit(e *connect.Error) bool {
	return strings.Contains(e.Message(), "larger than configured max")
}

func withDetailsOf(e *connect.Error, like *user.Error) *connect.Error {
	s, _ := rpcstatus.From(like)
	answer := fromStatus(s)
	for key, values := range e.Meta() {
		answer.Meta()[key] = values
	}
	return answer
}

func fromStatus(s *status.Status) *connect.Error {
	answer := connect.NewError(connect.Code(s.GetCode()), errors.New(s.GetMessage()))
	for _, packed := range s.GetDetails() {
		if detail, err := connect.NewErrorDetail(packed); err == nil {
			answer.AddDetail(detail)
		}
	}
	return answer
}
