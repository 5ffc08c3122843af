package rpcstatus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

func TestFromKeepsDomainError(t *testing.T) {
	err := fmt.Errorf("apply: %w", &user.Error{
		Code: user.InvalidArgument, Reason: user.InvalidField, Message: "invalid request",
		Metadata:   map[string]string{"k": "v"},
		Violations: []user.Violation{{Field: "user.tags[2]", Message: "too long", Rule: "string.max_len"}},
		RetryAfter: 3 * time.Second,
	})
	s, known := rpcstatus.From(err)
	if !known {
		t.Error("From() known = false for a domain error, want true")
	}
	if s.GetCode() != 3 || s.GetMessage() != "invalid request: user.tags[2]: too long" {
		t.Errorf("From() = code %d, message %q", s.GetCode(), s.GetMessage())
	}
	info := detail[*errdetails.ErrorInfo](t, s)
	if info.GetDomain() != "user.v1" || info.GetReason() != "INVALID_FIELD" || info.GetMetadata()["k"] != "v" {
		t.Errorf("ErrorInfo = %v", info)
	}
	v := detail[*errdetails.BadRequest](t, s).GetFieldViolations()
	if len(v) != 1 || v[0].GetField() != "user.tags[2]" || v[0].GetDescription() != "too long" || v[0].GetReason() != "string.max_len" {
		t.Errorf("violations = %v", v)
	}
	if d := detail[*errdetails.RetryInfo](t, s).GetRetryDelay().AsDuration(); d != 3*time.Second {
		t.Errorf("retry delay = %v", d)
	}
}

func TestFromContextError(t *testing.T) {
	for err, code := range map[error]int32{context.Canceled: 1, context.DeadlineExceeded: 4} {
		s, known := rpcstatus.From(fmt.Errorf("wait: %w", err))
		if !known || s.GetCode() != code || len(s.GetDetails()) != 0 {
			t.Errorf("From(%v) = %v, %v", err, s, known)
		}
	}
}

func TestFromHidesUnexpectedError(t *testing.T) {
	s, known := rpcstatus.From(errors.New("SELECT secret FROM /var/db"))
	if known || s.GetCode() != 13 || strings.Contains(s.String(), "secret") {
		t.Errorf("From() = %v, %v", s, known)
	}
	if reason := detail[*errdetails.ErrorInfo](t, s).GetReason(); reason != "INTERNAL" {
		t.Errorf("reason = %q", reason)
	}
	info := detail[*errdetails.ErrorInfo](t, rpcstatus.Internal("abc"))
	if info.GetMetadata()["incident"] != "abc" {
		t.Errorf("metadata = %v", info.GetMetadata())
	}
}

func TestInvalidUTF8KeepsCode(t *testing.T) {
	s, known := rpcstatus.From(user.NewFieldErrorf("\xff", "bad"))
	if !known || s.GetCode() != 3 {
		t.Errorf("From() = %v, %v", s, known)
	}
	if _, err := proto.Marshal(s); err != nil {
		t.Errorf("proto.Marshal(status) error = %v", err)
	}
}

func detail[T proto.Message](t *testing.T, s *status.Status) T {
	t.Helper()
	for _, packed := range s.GetDetails() {
		if m, err := packed.UnmarshalNew(); err == nil {
			if d, ok := m.(T); ok {
				return d
			}
		}
	}
	t.Fatalf("detail missing in %v", s)
	return *new(T)
}
