package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"math"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// Indexes of listQueries. Each query continues at a cursor in an index and does not sort
// (see TestPlans).
const (
	byID = iota * 2 // each is followed by the descending query
	byUsername
	byEmail
	byLastActivity
	byCreated
	byTerms
)

var (
	listColumns = "SELECT " + userColumns + ", username_key, email_key FROM "
	listSelect  = listColumns + "users "
	termSelect  = listColumns + "terms CROSS JOIN users ON user_id = terms.rowid "
)

var listQueries = [12]string{
	byID:               listSelect + "WHERE user_id > ? ORDER BY user_id LIMIT ?",
	byID + 1:           listSelect + "WHERE user_id < ? ORDER BY user_id DESC LIMIT ?",
	byUsername:         listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key LIMIT ?",
	byUsername + 1:     listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key DESC LIMIT ?",
	byEmail:            listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key LIMIT ?",
	byEmail + 1:        listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key DESC LIMIT ?",
	byLastActivity:     listSelect + "WHERE last_activity_id > ? AND last_activity_id < ? ORDER BY last_activity_id LIMIT ?",
	byLastActivity + 1: listSelect + "WHERE last_activity_id > ? AND last_activity_id < ? ORDER BY last_activity_id DESC LIMIT ?",
	byCreated:          listSelect + "WHERE (created_at, user_id) > (?, ?) AND created_at < ? ORDER BY created_at, user_id LIMIT ?",
	byCreated + 1:      listSelect + "WHERE (created_at, user_id) < (?, ?) AND created_at >= ? ORDER BY created_at DESC, user_id DESC LIMIT ?",
	byTerms:            termSelect + "WHERE terms MATCH ? AND terms.rowid > ? ORDER BY terms.rowid LIMIT ?",
	byTerms + 1:        termSelect + "WHERE terms MATCH ? AND terms.rowid < ? ORDER BY terms.rowid DESC LIMIT ?",
}

// List implements user.Store. A page is read in chunks: a user whose sort key changes
// between two chunks may be returned twice or not at all, as between two pages.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	l := &lister{query: query, cursor: query.After}
	err := scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		err = l.read(r)
		return l.done, err
	})
	if err != nil {
		return user.ListPage{}, err
	}
	return l.page, nil
}

// lister reads a page in chunks.
type lister struct {
	query   user.ListQuery
	cursor  *user.ListCursor // the last row read; nil: none
	page    user.ListPage
	scanned int
	bytes   int
	done    bool

	source source
	match  string // of the index
	sorted sorted
}

// read reads a chunk.
func (l *lister) read(r *reader) error {
	if l.source == notPlanned {
		if err := l.plan(r); err != nil {
			return err
		}
	}
	if l.source == fromSorted {
		return l.sortedChunk(r)
	}
	if l.query.Order == user.ByLastActivity && l.query.Created == (user.TimeRange{}) && l.query.Where == nil {
		return r.snapshot(func() error { return l.headChunk(r) })
	}
	return l.chunk(r)
}

// headChunk reads a chunk and, at the end of the list, the head of the log.
func (l *lister) headChunk(r *reader) error {
	err := l.chunk(r)
	if err == nil && l.done && l.page.Next == nil {
		l.page.Head, _, err = r.head.number()
	}
	return err
}

// chunk reads rows after the cursor. It reads one row more than it may scan, to detect
// the end.
func (l *lister) chunk(r *reader) error {
	want := min(l.query.MaxScanned-l.scanned+1, chunkRows)
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
			bytes += rowBytes(row)
			err := l.add(row)
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

// rowBytes returns the size of the lists and maps in a row.
func rowBytes(row []driver.Value) (bytes int) {
	for i := range row {
		bytes += len(asBlob(row[i]))
	}
	return bytes
}

// walk calls read for the queries that continue at the cursor.
func (l *lister) walk(read func(query int, args ...driver.Value) error) error {
	if l.source == fromTerms {
		return read(byTerms, l.match, l.id())
	}
	switch l.query.Order {
	case user.ByUsername:
		lower, upper := l.keys()
		return read(byUsername, lower, upper)
	case user.ByEmail:
		lower, upper := l.keys()
		return read(byEmail, lower, upper)
	case user.ByLastActivity:
		after, before := l.positions()
		return read(byLastActivity, after, before)
	case user.ByCreated:
		return read(byCreated, l.created()...)
	default:
		return read(byID, l.id())
	}
}

// id returns the user ID at the cursor, or the one before all others.
func (l *lister) id() int64 {
	switch {
	case l.cursor != nil:
		return l.cursor.ID
	case l.query.Desc:
		return math.MaxInt64
	default:
		return math.MinInt64
	}
}

// positions returns the exclusive bounds of the remaining positions.
func (l *lister) positions() (after, before int64) {
	after, before = l.query.AfterActivity, cmp.Or(l.query.BeforeActivity, math.MaxInt64)
	switch {
	case l.cursor == nil:
	case l.query.Desc:
		before = min(before, l.cursor.Position)
	default:
		after = max(after, l.cursor.Position)
	}
	return after, before
}

// created returns the exclusive cursor of the remaining times, and the bound at their end. The index seeks the time;
// the users of one transaction, which have the same time, are skipped up to the cursor.
func (l *lister) created() []driver.Value {
	from, until := micros(l.query.Created)
	switch {
	case l.query.Desc && l.cursor != nil && l.cursor.Position < until:
		return []driver.Value{l.cursor.Position, l.cursor.ID, from}
	case l.query.Desc:
		return []driver.Value{until, int64(math.MinInt64), from}
	case l.cursor != nil && l.cursor.Position >= from:
		return []driver.Value{l.cursor.Position, l.cursor.ID, until}
	default:
		return []driver.Value{from, int64(math.MinInt64), until}
	}
}

// micros returns a range of times in microseconds.
func micros(times user.TimeRange) (from, until int64) {
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

// keys returns the range [lower, upper) of the remaining keys.
func (l *lister) keys() (lower, upper string) {
	lower, upper = l.query.Prefix, afterPrefix(l.query.Prefix)
	switch {
	case l.cursor == nil:
	case l.query.Desc:
		upper = min(upper, l.cursor.Key)
	default:
		lower = max(lower, l.cursor.Key+"\x00") // the next string
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

// add adds a row to the page, or ends the page if it is full.
func (l *lister) add(row []driver.Value) error {
	if l.scanned == l.query.MaxScanned || len(l.page.Users) == l.query.MaxUsers {
		l.endAtCursor()
		return nil
	}
	u, keys, err := scanListed(row)
	if err != nil {
		return err
	}
	cursor := l.cursorOf(u, keys)
	if !l.advances(cursor) {
		return disorderError{"users"}
	}
	if l.selects(u, keys) {
		size := u.Size()
		if len(l.page.Users) > 0 && l.bytes+size > l.query.MaxBytes {
			l.endAtCursor()
			return nil
		}
		l.bytes += size
		l.page.Users = append(l.page.Users, u)
	}
	l.scanned++
	l.cursor = cursor
	return nil
}

// selects reports whether the list contains a user.
func (l *lister) selects(u *user.User, keys user.Keys) bool {
	return (l.query.ShowDeleted || !u.Deleted()) && (l.query.Match == nil || l.query.Match(u, keys))
}

// cursorOf returns the cursor at a user.
func (l *lister) cursorOf(u *user.User, keys user.Keys) *user.ListCursor {
	cursor := &user.ListCursor{ID: u.ID}
	switch l.query.Order {
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

// advances reports whether cursor is after l.cursor. In a corrupt index it may not be,
// and the list would not end.
func (l *lister) advances(cursor *user.ListCursor) bool {
	if l.cursor == nil {
		return true
	}
	return l.compare(cursor, l.cursor) > 0
}

// endAtCursor ends the page before the end of the list.
func (l *lister) endAtCursor() { l.done, l.page.Next = true, l.cursor }
