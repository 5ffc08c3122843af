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

// The codes that the service gives.
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

// Reason is the machine-readable reason of an error: a value of ErrorReason in the
// wire contract, where its metadata is described.
type Reason string

// The reasons.
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

// Violation says what is wrong with one field of a request.
type Violation struct {
	Field   string // path in the request, such as user.tags[2]
	Message string // what was expected
	Rule    string // name of the rule, such as string.min_len; may be empty
}

// Error is an error that a caller may see. Its texts are neutral: they hold
// nothing of how the service works inside.
type Error struct {
	Code       Code
	Reason     Reason
	Message    string
	Metadata   map[string]string
	Violations []Violation
	RetryAfter time.Duration // when the caller may come back; 0: not said
	Position   int64         // of the log row that led to the state reported; 0: none. Not for callers.
}

// Error gives the message and, for invalid input, each violation.
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

// AsError returns the Error within err, if there is one.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// HasReason reports whether err is an Error for the reason.
func HasReason(err error, reason Reason) bool {
	e, ok := AsError(err)
	return ok && e.Reason == reason
}

// NewInvalidError is the error for fields that break a rule.
func NewInvalidError(violations ...Violation) *Error {
	return &Error{Code: InvalidArgument, Reason: InvalidField, Message: "invalid request", Violations: violations}
}

// NewFieldErrorf is the error for one field that breaks a rule; the text says what
// was expected.
func NewFieldErrorf(field, format string, args ...any) *Error {
	return NewInvalidError(Violation{Field: field, Message: fmt.Sprintf(format, args...)})
}

// WithFieldPrefix returns a copy of the error whose field paths begin with prefix, which is the
// place of an item in its request.
func (e *Error) WithFieldPrefix(prefix string) *Error {
	c := *e
	c.Violations = make([]Violation, len(e.Violations))
	for i, v := range e.Violations {
		v.Field = strings.TrimSuffix(prefix+"."+v.Field, ".")
		c.Violations[i] = v
	}
	return &c
}

// NewNotFoundError is the error for a user that there is not.
func NewNotFoundError(id int64) *Error {
	return &Error{Code: NotFound, Reason: UserNotFound, Message: "there is no such user", Metadata: userMetadata(id)}
}

// NewDeletedError is the error for a change to a user that was deleted at the position.
func NewDeletedError(id, position int64) *Error {
	return &Error{
		Code: FailedPrecondition, Reason: UserDeleted,
		Message: "the user is deleted", Metadata: userMetadata(id), Position: position,
	}
}

func newNotDeletedError(id int64) *Error {
	return &Error{
		Code: FailedPrecondition, Reason: UserNotDeleted,
		Message: "the user is not deleted", Metadata: userMetadata(id),
	}
}

// NewTakenError is the error for a username (UsernameTaken) or an e-mail address
// (EmailTaken) that another user holds. A deleted user keeps it until purged; the
// metadata alone says so, because not every caller may know.
func NewTakenError(reason Reason, holderDeleted bool) *Error {
	what := "username"
	if reason == EmailTaken {
		what = "e-mail address"
	}
	return &Error{
		Code: AlreadyExists, Reason: reason, Message: "the " + what + " is taken",
		Metadata: map[string]string{"holder_deleted": strconv.FormatBool(holderDeleted)},
	}
}

// NewRequestIDReusedError is the error for a request id that came with another request.
func NewRequestIDReusedError() *Error {
	return &Error{
		Code: AlreadyExists, Reason: RequestIDReused,
		Message: "the request id was used for another request",
	}
}

// NewPositionOutOfRangeError is the error for a position that the log cannot serve. first and
// last are what it can.
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

// NewPositionNotReachedError is the error for a read that waited in vain.
func NewPositionNotReachedError() *Error {
	return &Error{
		Code: Unavailable, Reason: PositionNotReached, RetryAfter: time.Second,
		Message: "the wanted position was not reached in time",
	}
}

// NewDrainingError is the error that ends a stream when the server is about to stop.
// position is the last one that the stream has been given.
func NewDrainingError(epoch string, position int64) *Error {
	return &Error{
		Code: Unavailable, Reason: ServerDraining, RetryAfter: time.Second,
		Message: "the server is about to stop; resume elsewhere",
		Metadata: map[string]string{
			"epoch": epoch, "position": strconv.FormatInt(position, 10),
		},
	}
}

// NewStalledError is the error that ends a stream whose reader consumed nothing for the stall
// timeout. position is the last one that was sent on the stream.
func NewStalledError(epoch string, position int64) *Error {
	e := NewDrainingError(epoch, position)
	e.Reason = StreamStalled
	e.Message = "the stream was not read for too long; resume after the position"
	return e
}

// NewDrainedCallError is the error for a call that the server ends because it stops. A write
// of it may be under way.
func NewDrainedCallError(epoch string, position int64) *Error {
	e := NewDrainingError(epoch, position)
	e.Message = "the server is about to stop, and the call took too long for that; of a write it is not known whether this was stored"
	return e
}

// NewInternalError is what a caller is told of an unexpected failure. incident is the id under
// which the log has it; empty: there is none.
func NewInternalError(incident string) *Error {
	e := &Error{Code: Internal, Reason: InternalError, Message: "an unexpected failure of the service"}
	if incident != "" {
		e.Metadata = map[string]string{"incident": incident}
	}
	return e
}

// NewStoreUnavailableError is the error for a store that cannot be reached at present.
func NewStoreUnavailableError() *Error {
	return &Error{
		Code: Unavailable, Reason: StoreUnavailable, RetryAfter: time.Second,
		Message: "the store cannot be reached at present",
	}
}

// NewOutcomeUnknownError is the error for a write whose commit failed in such a way that it
// may have been stored all the same.
func NewOutcomeUnknownError() *Error {
	return &Error{
		Code: Unavailable, Reason: StoreUnavailable, RetryAfter: time.Second,
		Message: "it is not known whether this was stored; repeat it with its request id",
	}
}

// NewOverloadedError is the error for a call that the server has no room for.
func NewOverloadedError() *Error {
	return &Error{
		Code: Unavailable, Reason: Overloaded, RetryAfter: time.Second,
		Message: "the server has too much to do; try again later",
	}
}

// NewStoreFullError is the error for a write that the disk has no room for.
func NewStoreFullError() *Error {
	return &Error{
		Code: ResourceExhausted, Reason: StoreFull, RetryAfter: 30 * time.Second,
		Message: "the disk of the store is full",
	}
}

// NewStoreReadOnlyError is the error for a write after a sync to disk has failed.
func NewStoreReadOnlyError() *Error {
	return &Error{
		Code: FailedPrecondition, Reason: StoreReadOnly,
		Message: "the store takes no writes since a sync to disk failed; an operator must look at it",
	}
}

// NewStoreDamagedError is the error for a write that needs what the store has, and cannot
// use.
func NewStoreDamagedError() *Error {
	return &Error{
		Code: FailedPrecondition, Reason: StoreReadOnly,
		Message: "the store takes no writes since some of its data cannot be used; an operator must look at it",
	}
}

// NewStoreMovedError is the error for a write that would go where nobody finds it again.
func NewStoreMovedError() *Error {
	return &Error{
		Code: FailedPrecondition, Reason: StoreReadOnly,
		Message: "the store takes no writes since its file was removed, replaced or cut short; an operator must look at it",
	}
}

// NewTooManyError is the error for more of something than one call may carry.
func NewTooManyError(reason Reason, what string, limit int) *Error {
	return &Error{
		Code: ResourceExhausted, Reason: reason,
		Message:  "more than " + strconv.Itoa(limit) + " " + what,
		Metadata: map[string]string{"limit": strconv.Itoa(limit)},
	}
}

func userMetadata(id int64) map[string]string {
	return map[string]string{"user_id": strconv.FormatInt(id, 10)}
}
