package sqlite

import (
	"slices"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// pageFailureMemory is how long writes are reported as failing after a page could not be read:
// other transactions may succeed, and health must not flap.
const pageFailureMemory = 30 * time.Second

// maxDistinctErrors bounds the errors that a series logs and keeps. Texts can contain page numbers, and a
// series can last as long as the process.
const maxDistinctErrors = 16

// writeFailures is the state of the current series of failed transactions.
type writeFailures struct {
	count    int
	logged   []string    // distinct errors, at most maxDistinctErrors
	page     *user.Error // set after a page could not be read
	pageTime time.Time   // of the last such failure
}

// add records a failed transaction, and reports whether its error is new in the series and to be logged.
func (f *writeFailures) add(err error) (isNew bool) {
	f.count++
	if isUnreadable(err) || code(err) == codes.SQLITE_IOERR_READ || code(err) == codes.SQLITE_IOERR_SHORT_READ {
		f.page, f.pageTime = user.NewStoreUnavailableError(), time.Now()
	}
	if len(f.logged) == maxDistinctErrors || slices.Contains(f.logged, err.Error()) {
		return false
	}
	f.logged = append(f.logged, err.Error())
	return true
}

// end records a successful transaction. It returns the number of failures in the series that
// it ends, or 0. After an unreadable page a series lasts for pageFailureMemory.
func (f *writeFailures) end() (failures int) {
	if f.page != nil && time.Since(f.pageTime) < pageFailureMemory {
		return 0
	}
	failures = f.count
	*f = writeFailures{}
	return failures
}
