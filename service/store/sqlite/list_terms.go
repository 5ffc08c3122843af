package sqlite

import (
	"cmp"
	"database/sql/driver"
	"math"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// maxSorted is the largest number of users with a clause of terms that are sorted in memory.
const maxSorted = 1000

// minPostings is the least number of postings read of each term at a time.
const minPostings = 8

const (
	countPostings  = "SELECT count(*) FROM (SELECT 1 FROM postings WHERE term = ? LIMIT ?)"
	postingsAfter  = "SELECT user_id FROM postings WHERE term = ? AND user_id > ? ORDER BY user_id LIMIT ?"
	postingsBefore = "SELECT user_id FROM postings WHERE term = ? AND user_id < ? ORDER BY user_id DESC LIMIT ?"
)

// termReader has the statements that read postings.
type termReader struct {
	user, count *stmt
	ids         [2]*stmt // ascending, descending
}

func newTermReader(err *error, c *conn) termReader {
	return termReader{
		user:  c.prepare(err, listSelect+"WHERE user_id = ?"),
		count: c.prepare(err, countPostings),
		ids:   [2]*stmt{c.prepare(err, postingsAfter), c.prepare(err, postingsBefore)},
	}
}

// source is what a list reads.
type source int

const (
	notPlanned source = iota
	fromOrder         // the index of its order
	fromTerms         // the postings of a clause, in the order of IDs
	fromSorted        // the users of a rare clause, sorted in memory
)

// plan chooses the source: the clause with the fewest users. In another order than that of the postings they
// are sorted if they are few; otherwise the index of the order is scanned.
func (l *lister) plan(r *reader) error {
	fewest := maxSorted + 1
	for i, clause := range l.query.Terms {
		hashes := make([]int64, len(clause))
		for n, term := range clause {
			hashes[n] = termHash(term)
		}
		users, err := r.terms.countUsers(hashes, fewest)
		if err != nil {
			return err
		}
		if users < fewest || i == 0 {
			l.clause, fewest = hashes, users
		}
	}
	switch {
	case len(l.query.Terms) == 0:
		l.source = fromOrder
	case l.query.Order == user.ByID:
		l.source = fromTerms
	case fewest <= maxSorted:
		l.source = fromSorted
	default:
		l.source = fromOrder
	}
	return nil
}

// countUsers returns the number of postings of terms, at most limit.
func (t *termReader) countUsers(terms []int64, limit int) (users int, err error) {
	for _, term := range terms {
		n, _, err := t.count.number(term, int64(limit-users))
		if err != nil {
			return 0, err
		}
		if users += int(n); users >= limit {
			break
		}
	}
	return users, nil
}

// users returns about limit IDs of users that have one of the terms, after an ID in the direction, sorted and
// without duplicates. last reports that there are no more.
func (t *termReader) users(terms []int64, after int64, desc bool, limit int) (ids []int64, last bool, err error) {
	query, before := t.ids[0], func(a, b int64) bool { return a < b }
	if desc {
		query, before = t.ids[1], func(a, b int64) bool { return a > b }
	}
	each := max(minPostings, limit/max(1, len(terms)))
	last = true
	var reached int64 // up to which all lists were read, unless last
	for _, term := range terms {
		n := 0
		end := int64(0)
		err := query.each(func(row []driver.Value) (bool, error) {
			n++
			end = asNumber(row[0])
			ids = append(ids, end)
			return true, nil
		}, term, after, int64(each))
		if err != nil {
			return nil, false, err
		}
		if n == each && (last || before(end, reached)) {
			last, reached = false, end
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if desc {
		slices.Reverse(ids)
	}
	if !last {
		ids = slices.DeleteFunc(ids, func(id int64) bool { return before(reached, id) })
	}
	return ids, last, nil
}

// termChunk reads users of the clause after the cursor, in the order of IDs.
func (l *lister) termChunk(r *reader) error {
	missing := l.query.MaxUsers - len(l.page.Users) + 1
	ids, last, err := r.terms.users(l.clause, l.id(), l.query.Desc, min(chunkRows, max(missing, minPostings)))
	if err != nil {
		return err
	}
	bytes := 0
	for _, id := range ids {
		if l.done || bytes >= chunkBytes {
			return nil
		}
		size, err := r.listed(id, l.add)
		if err != nil {
			return err
		}
		bytes += size
	}
	l.endIf(last)
	return nil
}

// endIf ends the list if it is not done and there are no more users.
func (l *lister) endIf(last bool) {
	if last && !l.done {
		l.done, l.page.Next = true, nil
	}
}

// listed calls visit with the row of a user, if it exists, and returns the size of the row.
func (r *reader) listed(id int64, visit func(row []driver.Value) error) (size int, err error) {
	err = r.terms.user.each(func(row []driver.Value) (bool, error) {
		size = rowBytes(row)
		return false, visit(row)
	}, id)
	return size, err
}

// sorted is the state of a list whose users are sorted in memory. Only their cursors are kept.
type sorted struct {
	found   bool
	ids     []int64            // candidates not read yet
	cursors []*user.ListCursor // of the matching users not returned yet
}

// sortedChunk reads the candidates after the cursor, then sorts and returns them.
func (l *lister) sortedChunk(r *reader) (err error) {
	s := &l.sorted
	if !s.found {
		if s.ids, err = r.allUsers(l.clause); err != nil {
			return err
		}
		s.found = true
	}
	for n, bytes := 0, 0; len(s.ids) > 0; n++ {
		if n == chunkRows || bytes >= chunkBytes {
			return nil
		}
		size, err := r.listed(s.ids[0], l.addCandidate)
		if err != nil {
			return err
		}
		bytes += size
		if s.ids = s.ids[1:]; len(s.ids) == 0 {
			slices.SortFunc(s.cursors, l.compare)
		}
	}
	for n, bytes := 0, 0; len(s.cursors) > 0 && !l.done; n++ {
		if n == chunkRows || bytes >= chunkBytes {
			return nil
		}
		next := s.cursors[0]
		size, err := r.listed(next.ID, func(row []driver.Value) error {
			if cursor, _, err := l.decode(row); err != nil || l.compare(cursor, next) != 0 {
				return err // the user has moved in the order
			}
			return l.add(row)
		})
		if err != nil {
			return err
		}
		bytes += size
		s.cursors = s.cursors[1:]
	}
	l.endIf(true)
	return nil
}

// allUsers returns the users of a clause that were few when the list was planned.
func (r *reader) allUsers(clause []int64) (ids []int64, err error) {
	for last := false; !last; {
		after := int64(math.MinInt64)
		if len(ids) > 0 {
			after = ids[len(ids)-1]
		}
		var more []int64
		if more, last, err = r.terms.users(clause, after, false, 2*maxSorted); err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	return ids, nil
}

// addCandidate keeps the cursor of a user that is part of the rest of the list.
func (l *lister) addCandidate(row []driver.Value) error {
	cursor, matches, err := l.decode(row)
	if err == nil && matches && (l.cursor == nil || l.compare(cursor, l.cursor) > 0) && strings.HasPrefix(cursor.Key, l.query.Prefix) {
		l.sorted.cursors = append(l.sorted.cursors, cursor)
	}
	return err
}

// decode returns the cursor of a row, and whether the user is selected.
func (l *lister) decode(row []driver.Value) (cursor *user.ListCursor, matches bool, err error) {
	u, err := scanUser(row)
	if err != nil {
		return nil, false, err
	}
	keys := user.Keys{Username: asText(row[userColumnCount]), Email: asText(row[userColumnCount+1])}
	return l.cursorOf(u, keys), l.selects(u, keys), nil
}

// compare compares cursors in the order of the list.
func (l *lister) compare(a, b *user.ListCursor) int {
	order := cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Position, b.Position), cmp.Compare(a.ID, b.ID))
	if l.query.Desc {
		return -order
	}
	return order
}
