package user

import "time"

// Order is the sort order of a list of users. Ties are ordered by id.
type Order int

// Sort orders.
const (
	ByID Order = iota
	ByUsername
	ByEmail
	// ByLastActivity is the order of User.LastActivityID, and therefore of UpdatedAt.
	ByLastActivity
	ByCreated // by CreatedAt
)

// Orders returns all sort orders.
func Orders() []Order { return []Order{ByID, ByUsername, ByEmail, ByLastActivity, ByCreated} }

// TimeRange is a range of times. A zero bound restricts nothing.
type TimeRange struct {
	From, Until time.Time // inclusive, exclusive
}

// Intersect returns the times that are in both ranges.
func (r TimeRange) Intersect(other TimeRange) TimeRange {
	if other.From.After(r.From) {
		r.From = other.From
	}
	if until := other.Until; !until.IsZero() && (r.Until.IsZero() || until.Before(r.Until)) {
		r.Until = until
	}
	return r
}

// ListQuery selects a page of users.
type ListQuery struct {
	Order       Order
	Desc        bool
	After       *ListCursor // the last user scanned; nil: from the beginning
	ShowDeleted bool
	// Prefix restricts the scan to users whose key in the order starts with it: the normal
	// form of a username or an e-mail address. Only for ByUsername and ByEmail.
	Prefix string
	// After and before which LastActivityID must be; BeforeActivity 0: no bound.
	AfterActivity, BeforeActivity int64
	Created                       TimeRange // in which CreatedAt must be
	// Where is a condition that a store uses to read less; nil: none.
	Where *Condition
	// Match selects users; nil selects all. It must not retain its arguments. A user that matches must
	// meet AfterActivity, BeforeActivity, Created and Where, so that a store need not evaluate them. After a
	// failed List it may still be called, concurrently.
	Match func(*User, Keys) bool

	MaxUsers   int // users to return, at least 1
	MaxScanned int // users to scan, at least 1
	MaxBytes   int // approximate size of the users returned, at least 1; the first user may exceed it
}

// ListCursor is the position of a user in a sort order.
type ListCursor struct {
	Key string `json:"k,omitempty"` // for ByUsername and ByEmail: the normal form
	// Position is for ByLastActivity, and for ByCreated the time in microseconds since the Unix epoch.
	Position int64 `json:"p,omitempty"`
	ID       int64 `json:"i"`
}

// Fits reports whether a list in an order can have the cursor.
func (c *ListCursor) Fits(order Order) bool {
	switch order {
	case ByUsername, ByEmail:
		return c.Key != "" && c.Position == 0
	case ByLastActivity, ByCreated:
		return c.Key == ""
	case ByID:
	}
	return c.Key == "" && c.Position == 0
}

// ListPage is a page of users.
type ListPage struct {
	Users []*User
	Next  *ListCursor // start of the next page; nil: this is the last page
	// Head is the position of the log as of which the end of the list was read, if Next is nil. Only for
	// ByLastActivity without Created and Where.
	Head int64
}

// Count is a number of users.
type Count struct {
	Users     int64
	Estimated bool
}

// LogQuery selects a page of the log.
type LogQuery struct {
	UserID int64 // 0: all users
	// After and Before are exclusive bounds of the positions. Before 0: no bound.
	After, Before int64
	Retained      bool     // After is the position before the oldest retained row
	Desc          bool     // newest first
	Actions       []string // only these actions; empty: all
	MaxRows       int      // rows to return, at least 1
	// MaxBytes ends the page after the row with which the total size of the details reaches
	// it; 0: no bound. A page has at least one row.
	MaxBytes int
	// MaxScanned bounds the rows scanned when Actions filters most of them out; 0: only the
	// store's own bound applies.
	MaxScanned int
}

// LogPage is a page of the log, read at one instant.
type LogPage struct {
	Rows []Activity
	// Reached is the last position scanned. The next page starts from it.
	Reached int64
	// Done reports whether the scan reached the end of the log. In ascending order Reached
	// is then the head of the log.
	Done bool
}

// Commit is the effect of one transaction, passed to the observer of a store.
type Commit struct {
	Head    Head
	Changes []CommittedChange
}

// CommittedChange is one change of a commit. It must not be modified.
type CommittedChange struct {
	UserID int64
	// User is a summary after the change, or after a later change if another node has committed it; nil: purged.
	User   *User
	Rows   []Activity // without details
	Origin uint64     // Author.Origin of the change
}
