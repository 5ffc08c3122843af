// Package rpcstatus holds the one table from errors of the domain to
// google.rpc.Status.
//
// It promises that an error looks the same to a caller wherever it comes up: as
// the end of a call (package intercept) or as the failure of one item within an
// answer (package service). It stands by itself because these two may not import
// each other, and the domain may not know the wire. It keeps every text that is
// not an *user.Error from callers. A status stays within MaxBytes however many
// violations an error has and whatever a caller's own text in it looks like.
package rpcstatus

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/yourorg/userservice/service/user"
)

// Domain is the domain of every google.rpc.ErrorInfo that the service gives.
const Domain = "user.v1"

// From returns what a caller may know of err, which must not be nil. known is
// false where err is neither an *user.Error nor the end of a context: the status
// is then that of Internal without an incident, and err belongs into the log.
func From(err error) (s *status.Status, known bool) {
	if e, ok := user.AsError(err); ok {
		return fromDomain(e), true
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &status.Status{Code: int32(user.DeadlineExceeded), Message: "the deadline has passed"}, true
	case errors.Is(err, context.Canceled):
		return &status.Status{Code: int32(user.Canceled), Message: "the call was canceled"}, true
	}
	return Internal(""), false
}

// Internal returns the status of an unexpected failure. incident is the id under
// which the log has it; empty: there is none.
func Internal(incident string) *status.Status {
	return fromDomain(user.NewInternalError(incident))
}

// encode converts an error with its first n violations, each text of at most limit
// bytes.
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

// metadata returns the metadata of an error, with the number of omitted violations if
// there are any.
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

// attach adds a detail. One that cannot be encoded is left out: the code and the
// message are worth more than no answer.
func attach(s *status.Status, detail proto.Message) {
	if packed, err := anypb.New(detail); err == nil {
		s.Details = append(s.Details, packed)
	}
}
