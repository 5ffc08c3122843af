package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// Values for errors.Is, one for each reason of the service. The comments of userv1.ErrorReason document the code and
// the metadata of each.
var (
	ErrInvalidField       error = reasonError(userv1.ErrorReason_INVALID_FIELD)
	ErrUserNotFound       error = reasonError(userv1.ErrorReason_USER_NOT_FOUND)
	ErrUsernameTaken      error = reasonError(userv1.ErrorReason_USERNAME_TAKEN)
	ErrEmailTaken         error = reasonError(userv1.ErrorReason_EMAIL_TAKEN)
	ErrUserDeleted        error = reasonError(userv1.ErrorReason_USER_DELETED)
	ErrUserNotDeleted     error = reasonError(userv1.ErrorReason_USER_NOT_DELETED)
	ErrETagMismatch       error = reasonError(userv1.ErrorReason_ETAG_MISMATCH)
	ErrRequestIDReused    error = reasonError(userv1.ErrorReason_REQUEST_ID_REUSED)
	ErrPositionOutOfRange error = reasonError(userv1.ErrorReason_POSITION_OUT_OF_RANGE)
	ErrPositionNotReached error = reasonError(userv1.ErrorReason_POSITION_NOT_REACHED)
	ErrCredentialsMissing error = reasonError(userv1.ErrorReason_CREDENTIALS_MISSING)
	ErrCredentialsInvalid error = reasonError(userv1.ErrorReason_CREDENTIALS_INVALID)
	ErrCredentialsExpired error = reasonError(userv1.ErrorReason_CREDENTIALS_EXPIRED)
	ErrPermissionMissing  error = reasonError(userv1.ErrorReason_PERMISSION_MISSING)
	ErrMessageTooLarge    error = reasonError(userv1.ErrorReason_MESSAGE_TOO_LARGE)
	ErrTooManyItems       error = reasonError(userv1.ErrorReason_TOO_MANY_ITEMS)
	ErrTooManyStreams     error = reasonError(userv1.ErrorReason_TOO_MANY_STREAMS)
	ErrTooManyFollows     error = reasonError(userv1.ErrorReason_TOO_MANY_FOLLOWS)
	ErrRateLimited        error = reasonError(userv1.ErrorReason_RATE_LIMITED)
	ErrServerDraining     error = reasonError(userv1.ErrorReason_SERVER_DRAINING)
	ErrStoreUnavailable   error = reasonError(userv1.ErrorReason_STORE_UNAVAILABLE)
	ErrOverloaded         error = reasonError(userv1.ErrorReason_OVERLOADED)
	ErrStoreFull          error = reasonError(userv1.ErrorReason_STORE_FULL)
	ErrStoreReadOnly      error = reasonError(userv1.ErrorReason_STORE_READ_ONLY)
	ErrInternal           error = reasonError(userv1.ErrorReason_INTERNAL)
	ErrHostNotAllowed     error = reasonError(userv1.ErrorReason_HOST_NOT_ALLOWED)
	ErrOriginNotAllowed   error = reasonError(userv1.ErrorReason_ORIGIN_NOT_ALLOWED)
	ErrStreamStalled      error = reasonError(userv1.ErrorReason_STREAM_STALLED)
)

var (
	// ErrNoNode is the cause of an Error with code unavailable if every node is draining or has an open circuit breaker.
	ErrNoNode = errors.New("no node is available")
	// ErrClosed is returned by calls of a closed client, session or mirror.
	ErrClosed = errors.New("client closed")
)

// reasonError is an error that is identified by its reason.
type reasonError userv1.ErrorReason

func (r reasonError) Error() string {
	return strings.ToLower(strings.ReplaceAll(userv1.ErrorReason(r).String(), "_", " "))
}

// FieldViolation is an invalid field of a request.
type FieldViolation struct {
	Field       string // path of the field, such as user.email
	Description string // what is expected
}

// Error is the error of a call, of a stream, or of an item of a batch.
type Error struct {
	Method     string             // RPC, such as GetUser
	Code       connect.Code       // canonical code
	Reason     userv1.ErrorReason // reason of the service; unspecified: the error is not from the service
	Message    string             // message in English
	Metadata   map[string]string  // metadata of the reason, see userv1.ErrorReason
	Violations []FieldViolation   // invalid fields
	RetryAfter time.Duration      // delay that the server asks for; 0: none
	Attempts   int                // attempts made; 0: the error of an item

	cause error
}

// Error returns the method, the code and the message.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: %s", e.Method, e.Code, e.Message)
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return text
}

// Unwrap returns the *connect.Error of the call.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is the value of the reason, or the error of the context that the code stands for.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == connect.CodeCanceled
	case context.DeadlineExceeded:
		return e.Code == connect.CodeDeadlineExceeded
	}
	reason, ok := target.(reasonError)
	return ok && e.Reason == userv1.ErrorReason(reason)
}

// newError converts an error of connect. The error of an item stays as it is.
func newError(method string, attempts int, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Method: method, Code: connect.CodeOf(err), Message: err.Error(), Attempts: attempts, cause: err}
	var rpc *connect.Error
	if !errors.As(err, &rpc) {
		return e
	}
	e.Message = rpc.Message()
	for _, detail := range rpc.Details() {
		value, err := detail.Value()
		if err != nil {
			continue // a detail of a newer server
		}
		switch value := value.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = userv1.ErrorReason(userv1.ErrorReason_value[value.GetReason()])
			e.Metadata = value.GetMetadata()
		case *errdetails.BadRequest:
			e.Violations = violations(value.GetFieldViolations())
		case *errdetails.RetryInfo:
			e.RetryAfter = value.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// newItemError converts the failure of an item. It returns nil for nil.
func newItemError(method string, failure *userv1.ItemFailure) error {
	if failure == nil {
		return nil
	}
	return &Error{
		Method: method, Code: connect.Code(failure.GetCode()), Reason: failure.GetReason(), Message: failure.GetMessage(),
		Metadata: failure.GetMetadata(), Violations: violations(failure.GetFieldViolations()),
	}
}

func violations(fields []*errdetails.BadRequest_FieldViolation) []FieldViolation {
	var all []FieldViolation
	for _, field := range fields {
		all = append(all, FieldViolation{Field: field.GetField(), Description: field.GetDescription()})
	}
	return all
}
