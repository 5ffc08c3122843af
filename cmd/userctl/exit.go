package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
)

// Exit statuses, documented in the description of the program.
const (
	statusOK          = 0
	statusFailed      = 1
	statusUsage       = 2
	statusNotFound    = 3
	statusConflict    = 4
	statusForbidden   = 5
	statusUnavailable = 6
	statusInterrupted = 130 // 128 + SIGINT
)

// usageError is an error in the arguments that the parser does not find.
type usageError struct{ text string }

// Error implements error.
func (e usageError) Error() string { return e.text }

func newUsageError(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// notFoundError is a failed lookup by name.
type notFoundError struct{ text string }

// Error implements error.
func (e notFoundError) Error() string { return e.text }

// newNotFoundError returns the error of a lookup of a user.
func newNotFoundError(field, name string) error {
	return notFoundError{fmt.Sprintf("no user has the %s %q", field, name)}
}

// exitStatus returns the exit status for the error of a command.
func exitStatus(err error) int {
	var usage usageError
	var missing notFoundError
	var rpc *client.Error
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &usage):
		return statusUsage
	case errors.As(err, &missing):
		return statusNotFound
	case errors.As(err, &rpc):
		return codeStatus(rpc.Code)
	case errors.Is(err, context.Canceled):
		return statusInterrupted
	default:
		return statusFailed
	}
}

func codeStatus(code connect.Code) int {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return statusUsage
	case connect.CodeNotFound:
		return statusNotFound
	case connect.CodeAlreadyExists, connect.CodeFailedPrecondition, connect.CodeAborted:
		return statusConflict
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return statusForbidden
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return statusUnavailable
	case connect.CodeCanceled:
		return statusInterrupted
	default:
		return statusFailed
	}
}

// printError prints an error and a hint. The message of the service has the field violations.
func printError(w io.Writer, err error) {
	var rpc *client.Error
	switch {
	case err == nil:
		return
	case !errors.As(err, &rpc):
		_, _ = fmt.Fprintf(w, "userctl: %s\n", printable(err.Error()))
		return
	case rpc.Code == connect.CodeCanceled:
		_, _ = fmt.Fprintln(w, "userctl: interrupted")
		return
	}
	_, _ = fmt.Fprintf(w, "userctl: %s\n", printable(rpc.Message))
	if text := hint(rpc); text != "" {
		_, _ = fmt.Fprintf(w, "hint: %s\n", text)
	}
}

// hint returns what the user can do about an error, or "".
func hint(err *client.Error) string {
	switch {
	case errors.Is(err, client.ErrUserNotFound):
		return "find users with userctl list --search TEXT"
	case errors.Is(err, client.ErrUsernameTaken) || errors.Is(err, client.ErrEmailTaken):
		if err.Metadata["holder_deleted"] == "true" {
			return "the other user is deleted; undelete it, or free its names with userctl purge"
		}
		return "choose another one, or find the other user with userctl list --search TEXT"
	case errors.Is(err, client.ErrUserDeleted):
		return "restore the user with userctl undelete"
	case errors.Is(err, client.ErrUserNotDeleted):
		return "only deleted users can be undeleted or purged; see userctl delete"
	case errors.Is(err, client.ErrETagMismatch):
		return "the user has been changed; repeat userctl get, and the command with the new etag"
	case errors.Is(err, client.ErrPositionOutOfRange):
		return "rows after this position are no longer retained, or the store was restored; start without the position"
	}
	switch err.Code {
	case connect.CodeUnauthenticated:
		return "pass a token with --token-file or USERCTL_TOKEN, or a certificate with --cert and --key"
	case connect.CodePermissionDenied:
		return "ask an operator for the permission, or use other credentials"
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return "check --server or USERCTL_SERVER, and the server with userctl health"
	default:
		return ""
	}
}
