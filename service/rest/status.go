package rest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

func httpCode(s *status.Status) int {
	return rpcstatus.HTTPStatus(user.Code(s.GetCode()), rpcstatus.Reason(s))
}

// refuse writes an HTTP error with a Status that has no reason.
func refuse(w http.ResponseWriter, httpStatus int, message string) {
	httperror.WriteStatus(w, httpStatus, &status.Status{Code: int32(rpcstatus.CodeOf(httpStatus)), Message: message})
}

// invalid writes an error with violations.
func (h *handler) invalid(w http.ResponseWriter, violations ...user.Violation) {
	h.refuseError(w, user.NewInvalidError(violations...))
}

// refuseError writes and counts the error of a request that does not reach an RPC.
func (h *handler) refuseError(w http.ResponseWriter, err *user.Error) {
	h.opts.Refused(err.Reason)
	s, _ := rpcstatus.From(err)
	httperror.WriteStatus(w, httpCode(s), s)
}

func statusOf(err *connect.Error) *status.Status {
	s := &status.Status{Code: int32(err.Code()), Message: err.Message()}
	for _, d := range err.Details() {
		s.Details = append(s.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + d.Type(), Value: d.Bytes()})
	}
	return s
}

// statusOfRPC returns the status for the client. An error that the service has not mapped, or an internal
// error without a reason, may contain internals: it is logged, and the client gets an incident id.
func (h *handler) statusOfRPC(ctx context.Context, err error) *status.Status {
	if failure := (*connect.Error)(nil); errors.As(err, &failure) {
		s := statusOf(failure)
		switch failure.Code() {
		case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
			if rpcstatus.Reason(s) != "" {
				return s
			}
		default:
			return s
		}
	}
	return h.internalStatus(ctx, err)
}

// internalStatus logs an unexpected error and returns its status.
func (h *handler) internalStatus(ctx context.Context, err error) *status.Status {
	incident := rand.Text()
	attrs := []slog.Attr{slog.String("incident", incident), slog.Any("error", err)}
	if stack := panics.Stack(err); stack != "" {
		attrs = append(attrs, slog.String("stack", stack))
	}
	h.opts.Logger.LogAttrs(ctx, slog.LevelError, "REST request failed", attrs...)
	return rpcstatus.Internal(incident)
}
