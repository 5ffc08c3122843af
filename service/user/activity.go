package user

import "time"

// The actions that the service itself writes. Everything that begins with
// ReservedAction belongs to it.
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
	Time     time.Time // commit time; never goes back along the log
	Details  map[string]string
}

// DetailBytes is how many bytes the details have.
func (a *Activity) DetailBytes() (bytes int) {
	for key, value := range a.Details {
		bytes += len(key) + len(value)
	}
	return bytes
}

// Head is the end of the log.
type Head struct {
	Epoch    string    // which log this is
	Position int64     // of the last row; 0: there is none
	Time     time.Time // of the last row; zero: there is none
}

// Truncate cuts t to the precision that the service keeps, microseconds, in UTC.
// A zero time stays zero.
func Truncate(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
