package user

import (
	"slices"
	"time"
)

// Actions written by the service. Applications cannot record an action with the prefix
// ReservedAction.
const (
	ReservedAction = "user."

	ActionCreated       = "user.created"
	ActionUpdated       = "user.updated"
	ActionStatusChanged = "user.status_changed"
	ActionDeleted       = "user.deleted"
	ActionUndeleted     = "user.undeleted"
	ActionPurged        = "user.purged"
)

// Activity is one row of the log.
type Activity struct {
	Position int64
	UserID   int64
	Action   string
	Time     time.Time // commit time; monotonic along the log
	Details  map[string]string
}

// Summaries returns copies of the rows without details.
func Summaries(rows []Activity) []Activity {
	summaries := slices.Clone(rows)
	for i := range summaries {
		summaries[i].Details = nil
	}
	return summaries
}

// DetailBytes returns the total length of the keys and values of the details.
func (a *Activity) DetailBytes() (bytes int) {
	for key, value := range a.Details {
		bytes += len(key) + len(value)
	}
	return bytes
}

// Head is the end of the log.
type Head struct {
	Epoch    string    // identifies the log
	Position int64     // of the last row; 0: the log is empty
	Time     time.Time // of the last row; zero: the log is empty
}

// Truncate converts t to UTC and truncates it to microseconds, the precision of stored
// times. A zero time stays zero.
func Truncate(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
