package rest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

func httpCode(s *status.Status) int {
	return rpcstatus.HTTPStatus(user.Code(s.GetCode()), reason(s))
}

// refuse writes an HTTP error with a Status that has no reason.
func refuse(w http.ResponseWriter, httpStatus int, message string) {
	writeStatus(w, httpStatus, &status.Status{Code: int32(rpcstatus.CodeOf(httpStatus)), Message: message})
}

// invalid writes an error with violations.
func (h *handler) invalid(w http.ResponseWriter, violations ...user.Violation) {
	h.refuseError(w, user.NewInvalidError(violations...))
}

// refuseError writes and counts the error of a request that does not reach an RPC.
func (h *handler) refuseError(w http.ResponseWriter, err *user.Error) {
	h.opts.Refused(err.Reason)
	WriteError(w, err)
}

// WriteError writes the response for a domain error.
func WriteError(w http.ResponseWriter, err *user.Error) {
	s, _ := rpcstatus.From(err)
	writeStatus(w, httpCode(s), s)
}

func writeStatus(w http.ResponseWriter, httpStatus int, s *status.Status) {
	body := append(marshalStatus(s), '\n')
	header := w.Header()
	header.Set("Content-Type", typeJSON)
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	if retry := detail[*errdetails.RetryInfo](s).GetRetryDelay(); retry != nil {
		seconds := int64(math.Ceil(retry.AsDuration().Seconds()))
		header.Set("Retry-After", strconv.FormatInt(max(seconds, 0), 10))
	}
	w.WriteHeader(httpStatus)
	_, _ = w.Write(body) //nolint:gosec,nolintlint // JSON, not HTML; the client may have disconnected
}

// marshalStatus encodes a Status. If a detail has an unknown type, all details are omitted.
func marshalStatus(s *status.Status) []byte {
	body, err := protojson.Marshal(s)
	if err != nil {
		body, _ = protojson.Marshal(&status.Status{Code: s.GetCode(), Message: s.GetMessage()})
	}
	return body
}

func detail[T proto.Message](s *status.Status) T {
	var none T
	for _, packed := range s.GetDetails() {
		if message, err := packed.UnmarshalNew(); err == nil {
			if found, ok := message.(T); ok {
				return found
			}
		}
	}
	return none
}

func reason(s *status.Status) user.Reason {
	return user.Reason(detail[*errdetails.ErrorInfo](s).GetReason())
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
			if reason(s) != "" {
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
