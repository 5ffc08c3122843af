package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/user"
)

// Indexes of listQueries. Each query continues at a cursor in an index and does not sort
// (see TestPlans).
const (
	byID = iota * 2 // each is followed by the descending query
	byUsername
	byEmail
	byLastActivity
	byCreated // after the users with the time of the cursor
	atCreated // these
	byTerms
)

var (
	listColumns = "SELECT " + userColumns + ", username_key, email_key FROM "
	listSelect  = listColumns + "users "
	termSelect  = listColumns + "terms CROSS JOIN users ON user_id = terms.rowid "
)

var listQueries = [14]string{
	byID:               listSelect + "WHERE user_id > ? ORDER BY user_id LIMIT ?",
	byID + 1:           listSelect + "WHERE user_id < ? ORDER BY user_id DESC LIMIT ?",
	byUsername:         listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key LIMIT ?",
	byUsername + 1:     listSelect + "WHERE username_key >= ? AND username_key < ? ORDER BY username_key DESC LIMIT ?",
	byEmail:            listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key LIMIT ?",
	byEmail + 1:        listSelect + "WHERE email_key >= ? AND email_key < ? ORDER BY email_key DESC LIMIT ?",
	byLastActivity:     listSelect + "WHERE last_activity_id > ? AND last_activity_id < ? ORDER BY last_activity_id LIMIT ?",
	byLastActivity + 1: listSelect + "WHERE last_activity_id > ? AND last_activity_id < ? ORDER BY last_activity_id DESC LIMIT ?",
	byCreated:          listSelect + "WHERE created_at > ? AND created_at < ? ORDER BY created_at, user_id LIMIT ?",
	byCreated + 1:      listSelect + "WHERE created_at < ? AND created_at >= ? ORDER BY created_at DESC, user_id DESC LIMIT ?",
	atCreated:          listSelect + "WHERE created_at = ? AND user_id > ? AND created_at < ? ORDER BY user_id LIMIT ?",
	atCreated + 1:      listSelect + "WHERE created_at = ? AND user_id < ? AND created_at >= ? ORDER BY user_id DESC LIMIT ?",
	byTerms:            termSelect + "WHERE terms MATCH ? AND terms.rowid > ? ORDER BY terms.rowid LIMIT ?",
	byTerms + 1:        termSelect + "WHERE terms MATCH ? AND terms.rowid < ? ORDER BY terms.rowid DESC LIMIT ?",
}

// List implements user.Store. A page is read in chunks: a user whose sort key changes
// between two chunks may be returned twice or not at all, as between two pages.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	l := &lister{List: page.NewList(query)}
	err := scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		err = l.read(r)
		return l.Done, err
	})
	if err != nil {
		return user.ListPage{}, err
	}
	return l.Page, nil
}

// lister reads a page in chunks.
type lister struct {
	page.List

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
	if l.HasHead() {
		return r.snapshot(func() error { return l.headChunk(r) })
	}
	return l.chunk(r)
}

// headChunk reads a chunk and, at the end of the list, the head of the log.
func (l *lister) headChunk(r *reader) error {
	err := l.chunk(r)
	if err == nil && l.Done && l.Page.Next == nil {
		l.Page.Head, _, err = r.head.number()
	}
	return err
}

// chunk reads rows after the cursor. It reads one row more than it may scan, to detect
// the end.
func (l *lister) chunk(r *reader) error {
	want := min(l.Query.MaxScanned-l.Scanned+1, chunkRows)
	got, bytes := 0, 0
	read := func(query int, args ...driver.Value) error {
		if l.Query.Desc {
			query++
		}
		if l.Done || got == want || bytes >= chunkBytes {
			return nil
		}
		return r.lists[query].each(func(row []driver.Value) (bool, error) {
			got++
			bytes += rowBytes(row)
			err := l.add(row)
			return !l.Done && bytes < chunkBytes, err
		}, append(args, int64(want-got))...)
	}
	if err := l.walk(read); err != nil {
		return err
	}
	if got < want && bytes < chunkBytes {
		l.End()
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
		return read(byTerms, l.match, l.ID())
	}
	switch l.Query.Order {
	case user.ByUsername:
		lower, upper := l.Keys()
		return read(byUsername, lower, upper)
	case user.ByEmail:
		lower, upper := l.Keys()
		return read(byEmail, lower, upper)
	case user.ByLastActivity:
		after, before := l.Positions()
		return read(byLastActivity, after, before)
	case user.ByCreated:
		// The users of a transaction have the same time. One query of both columns would skip them up to the cursor.
		at, id, end := l.Created()
		if err := read(atCreated, at, id, end); err != nil {
			return err
		}
		return read(byCreated, at, end)
	default:
		return read(byID, l.ID())
	}
}

// add adds a row to the page, or ends the page if it is full. In a corrupt index a row may not be after the cursor, and
// the list would not end.
func (l *lister) add(row []driver.Value) error {
	if l.Full() {
		l.Add(nil, user.Keys{}) // ends the page
		return nil
	}
	u, keys, err := scanListed(row)
	if err == nil && !l.Add(u, keys) {
		err = disorderError{"users"}
	}
	return err
}
