package user

import "time"

// Order is the field by which users are listed. Users that are equal in it are
// ordered by id.
type Order int

// The orders.
const (
	ByID Order = iota
	ByUsername
	ByEmail
	ByUpdated
)

// ListQuery asks for a page of users.
type ListQuery struct {
	Order       Order
	Desc        bool
	After       *ListCursor // the last user looked at; nil: from the beginning
	ShowDeleted bool
	// Prefix bounds the page to users whose key in the order begins with it (the
	// normal form of a username or an e-mail address); it goes with ByUsername and
	// ByEmail only.
	Prefix string
	// Match keeps the users for which it is true; nil keeps all. It gets the
	// normal forms beside the user, and must not keep either.
	Match func(*User, Keys) bool

	MaxUsers   int // users to return, at least 1
	MaxScanned int // users to look at, at least 1
	MaxBytes   int // rough size of the users returned; one is returned whatever its size
}

// ListCursor is a place in an order: that of the user who was looked at last.
type ListCursor struct {
	Key  string    `json:"k,omitempty"` // for ByUsername and ByEmail: the normal form
	Time time.Time `json:"t,omitzero"`  // for ByUpdated
	ID   int64     `json:"i"`
}

// ListPage is a page of users.
type ListPage struct {
	Users []*User
	Next  *ListCursor // where the next page goes on; nil: there is nothing more
}

// Size is the rough size of a user in a message, in bytes.
func (u *User) Size() int {
	n := 128 + len(u.Username) + len(u.Email)
	for _, tag := range u.Tags {
		n += 4 + len(tag)
	}
	for key, value := range u.Metadata {
		n += 8 + len(key) + len(value)
	}
	return n
}

// LogQuery asks for a page of the log.
type LogQuery struct {
	UserID int64 // 0: everybody
	// After and Before bound the positions, both excluded; Before 0: no bound.
	After, Before int64
	Desc          bool     // newest first
	Actions       []string // keep only these; empty: all
	MaxRows       int      // rows to return, at least 1
	// MaxBytes ends the page behind the row with which the details of its rows have so
	// many bytes; 0: no bound. So a page has a row all the same.
	MaxBytes int
	// MaxScanned bounds the rows looked at when Actions leaves most out; 0: no
	// bound beyond what the store itself keeps to stay short.
	MaxScanned int
}

// LogPage is a page of the log, read at one instant.
type LogPage struct {
	Rows []Activity
	// Reached is the position up to which (Desc: down to which) everything that
	// the query asks for has been looked at. A next page goes on from it.
	Reached int64
	// Done reports whether there is nothing more on that side at that instant;
	// ascending, Reached is then the head of the log.
	Done bool
}

// Commit is what one transaction added, as a store tells its observer.
type Commit struct {
	Head    Head
	Changes []CommittedChange
}

// CommittedChange is one change of a commit.
type CommittedChange struct {
	UserID int64
	User   *User      // after the change; nil: purged. Not to be changed.
	Rows   []Activity // not to be changed
	Origin uint64     // Author.Origin of the change
}
