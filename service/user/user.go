package user

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Status says whether a user takes part. The numbers are those of UserStatus in
// the wire contract.
type Status int32

// The statuses. A new user is StatusActive; StatusNone is no status at all.
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

// Valid reports whether s is a status that a user can have.
func (s Status) Valid() bool { return s > StatusNone && int(s) < len(statusNames) }

// String gives the name in the wire contract.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return "USER_STATUS_" + strconv.Itoa(int(s))
	}
	return statusNames[s]
}

// User is one entry of the directory. Times have microsecond precision; a zero
// time means "not set".
type User struct {
	ID       int64
	Username string // as its owner wrote it
	Email    string // as its owner wrote it
	Status   Status

	// StatusTime is the time by which the last writer of the status wins. It is
	// not the log's time and may lie up to MaxStatusSkew ahead of it.
	StatusTime time.Time
	// StatusPosition is the position of the row that led to the status that followers
	// see: of the creation, the last change of the status, the deletion or undeletion.
	StatusPosition int64

	CreatedAt time.Time
	UpdatedAt time.Time
	Tags      []string
	Metadata  map[string]string
	Version   int64 // 1 after creation, one more at each change

	DeletedAt time.Time // zero: not deleted
	PurgeAt   time.Time // zero: not deleted
}

// Deleted reports whether the user is deleted and waits to be purged.
func (u *User) Deleted() bool { return !u.DeletedAt.IsZero() }

// CurrentStatus is a user's status without the rest of the user: its size does not
// depend on the user's metadata.
type CurrentStatus struct {
	UserID   int64
	Status   Status
	Time     time.Time // User.StatusTime
	Position int64     // User.StatusPosition
	Deleted  bool
}

// CurrentStatus returns the user's status.
func (u *User) CurrentStatus() CurrentStatus {
	return CurrentStatus{
		UserID: u.ID, Status: u.Status, Time: u.StatusTime, Position: u.StatusPosition, Deleted: u.Deleted(),
	}
}

// Etag is the opaque tag of the present version. It also holds the time of the
// change, so that a store restored from a backup, which counts its versions anew
// from an older number, does not repeat a tag for another content.
func (u *User) Etag() string {
	var b [32]byte
	out := strconv.AppendInt(b[:0], u.Version, 36)
	out = append(out, '-')
	return string(strconv.AppendInt(out, u.UpdatedAt.UnixMicro(), 36))
}

// Clone returns a copy that shares nothing with u.
func (u *User) Clone() *User {
	c := *u
	c.Tags = slices.Clone(u.Tags)
	c.Metadata = maps.Clone(u.Metadata)
	return &c
}

// Keys are the normal forms by which a user is unique.
type Keys struct {
	Username string
	Email    string
}
