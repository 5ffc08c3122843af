package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"math"

	"github.com/yourorg/userservice/service/user"
)

// The queries that walk an order. Each goes on from a place in an index and needs
// no sorting; TestPlans sees to that. "Updated" goes on in two steps, because its
// place is a time and an id: first the rest of the same time, then the later ones.
const (
	byID = iota * 2 // the descending one follows each
	byUsername
	byEmail
	byUpdatedSame
	byUpdated
)

const listSelect = "SELECT " + userColumns + ", username_key, email_key FROM users "

var listQueries = [10]string{
	byID:              listSelect + "WHERE user_id > ? ORDER BY user_id LIMIT ?",
	byID + 1:          listSelect + "WHERE user_id < ? ORDER BY user_id DESC LIMIT ?",
	byUsername:        listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key LIMIT ?",
	byUsername + 1:    listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key DESC LIMIT ?",
	byEmail:           listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key LIMIT ?",
	byEmail + 1:       listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key DESC LIMIT ?",
	byUpdatedSame:     listSelect + "WHERE updated_at = ? AND user_id > ? ORDER BY user_id LIMIT ?",
	byUpdatedSame + 1: listSelect + "WHERE updated_at = ? AND user_id < ? ORDER BY user_id DESC LIMIT ?",
	byUpdated:         listSelect + "WHERE updated_at > ? ORDER BY updated_at, user_id LIMIT ?",
	byUpdated + 1:     listSelect + "WHERE updated_at < ? ORDER BY updated_at DESC, user_id DESC LIMIT ?",
}

// List returns a page of users. Its chunks are read one after the other, as pages are: a user that
// changes its place in the order meanwhile may be seen in both places or in neither.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	l := &lister{query: query, place: query.After}
	err := scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		err = l.chunk(r)
		return l.done, err
	})
	if err != nil {
		return user.ListPage{}, err
	}
	return l.page, nil
}

// lister gathers one page, a chunk at a time.
type lister struct {
	query  user.ListQuery
	place  *user.ListCursor // where the page has come to; nil: the beginning
	page   user.ListPage
	looked int
	bytes  int
	done   bool
}

// chunk reads on from the place. One row more than may be looked at is read, to
// know whether there is more.
func (l *lister) chunk(r *reader) error {
	want := min(l.query.MaxScanned-l.looked+1, chunkRows)
	got, bytes := 0, 0
	read := func(query int, args ...driver.Value) error {
		if l.query.Desc {
			query++
		}
		if bytes >= chunkBytes {
			return nil
		}
		return r.lists[query].each(func(row []driver.Value) (bool, error) {
			got++
			bytes += len(asBlob(row[8])) + len(asBlob(row[9])) // tags and metadata
			err := l.look(row)
			return !l.done && bytes < chunkBytes, err
		}, append(args, int64(want-got))...)
	}
	if err := l.walk(read); err != nil {
		return err
	}
	if !l.done && got < want && bytes < chunkBytes {
		l.done, l.page.Next = true, nil
	}
	return nil
}

// walk names the queries that go on from the place.
func (l *lister) walk(read func(query int, args ...driver.Value) error) error {
	switch l.query.Order {
	case user.ByUsername:
		lower, upper := l.keys()
		return read(byUsername, lower, upper)
	case user.ByEmail:
		lower, upper := l.keys()
		return read(byEmail, lower, upper)
	case user.ByUpdated:
		from := int64(math.MinInt64)
		if l.query.Desc {
			from = math.MaxInt64
		}
		if at := l.place; at != nil {
			from = at.Time.UnixMicro()
			if err := read(byUpdatedSame, from, at.ID); err != nil || l.done {
				return err
			}
		}
		return read(byUpdated, from)
	default:
		from := int64(math.MinInt64)
		if l.query.Desc {
			from = math.MaxInt64
		}
		if l.place != nil {
			from = l.place.ID
		}
		return read(byID, from)
	}
}

// keys bounds the keys that are left: from lower on, before upper.
func (l *lister) keys() (lower, upper string) {
	lower, upper = l.query.Prefix, afterPrefix(l.query.Prefix)
	switch {
	case l.place == nil:
	case l.query.Desc:
		upper = min(upper, l.place.Key)
	default:
		lower = max(lower, l.place.Key+"\x00") // the very next text
	}
	return lower, upper
}

// afterPrefix returns the least text that is greater than all that begin with prefix.
func afterPrefix(prefix string) string {
	// No byte of UTF-8 is 0xff, so the sum does not overflow.
	if end := len(prefix) - 1; end >= 0 {
		return prefix[:end] + string([]byte{prefix[end] + 1})
	}
	return "\xff"
}

// look takes one more user into account, and ends the page when it is full.
func (l *lister) look(row []driver.Value) error {
	if l.looked == l.query.MaxScanned || len(l.page.Users) == l.query.MaxUsers {
		l.end()
		return nil
	}
	u, err := scanUser(row)
	if err != nil {
		return err
	}
	keys := user.Keys{Username: asText(row[userColumnCount]), Email: asText(row[userColumnCount+1])}
	mark := l.markOf(u, keys)
	if !l.advances(mark) {
		return disorderError{"users"}
	}
	if (l.query.ShowDeleted || !u.Deleted()) && (l.query.Match == nil || l.query.Match(u, keys)) {
		size := u.Size()
		if len(l.page.Users) > 0 && l.bytes+size > l.query.MaxBytes {
			l.end()
			return nil
		}
		l.bytes += size
		l.page.Users = append(l.page.Users, u)
	}
	l.looked++
	l.place = mark
	return nil
}

// markOf returns where a user stands in the order of the list.
func (l *lister) markOf(u *user.User, keys user.Keys) *user.ListCursor {
	mark := &user.ListCursor{ID: u.ID}
	switch l.query.Order {
	case user.ByUsername:
		mark.Key = keys.Username
	case user.ByEmail:
		mark.Key = keys.Email
	case user.ByUpdated:
		mark.Time = u.UpdatedAt
	case user.ByID:
	}
	return mark
}

// advances reports whether the mark lies behind the place that the list has come to. In
// a damaged index it may not, and a list that went on would never end.
func (l *lister) advances(mark *user.ListCursor) bool {
	if l.place == nil {
		return true
	}
	order := cmp.Or(cmp.Compare(mark.Key, l.place.Key), mark.Time.Compare(l.place.Time))
	if l.query.Order == user.ByID || l.query.Order == user.ByUpdated {
		order = cmp.Or(order, cmp.Compare(mark.ID, l.place.ID))
	}
	if l.query.Desc {
		order = -order
	}
	return order > 0
}

// end ends the page where it has come to, though there is more.
func (l *lister) end() { l.done, l.page.Next = true, l.place }
