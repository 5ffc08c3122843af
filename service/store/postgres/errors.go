package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/yourorg/userservice/service/user"
)

// SQLSTATE codes.
const (
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	diskFull             = "53100"
	readOnlyTransaction  = "25006"
	idleTimeout          = "25P03" // of a transaction
	lockTimeout          = "55P03"

	classConnection  = "08"
	classResources   = "53"
	classIntervened  = "57" // shutdown, crash, start, timeouts
	classSystemError = "58"
)

func sqlState(err error) string {
	var failure *pgconn.PgError
	if errors.As(err, &failure) {
		return failure.Code
	}
	return ""
}

// isConflict reports whether a transaction failed because of another one, and is to be repeated.
func isConflict(err error) bool {
	switch sqlState(err) {
	case uniqueViolation, serializationFailure, deadlockDetected:
		return true
	}
	return false
}

// isSameID reports whether a transaction failed because the id of a new user is in use.
func isSameID(err error) bool {
	var failure *pgconn.PgError
	return errors.As(err, &failure) && failure.Code == uniqueViolation && failure.ConstraintName == "users_pkey"
}

// isRejected reports whether a commit that failed with err is certainly not stored: the server has reported an error
// other than its own end.
func isRejected(err error) bool {
	state := sqlState(err)
	return state != "" && !strings.HasPrefix(state, classIntervened) && !strings.HasPrefix(state, classConnection)
}

// isDisconnect reports whether the connection was lost.
func isDisconnect(err error) bool {
	var connect *pgconn.ConnectError
	if err == nil || errors.As(err, &connect) {
		return false
	}
	state := sqlState(err)
	return state == idleTimeout || strings.HasPrefix(state, classIntervened) || strings.HasPrefix(state, classConnection) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(net.Error)) || errors.Is(err, net.ErrClosed)
}

// isStoreError reports whether err concerns the whole store, so that to apply each change alone does not help.
func isStoreError(err error) bool {
	if err == nil {
		return false
	}
	if errors.As(err, new(*pgconn.ConnectError)) { // for any reason, such as a server that is starting
		return true
	}
	if errors.As(err, new(unknownOutcomeError)) || errors.Is(err, errNotCommitted) || isDisconnect(err) || isConflict(err) {
		return true
	}
	state := sqlState(err)
	if state == "" {
		_, expected := user.AsError(translate(err))
		return expected
	}
	switch state[:2] {
	case classResources, classSystemError:
		return true
	}
	return state == readOnlyTransaction || state == lockTimeout
}

// translate converts errors of the database to *user.Error where one exists. It returns others as they are.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := user.AsError(err); ok {
		return err
	}
	state := sqlState(err)
	switch {
	case state == diskFull:
		return user.NewStoreFullError()
	case isDisconnect(err), errors.Is(err, errNotCommitted), state == readOnlyTransaction, state == lockTimeout, isConflict(err),
		strings.HasPrefix(state, classResources), strings.HasPrefix(state, classSystemError),
		errors.As(err, new(*pgconn.ConnectError)), errors.Is(err, puddle.ErrClosedPool), errors.Is(err, context.DeadlineExceeded):
		return user.NewStoreUnavailableError()
	}
	return err
}

// readError converts the error of a read. If the context of the caller has ended, that is its cause.
func readError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return translate(err)
}
