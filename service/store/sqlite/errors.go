package sqlite

import (
	"errors"
	"fmt"

	driverpkg "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// code returns the SQLite extended result code in err, or 0.
func code(err error) int {
	var failure *driverpkg.Error
	if errors.As(err, &failure) {
		return failure.Code()
	}
	return 0
}

func isTaken(err error) bool { return code(err) == codes.SQLITE_CONSTRAINT_UNIQUE }

func isSameID(err error) bool {
	c := code(err)
	return c == codes.SQLITE_CONSTRAINT_PRIMARYKEY || c == codes.SQLITE_CONSTRAINT_ROWID
}

// translate converts SQLite errors to *user.Error where one exists. It returns other
// errors with a hint for the operator, or as they are.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := user.AsError(err); ok {
		return err
	}
	if errors.As(err, new(disorderError)) || errors.Is(err, encoding.ErrEncoding) {
		return fmt.Errorf("the database is damaged; restore a backup: %w", err)
	}
	switch c := code(err); c & 0xff {
	case codes.SQLITE_FULL:
		return user.NewStoreFullError()
	case codes.SQLITE_IOERR:
		if c == codes.SQLITE_IOERR_SHMSIZE { // no space for the WAL index
			return user.NewStoreFullError()
		}
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return user.NewStoreUnavailableError()
	case codes.SQLITE_CORRUPT:
		return fmt.Errorf("the database is damaged; restore a backup: %w", err)
	case codes.SQLITE_NOTADB:
		return fmt.Errorf("the file is not a SQLite database: %w", err)
	}
	return err
}

// translateForCaller is translate for the callers of RPCs: it also converts I/O errors to
// STORE_UNAVAILABLE. The driver does not report the errno of a failed write, so an
// exceeded quota is STORE_UNAVAILABLE and not STORE_FULL.
func translateForCaller(err error) error {
	err = translate(err)
	if _, ok := user.AsError(err); ok {
		return err
	}
	switch code(err) & 0xff {
	case codes.SQLITE_IOERR, codes.SQLITE_CANTOPEN, codes.SQLITE_PROTOCOL:
		return user.NewStoreUnavailableError()
	}
	if isUnreadable(err) {
		return user.NewStoreUnavailableError()
	}
	return err
}

// isStoreError reports whether err concerns the whole store, so that retrying each change
// separately does not help.
func isStoreError(err error) bool {
	switch code(err) & 0xff {
	case codes.SQLITE_FULL, codes.SQLITE_BUSY, codes.SQLITE_LOCKED, codes.SQLITE_IOERR, codes.SQLITE_CORRUPT,
		codes.SQLITE_NOTADB, codes.SQLITE_READONLY, codes.SQLITE_CANTOPEN, codes.SQLITE_NOMEM, codes.SQLITE_PERM,
		codes.SQLITE_PROTOCOL, codes.SQLITE_INTERNAL, codes.SQLITE_MISUSE:
		return true
	}
	return false
}

// notCommitted reports whether a commit that failed with err is certainly not stored.
//
// SQLite appends the pages of a transaction to the write-ahead log, the last one as the
// commit frame, then syncs, then updates the WAL index. If a write fails (ENOSPC, EDQUOT,
// EIO, EROFS), the log has no valid commit frame: readers and recovery ignore its pages,
// and the next transaction overwrites them. After a later failure the commit frame is in
// the log. Readers do not see it, but recovery at the next start may.
func notCommitted(err error) bool {
	c := code(err)
	switch c & 0xff {
	case codes.SQLITE_FULL, codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return true
	}
	return c == codes.SQLITE_IOERR_WRITE
}

// unknownDiskState reports whether the contents on disk are unknown after a commit or a
// checkpoint failed with err. A WAL index that could not grow does not affect the log, and
// a checkpoint that could not write leaves its pages in the log.
func unknownDiskState(err error) bool {
	return err != nil && !notCommitted(err) && code(err) != codes.SQLITE_IOERR_SHMSIZE
}

func isFailedSync(err error) bool {
	switch code(err) {
	case codes.SQLITE_IOERR_FSYNC, codes.SQLITE_IOERR_DIR_FSYNC:
		return true
	}
	return false
}

// unknownOutcomeError is the error of a commit that may be stored.
type unknownOutcomeError struct{ error }

func (e unknownOutcomeError) Unwrap() error { return e.error }
