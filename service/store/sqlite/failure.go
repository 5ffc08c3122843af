package sqlite

import (
	"slices"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// troubleMemory is how long writes are reported as failing after a page could not be read:
// other transactions may succeed, and health must not flap.
const troubleMemory = 30 * time.Second

// trouble is the state of the current series of failed transactions.
type trouble struct {
	failures int
	logged   []string    // distinct errors
	page     *user.Error // set after a page could not be read
	pageTime time.Time   // of the last such failure
}

// begins records a failed transaction, and reports whether its error is new in the series.
func (t *trouble) begins(err error) (isNew bool) {
	t.failures++
	if isUnreadable(err) || code(err) == codes.SQLITE_IOERR_READ || code(err) == codes.SQLITE_IOERR_SHORT_READ {
		t.page, t.pageTime = user.NewStoreUnavailableError(), time.Now()
	}
	if slices.Contains(t.logged, err.Error()) {
		return false
	}
	t.logged = append(t.logged, err.Error())
	return true
}

// ends records a successful transaction. It returns the number of failures in the series that
// it ends, or 0. After an unreadable page a series lasts for troubleMemory.
func (t *trouble) ends() (failures int) {
	if t.page != nil && time.Since(t.pageTime) < troubleMemory {
		return 0
	}
	failures = t.failures
	*t = trouble{}
	return failures
}
