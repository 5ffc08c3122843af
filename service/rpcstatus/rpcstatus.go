// Package rpcstatus converts domain errors to google.rpc.Status.
//
// Errors of calls (package intercept) and of items in a response (package service) share it,
// so both look the same to clients. Texts of errors that are not a *user.Error are never sent.
// A status is at most MaxBytes long, regardless of the violations and client texts in it.
package rpcstatus

import (
	"context"
	"errors"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/yourorg/userservice/service/user"
)

// Domain is the domain of every google.rpc.ErrorInfo of the service.
const Domain = "user.v1"

// From returns the status for err, which must not be nil. known is false if err is neither a
// *user.Error nor a context error: the status is then Internal without an incident, and the
// caller must log err.
func From(err error) (s *status.Status, known bool) {
	if e, ok := user.AsError(err); ok {
		return fromDomain(e), true
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &status.Status{Code: int32(user.DeadlineExceeded), Message: "deadline exceeded"}, true
	case errors.Is(err, context.Canceled):
		return &status.Status{Code: int32(user.Canceled), Message: "call canceled"}, true
	}
	return Internal(""), false
}

// Internal returns the status of an unexpected failure. incident is the id of its log entry,
// or empty.
func Internal(incident string) *status.Status {
	return fromDomain(user.NewInternalError(incident))
}

// encode converts an error with its first n violations. limit bounds each text, in bytes.
func encode(e *user.Error, n, limit int) *status.Status {
	s := &status.Status{Code: int32(e.Code), Message: message(e, n, limit)}
	if e.Reason != "" {
		attach(s, &errdetails.ErrorInfo{
			Domain: Domain, Reason: string(e.Reason), Metadata: metadata(e, len(e.Violations)-n, limit),
		})
	}
	if n > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range e.Violations[:n] {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: Truncate(v.Field, limit), Description: Truncate(v.Message, limit), Reason: Truncate(v.Rule, limit),
			})
		}
		attach(s, bad)
	}
	if e.RetryAfter > 0 {
		attach(s, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return s
}

// metadata adds the number of omitted violations, if any.
func metadata(e *user.Error, omitted, limit int) map[string]string {
	if len(e.Metadata) == 0 && omitted == 0 {
		return nil
	}
	out := make(map[string]string, len(e.Metadata)+1)
	for key, value := range e.Metadata {
		out[key] = Truncate(value, limit)
	}
	if omitted > 0 {
		out[OmittedViolations] = strconv.Itoa(omitted)
	}
	return out
}

// attach adds a detail. It omits a detail that cannot be encoded.
func attach(s *status.Status, detail proto.Message) {
	if packed, err := anypb.New(detail); err == nil {
		s.Details = append(s.Details, packed)
	}
}

// ConnectError converts a status. It omits details that cannot be decoded.
func ConnectError(s *status.Status) *connect.Error {
	converted := connect.NewError(connect.Code(s.GetCode()), errors.New(s.GetMessage()))
	for _, packed := range s.GetDetails() {
		if detail, err := connect.NewErrorDetail(packed); err == nil {
			converted.AddDetail(detail)
		}
	}
	return converted
}
