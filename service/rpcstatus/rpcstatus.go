// Package rpcstatus holds the one table from errors of the domain to
// google.rpc.Status.
//
// It promises that an error looks the same to a caller wherever it comes up: as
// the end of a call (package intercept) or as the failure of one item within an
// answer (package service). It stands by itself because these two may not import
// each other, and the domain may not know the wire. It keeps every text that is
// not an *user.Error from callers.
package rpcstatus

import (
	"context"
	"errors"
	"strings"

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
	return fromDomain(user.ErrFault(incident))
}

func fromDomain(e *user.Error) *status.Status {
	s := &status.Status{Code: int32(e.Code), Message: text(e.Error())}
	if e.Reason != "" {
		attach(s, &errdetails.ErrorInfo{
			Domain: Domain, Reason: string(e.Reason), Metadata: e.Metadata,
		})
	}
	if len(e.Violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range e.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: text(v.Field), Description: text(v.Message), Reason: v.Rule,
			})
		}
		attach(s, bad)
	}
	if e.RetryAfter > 0 {
		attach(s, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return s
}

// text makes s fit for a message, which carries UTF-8 only: a caller may have put
// anything into a path that a violation repeats.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// attach adds a detail. One that cannot be encoded is left out: the code and the
// message are worth more than no answer.
func attach(s *status.Status, detail proto.Message) {
	if packed, err := anypb.New(detail); err == nil {
		s.Details = append(s.Details, packed)
	}
}
