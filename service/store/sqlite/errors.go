package sqlite

import (
	"errors"
	"fmt"

	driverpkg "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// code returns SQLite's extended result code within err, 0 if there is none.
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

// translate makes of an error of SQLite what a caller may see, where there is such
// a thing. What remains is unexpected.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := user.AsError(err); ok {
		return err
	}
	if errors.As(err, new(disorderError)) {
		return fmt.Errorf("the database is damaged; restore a backup: %w", err)
	}
	switch c := code(err); c & 0xff {
	case codes.SQLITE_FULL:
		return user.NewStoreFullError()
	case codes.SQLITE_IOERR:
		if c == codes.SQLITE_IOERR_SHMSIZE { // no room for the index of the write-ahead log
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

// forCallers is translate for those who call: an operator wants to see what exactly
// the disk did, a caller wants to know that it may pass. (Of a write that failed the
// driver does not tell why. A quota that is used up is therefore no full disk here.)
func forCallers(err error) error {
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

// ofStore reports whether err says something of the store as a whole, so that
// trying each change by itself would not help.
func ofStore(err error) bool {
	switch code(err) & 0xff {
	case codes.SQLITE_FULL, codes.SQLITE_BUSY, codes.SQLITE_LOCKED, codes.SQLITE_IOERR, codes.SQLITE_CORRUPT,
		codes.SQLITE_NOTADB, codes.SQLITE_READONLY, codes.SQLITE_CANTOPEN, codes.SQLITE_NOMEM, codes.SQLITE_PERM,
		codes.SQLITE_PROTOCOL, codes.SQLITE_INTERNAL, codes.SQLITE_MISUSE:
		return true
	}
	return false
}

// keptNothing reports whether, after a commit has failed, it is certain that nothing of
// its transaction will ever be seen.
//
// SQLite appends the pages of a transaction to the write-ahead log, the last one with
// the mark of the commit, then syncs, and then enters them into the index. A write that
// fails (a full disk or quota, EIO, EROFS) is that of the last page or comes before it.
// So there is no mark whose checksum holds, and what stands behind the last valid mark
// is looked at neither by readers nor by a start anew; the next transaction overwrites
// it. Of later failures the mark is in the log: readers do not see it, since the index
// does not have it, but a start anew reads the log and may find it.
func keptNothing(err error) bool {
	c := code(err)
	switch c & 0xff {
	case codes.SQLITE_FULL, codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return true
	}
	return c == codes.SQLITE_IOERR_WRITE
}

// losesData reports whether, after the error of a commit or of a checkpoint, nobody
// knows what is on disk. An index that could not grow leaves a log that is whole. Nor
// has a checkpoint that could not write lost anything: the log keeps what it was to copy.
func losesData(err error) bool {
	return err != nil && !keptNothing(err) && code(err) != codes.SQLITE_IOERR_SHMSIZE
}

// isFailedSync reports whether the error is that of a sync.
func isFailedSync(err error) bool {
	switch code(err) {
	case codes.SQLITE_IOERR_FSYNC, codes.SQLITE_IOERR_DIR_FSYNC:
		return true
	}
	return false
}

// unknownFateError is the failure of a commit whose changes a start anew may find.
type unknownFateError struct{ error }

func (e unknownFateError) Unwrap() error { return e.error }
