package user

import (
	"slices"
	"strconv"
	"time"
)

// Status is the status of a user, with the numbers of UserStatus in the proto.
type Status int32

// Statuses. A new user is StatusActive; StatusNone is unset.
const (
	StatusNone Status = iota
	StatusActive
	StatusInactive
	StatusSuspended
)

var statusNames = [...]string{
	StatusNone:      "USER_STATUS_UNSPECIFIED",
	StatusActive:    "USER_STATUS_ACTIVE",
	StatusInactive:  "USER_STATUS_INACTIVE",
	StatusSuspended: "USER_STATUS_SUSPENDED",
}

// Valid reports whether s is a valid status of a user.
func (s Status) Valid() bool { return s > StatusNone && int(s) < len(statusNames) }

// StatusNamed returns the status with a name in the proto, StatusNone for an unknown name.
func StatusNamed(name string) Status { return Status(max(0, slices.Index(statusNames[:], name))) }

// String returns the name in the proto.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return "USER_STATUS_" + strconv.Itoa(int(s))
	}
	return statusNames[s]
}

// User is one entry of the directory. The table in fields.go describes its fields. Times have microsecond precision; a zero time is unset.
type User struct {
	ID       int64
	Username string // sanitized, in the caller's spelling
	Email    string // sanitized, in the caller's spelling
	Status   Status

	// StatusTime is the time of the status, by which the last writer wins. It may be up to
	// MaxStatusSkew ahead of the clock.
	StatusTime time.Time
	// StatusPosition is the position of the last row that status subscribers receive: the
	// creation, a change of the status, a deletion or an undeletion.
	StatusPosition int64

	CreatedAt time.Time
	UpdatedAt time.Time
	Tags      []string
	Metadata  map[string]string
	Version   int64 // 1 after creation, incremented by each change

	// LastActivityID is the position of the last row that changed the user.
	LastActivityID int64

	DeletedAt time.Time // zero: not deleted
	PurgeAt   time.Time // zero: not deleted
}

// Deleted reports whether the user is deleted and not purged yet.
func (u *User) Deleted() bool { return !u.DeletedAt.IsZero() }

// CurrentStatus is the status of a user. Its size is independent of the size of the user.
type CurrentStatus struct {
	UserID   int64
	Status   Status
	Time     time.Time // User.StatusTime
	Position int64     // User.StatusPosition
	Deleted  bool
}

// CurrentStatus returns the status of the user.
func (u *User) CurrentStatus() CurrentStatus {
	return CurrentStatus{
		UserID: u.ID, Status: u.Status, Time: u.StatusTime, Position: u.StatusPosition, Deleted: u.Deleted(),
	}
}

// Etag returns the opaque tag of the current version. It includes the time of the change,
// because a store restored from a backup reuses version numbers.
func (u *User) Etag() string {
	var b [32]byte
	out := strconv.AppendInt(b[:0], u.Version, 36)
	out = append(out, '-')
	return string(strconv.AppendInt(out, u.UpdatedAt.UnixMicro(), 36))
}

// Summary returns a copy without lists and maps.
func (u *User) Summary() *User {
	if u == nil {
		return nil
	}
	summary := *u
	summary.set(noUser, collections)
	return &summary
}

// Clone returns a deep copy.
func (u *User) Clone() *User {
	c := *u
	c.set(u, collections)
	return &c
}

// Keys are the normal forms under which a user is unique.
type Keys struct {
	Username string
	Email    string
}
