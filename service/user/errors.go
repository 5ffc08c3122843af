package user

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Code is a canonical error code; the numbers are those of google.rpc.Code.
type Code uint32

// Codes used by the service.
const (
	Canceled           Code = 1
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Internal           Code = 13
	Unavailable        Code = 14
	Unauthenticated    Code = 16
)

// Reason is the machine-readable reason of an error: a value of ErrorReason in
// error_reason.proto, which documents its metadata.
type Reason string

// Reasons used by the service.
const (
	InvalidField       Reason = "INVALID_FIELD"
	UserNotFound       Reason = "USER_NOT_FOUND"
	UsernameTaken      Reason = "USERNAME_TAKEN"
	EmailTaken         Reason = "EMAIL_TAKEN"
	UserDeleted        Reason = "USER_DELETED"
	UserNotDeleted     Reason = "USER_NOT_DELETED"
	EtagMismatch       Reason = "ETAG_MISMATCH"
	RequestIDReused    Reason = "REQUEST_ID_REUSED"
	PositionOutOfRange Reason = "POSITION_OUT_OF_RANGE"
	PositionNotReached Reason = "POSITION_NOT_REACHED"
	CredentialsMissing Reason = "CREDENTIALS_MISSING"
	CredentialsInvalid Reason = "CREDENTIALS_INVALID"
	CredentialsExpired Reason = "CREDENTIALS_EXPIRED"
	PermissionMissing  Reason = "PERMISSION_MISSING"
	MessageTooLarge    Reason = "MESSAGE_TOO_LARGE"
	TooManyItems       Reason = "TOO_MANY_ITEMS"
	TooManyStreams     Reason = "TOO_MANY_STREAMS"
	TooManyFollows     Reason = "TOO_MANY_FOLLOWS"
	RateLimited        Reason = "RATE_LIMITED"
	ServerDraining     Reason = "SERVER_DRAINING"
	StreamStalled      Reason = "STREAM_STALLED"
	StoreUnavailable   Reason = "STORE_UNAVAILABLE"
	Overloaded         Reason = "OVERLOADED"
	StoreFull          Reason = "STORE_FULL"
	StoreReadOnly      Reason = "STORE_READ_ONLY"
	InternalError      Reason = "INTERNAL"
	HostNotAllowed     Reason = "HOST_NOT_ALLOWED"
	OriginNotAllowed   Reason = "ORIGIN_NOT_ALLOWED"
)

// Violation is one invalid field of a request.
type Violation struct {
	Field   string // path in the request, such as user.tags[2]
	Message string // what was expected
	Rule    string // name of the rule, such as string.min_len; may be empty
}

// Error is an error that is safe to return to a client: its texts expose no internals.
type Error struct {
	Code       Code
	Reason     Reason
	Message    string
	Metadata   map[string]string
	Violations []Violation
	RetryAfter time.Duration // when a client may retry; 0: unspecified
	Position   int64         // position of the log row behind the reported state; 0: none. Not sent to clients.
}

// Error returns the message followed by the violations.
func (e *Error) Error() string {
	if len(e.Violations) == 0 {
		return e.Message
	}
	var b strings.Builder
	b.WriteString(e.Message)
	for i, v := range e.Violations {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		if v.Field != "" {
			b.WriteString(v.Field + ": ")
		}
		b.WriteString(v.Message)
	}
	return b.String()
}

// AsError returns the first *Error in the chain of err.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// HasReason reports whether err is an *Error with the reason.
func HasReason(err error, reason Reason) bool {
	e, ok := AsError(err)
	return ok && e.Reason == reason
}

// NewInvalidError returns an INVALID_FIELD error with one violation per invalid field.
func NewInvalidError(violations ...Violation) *Error {
	return &Error{Code: InvalidArgument, Reason: InvalidField, Message: "invalid request", Violations: violations}
}

// NewFieldErrorf returns an INVALID_FIELD error for one field. The text states what was
// expected.
func NewFieldErrorf(field, format string, args ...any) *Error {
	return NewInvalidError(Violation{Field: field, Message: fmt.Sprintf(format, args...)})
}

// WithFieldPrefix returns a copy of the error with prefix, the path of an item in its
// request, in front of each field path.
func (e *Error) WithFieldPrefix(prefix string) *Error {
	c := *e
	c.Violations = make([]Violation, len(e.Violations))
	for i, v := range e.Violations {
		v.Field = strings.TrimSuffix(prefix+"."+v.Field, ".")
		c.Violations[i] = v
	}
	return &c
}

// NewNotFoundError returns the error for a user that does not exist.
func NewNotFoundError(id int64) *Error {
	return &Error{Code: NotFound, Reason: UserNotFound, Message: "user not found", Metadata: userMetadata(id)}
}

// NewDeletedError returns the error for a change to a user that was deleted at position.
func NewDeletedError(id, position int64) *Error {
	return &Error{
		Code: FailedPrecondition, Reason: UserDeleted,
		Message: "user is deleted", Metadata: userMetadata(id), Position: position,
	}
}

func newNotDeletedError(id int64) *Error {
	return &Error{
		Code: FailedPrecondition, Reason: UserNotDeleted,
		Message: "user is not deleted", Metadata: userMetadata(id),
	}
}

// NewTakenError returns the error for a username (UsernameTaken) or an e-mail address
// (EmailTaken) held by another user. Only the metadata states whether the holder is
// deleted, because not every caller is authorized to see that.
func NewTakenError(reason Reason, holderDeleted bool) *Error {
	field := "username"
	if reason == EmailTaken {
		field = "e-mail address"
	}
	return &Error{
		Code: AlreadyExists, Reason: reason, Message: field + " already taken",
		Metadata: map[string]string{"holder_deleted": strconv.FormatBool(holderDeleted)},
	}
}

// NewRequestIDReusedError returns the error for a request id used with another request.
func NewRequestIDReusedError() *Error {
	return &Error{
		Code: AlreadyExists, Reason: RequestIDReused,
		Message: "request id already used for a different request",
	}
}

// NewPositionOutOfRangeError returns the error for a position at which the log cannot be
// read. first and last are the bounds of the log.
func NewPositionOutOfRangeError(epoch string, first, last int64, message string) *Error {
	return &Error{
		Code: OutOfRange, Reason: PositionOutOfRange, Message: message,
		Metadata: map[string]string{
			"epoch":          epoch,
			"first_position": strconv.FormatInt(first, 10),
			"last_position":  strconv.FormatInt(last, 10),
		},
	}
}

// NewRowsPrunedError returns the error for a position after which rows were pruned.
func NewRowsPrunedError(epoch string, first, last int64) *Error {
	return NewPositionOutOfRangeError(epoch, first, last, "rows after the position are no longer retained")
}

// NewPositionNotReachedError returns the error for a read that timed out before the log
// reached the requested position.
func NewPositionNotReachedError() *Error {
	return &Error{
		Code: Unavailable, Reason: PositionNotReached, RetryAfter: time.Second,
		Message: "timed out waiting for the requested position",
	}
}

// NewDrainingError returns the error that ends a stream when the server shuts down.
// position is the last position delivered on the stream.
func NewDrainingError(epoch string, position int64) *Error {
	e := &Error{
		Code: Unavailable, Reason: ServerDraining, RetryAfter: time.Second,
		Message: "server shutting down, resume on another server",
	}
	return e.WithPosition(epoch, position)
}

// WithPosition returns a copy with the position after which the stream can be resumed.
func (e *Error) WithPosition(epoch string, position int64) *Error {
	with := *e
	with.Metadata = map[string]string{"epoch": epoch, "position": strconv.FormatInt(position, 10)}
	return &with
}

// NewStalledError returns the error that ends a stream whose client read nothing within
// the stall timeout. position is the last position sent on the stream.
func NewStalledError(epoch string, position int64) *Error {
	e := NewDrainingError(epoch, position)
	e.Reason = StreamStalled
	e.Message = "stream stalled: the client read nothing within the timeout, resume after the position"
	return e
}

// NewConnectionAgeError returns the error of calls and streams whose connection is closed after its maximum age. That of a
// stream that can be resumed has a position.
func NewConnectionAgeError() *Error {
	return &Error{
		Code: Unavailable, Reason: ServerDraining,
		Message: "connection closed at its maximum age before the call completed, retry on another connection; the outcome of a write is unknown",
	}
}

// NewDrainedCallError returns the error for a call that is aborted at shutdown. Its write,
// if any, may still be committed.
func NewDrainedCallError(epoch string, position int64) *Error {
	e := NewDrainingError(epoch, position)
	e.Message = "server shutting down before the call completed, outcome of a write is unknown"
	return e
}

// NewInternalError returns the error for an unexpected failure. incident is the id of its
// log entry, or empty.
func NewInternalError(incident string) *Error {
	e := &Error{Code: Internal, Reason: InternalError, Message: "internal error"}
	if incident != "" {
		e.Metadata = map[string]string{"incident": incident}
	}
	return e
}

// NewStoreUnavailableError returns the error for a store that cannot be reached.
func NewStoreUnavailableError() *Error {
	return &Error{
		Code: Unavailable, Reason: StoreUnavailable, RetryAfter: time.Second,
		Message: "store unavailable",
	}
}

// NewOutcomeUnknownError returns the error for a write whose commit failed in such a way
// that it may be durable.
func NewOutcomeUnknownError() *Error {
	return &Error{
		Code: Unavailable, Reason: StoreUnavailable, RetryAfter: time.Second,
		Message: "outcome of the write is unknown, retry with the same request id",
	}
}

// NewOverloadedError returns the error for a call that exceeds the server's capacity.
func NewOverloadedError() *Error {
	return &Error{
		Code: Unavailable, Reason: Overloaded, RetryAfter: time.Second,
		Message: "server overloaded, retry later",
	}
}

// NewStoreFullError returns the error for a write that does not fit on the disk.
func NewStoreFullError() *Error {
	return &Error{
		Code: ResourceExhausted, Reason: StoreFull, RetryAfter: 30 * time.Second,
		Message: "disk of the store is full",
	}
}

// NewStoreReadOnlyError returns the error for a write after a failed sync to disk.
func NewStoreReadOnlyError() *Error {
	return newReadOnlyError("a sync to disk failed")
}

// NewStoreDamagedError returns the error for a write that needs damaged data.
func NewStoreDamagedError() *Error {
	return newReadOnlyError("some of its data is damaged")
}

// NewStoreMovedError returns the error for a write after the store's file was removed,
// replaced or truncated: the write would be lost.
func NewStoreMovedError() *Error {
	return newReadOnlyError("its file was removed, replaced or truncated")
}

func newReadOnlyError(cause string) *Error {
	return &Error{
		Code: FailedPrecondition, Reason: StoreReadOnly,
		Message: "store is read-only: " + cause + ", operator action required",
	}
}

// NewTooManyError returns the error for more items than one call may carry. The noun
// names the items.
func NewTooManyError(reason Reason, noun string, limit int) *Error {
	return &Error{
		Code: ResourceExhausted, Reason: reason,
		Message:  "more than " + strconv.Itoa(limit) + " " + noun,
		Metadata: map[string]string{"limit": strconv.Itoa(limit)},
	}
}

func userMetadata(id int64) map[string]string {
	return map[string]string{"user_id": strconv.FormatInt(id, 10)}
}

// Quote quotes client text for an error message. It truncates long text.
func Quote(text string) string {
	const maxRunes = 40
	if runes := []rune(text); len(runes) > maxRunes {
		text = string(runes[:maxRunes]) + "…"
	}
	return strconv.Quote(text)
}
