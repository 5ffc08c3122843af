package rpcstatus_test

import (
	"testing"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

func TestHTTPStatus(t *testing.T) {
	for _, c := range []struct {
		code   user.Code
		reason user.Reason
		want   int
	}{
		{0, "", 200}, {user.Canceled, "", 499}, {2, "", 500}, {user.InvalidArgument, user.InvalidField, 400},
		{user.DeadlineExceeded, "", 504}, {user.NotFound, "", 404}, {user.AlreadyExists, "", 409}, {user.PermissionDenied, "", 403},
		{user.ResourceExhausted, user.RateLimited, 429}, {user.ResourceExhausted, user.MessageTooLarge, 413},
		{user.FailedPrecondition, "", 400}, {user.Aborted, "", 409}, {user.OutOfRange, "", 400}, {12, "", 501},
		{user.Internal, "", 500}, {user.Unavailable, "", 503}, {15, "", 500}, {user.Unauthenticated, "", 401}, {99, "", 500},
	} {
		if got := rpcstatus.HTTPStatus(c.code, c.reason); got != c.want {
			t.Errorf("HTTPStatus(%d, %s) = %d, want %d", c.code, c.reason, got, c.want)
		}
	}
}

// The code of an error's HTTP status has that HTTP status, too.
func TestCodeOf(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 409, 429, 500, 501, 503, 504} {
		if got := rpcstatus.HTTPStatus(rpcstatus.CodeOf(status), ""); got != status {
			t.Errorf("HTTPStatus(CodeOf(%d)) = %d", status, got)
		}
	}
	for status, want := range map[int]user.Code{200: 0, 204: 0, 304: 0, 412: user.FailedPrecondition, 413: user.ResourceExhausted, 415: user.InvalidArgument, 505: 12, 418: 2} {
		if got := rpcstatus.CodeOf(status); got != want {
			t.Errorf("CodeOf(%d) = %d, want %d", status, got, want)
		}
	}
}
