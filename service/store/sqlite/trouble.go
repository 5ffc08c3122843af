package sqlite

import (
	"slices"
	"time"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// troubleMemory is for how long a page that a transaction could not use speaks against
// all writes: who meets it and who does not take turns, and health must not.
const troubleMemory = 30 * time.Second

// trouble is what the writer remembers of transactions that failed.
type trouble struct {
	failures int
	told     []string    // the errors that the log was told of since it began
	page     *user.Error // what to say since a page could not be used; nil: all could
	met      time.Time   // when that was last found out
}

// begins notes the failure of a transaction, and reports whether it is news.
func (t *trouble) begins(err error) (news bool) {
	t.failures++
	if isUnreadable(err) || code(err) == codes.SQLITE_IOERR_READ || code(err) == codes.SQLITE_IOERR_SHORT_READ {
		t.page, t.met = user.NewStoreUnavailableError(), time.Now()
	}
	if slices.Contains(t.told, err.Error()) {
		return false
	}
	t.told = append(t.told, err.Error())
	return true
}

// ends notes the success of a transaction, and reports of how many failures it is the
// end. A page that could not be read is not one that a probe would meet.
func (t *trouble) ends() (failures int) {
	if t.page != nil && time.Since(t.met) < troubleMemory {
		return 0
	}
	failures = t.failures
	*t = trouble{}
	return failures
}
