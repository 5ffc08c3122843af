// Package page has the part of reading pages of users and of the log that all stores share: cursors and bounds, which rows
// belong to a page, and where it ends.
package page

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// List is a page of a list of users that is being read, possibly in chunks.
type List struct {
	Query   user.ListQuery
	Cursor  *user.ListCursor // the last user scanned; nil: none
	Page    user.ListPage
	Scanned int
	Done    bool

	bytes int
}

// NewList returns a page of which nothing was read.
func NewList(query user.ListQuery) List { return List{Query: query, Cursor: query.After} }

// ID returns the user ID at the cursor, or the one before all others.
func (l *List) ID() int64 {
	switch {
	case l.Cursor != nil:
		return l.Cursor.ID
	case l.Query.Desc:
		return math.MaxInt64
	default:
		return math.MinInt64
	}
}

// Positions returns the exclusive bounds of the remaining positions.
func (l *List) Positions() (after, before int64) {
	after, before = l.Query.AfterActivity, cmp.Or(l.Query.BeforeActivity, math.MaxInt64)
	switch {
	case l.Cursor == nil:
	case l.Query.Desc:
		before = min(before, l.Cursor.Position)
	default:
		after = max(after, l.Cursor.Position)
	}
	return after, before
}

// Created returns the exclusive cursor of the remaining times, a time and a user ID, and the bound at their end:
// exclusive, or inclusive in descending order. The users of one transaction have the same time.
func (l *List) Created() (at, id, end int64) {
	from, until := Micros(l.Query.Created)
	switch {
	case l.Query.Desc && l.Cursor != nil && l.Cursor.Position < until:
		return l.Cursor.Position, l.Cursor.ID, from
	case l.Query.Desc:
		return until, math.MinInt64, from
	case l.Cursor != nil && l.Cursor.Position >= from:
		return l.Cursor.Position, l.Cursor.ID, until
	default:
		return from, math.MinInt64, until
	}
}

// Micros returns a range of times in microseconds.
func Micros(times user.TimeRange) (from, until int64) {
	from, until = math.MinInt64, math.MaxInt64
	if !times.From.IsZero() {
		// The first microsecond that is not before.
		from = times.From.Add(time.Microsecond - time.Nanosecond).UnixMicro()
	}
	if !times.Until.IsZero() {
		until = times.Until.Add(time.Microsecond - time.Nanosecond).UnixMicro()
	}
	return from, until
}

// Keys returns the range [lower, upper) of the remaining keys, in the order of their bytes.
func (l *List) Keys() (lower, upper string) {
	lower, upper = l.Query.Prefix, afterPrefix(l.Query.Prefix)
	switch {
	case l.Cursor == nil:
	case l.Query.Desc:
		upper = min(upper, l.Cursor.Key)
	default:
		lower = max(lower, l.Cursor.Key+"\x00") // the next string
	}
	return lower, upper
}

// afterPrefix returns the least string greater than all strings with the prefix.
func afterPrefix(prefix string) string {
	// No byte of UTF-8 is 0xff, so the sum does not overflow.
	if end := len(prefix) - 1; end >= 0 {
		return prefix[:end] + string([]byte{prefix[end] + 1})
	}
	return "\xff"
}

// Add adds the next user to the page, or ends the page if it is full. It returns false if the user is not after the
// cursor.
func (l *List) Add(u *user.User, keys user.Keys) bool {
	if l.Full() {
		l.endAtCursor()
		return true
	}
	cursor := l.CursorOf(u, keys)
	if l.Cursor != nil && l.Compare(cursor, l.Cursor) <= 0 {
		return false
	}
	if l.selects(u, keys) {
		size := u.Size()
		if len(l.Page.Users) > 0 && l.bytes+size > l.Query.MaxBytes {
			l.endAtCursor()
			return true
		}
		l.bytes += size
		l.Page.Users = append(l.Page.Users, u)
	}
	l.Scanned++
	l.Cursor = cursor
	return true
}

// Full reports whether a further user would end the page.
func (l *List) Full() bool {
	return l.Scanned == l.Query.MaxScanned || len(l.Page.Users) == l.Query.MaxUsers
}

// endAtCursor ends the page before the end of the list.
func (l *List) endAtCursor() { l.Done, l.Page.Next = true, l.Cursor }

// End ends the list if it is not done: there are no more users.
func (l *List) End() {
	if !l.Done {
		l.Done, l.Page.Next = true, nil
	}
}

// selects reports whether the list contains a user.
func (l *List) selects(u *user.User, keys user.Keys) bool {
	return (l.Query.ShowDeleted || !u.Deleted()) && (l.Query.Match == nil || l.Query.Match(u, keys))
}

// CursorOf returns the cursor at a user.
func (l *List) CursorOf(u *user.User, keys user.Keys) *user.ListCursor {
	cursor := &user.ListCursor{ID: u.ID}
	switch l.Query.Order {
	case user.ByUsername:
		cursor.Key = keys.Username
	case user.ByEmail:
		cursor.Key = keys.Email
	case user.ByLastActivity:
		cursor.Position = u.LastActivityID
	case user.ByCreated:
		cursor.Position = u.CreatedAt.UnixMicro()
	case user.ByID:
	}
	return cursor
}

// Compare compares cursors in the order of the list.
func (l *List) Compare(a, b *user.ListCursor) int {
	order := cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Position, b.Position), cmp.Compare(a.ID, b.ID))
	if l.Query.Desc {
		return -order
	}
	return order
}

// Rest returns the cursor of a user that belongs to the rest of the list, else nil.
func (l *List) Rest(u *user.User, keys user.Keys) *user.ListCursor {
	cursor := l.CursorOf(u, keys)
	inRest := strings.HasPrefix(cursor.Key, l.Query.Prefix) && (l.Cursor == nil || l.Compare(cursor, l.Cursor) > 0)
	if inRest && l.selects(u, keys) {
		return cursor
	}
	return nil
}

// HasHead reports whether the last page has the head of the log as of which the end of the list was read.
func (l *List) HasHead() bool {
	return l.Query.Order == user.ByLastActivity && l.Query.Created == (user.TimeRange{}) && l.Query.Where == nil
}
