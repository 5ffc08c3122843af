package sqlite

import (
	"cmp"
	"database/sql/driver"
	"math"
	"slices"

	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/user"
)

// maxSorted is the largest number of users with a condition that are sorted in memory.
const maxSorted = 1000

// gapEntries is the number of entries of the index from which the frequency of a part of a conjunction is estimated.
const gapEntries = 64

// Candidates are the first users of a condition or a range.
const (
	termCandidates     = "SELECT rowid FROM terms WHERE terms MATCH ? ORDER BY rowid LIMIT ?"
	activityCandidates = "SELECT user_id FROM users WHERE last_activity_id > ? AND last_activity_id < ? LIMIT ?"
	createdCandidates  = "SELECT user_id FROM users WHERE created_at >= ? AND created_at < ? LIMIT ?"
)

// candidateReader has the statements that read candidates.
type candidateReader struct{ terms, activity, created *stmt }

func newCandidateReader(err *error, c *conn) candidateReader {
	return candidateReader{c.prepare(err, termCandidates), c.prepare(err, activityCandidates), c.prepare(err, createdCandidates)}
}

// source is what a list reads.
type source int

const (
	notPlanned source = iota
	fromOrder         // the index of its order
	fromTerms         // the index of terms, in the order of IDs
	fromSorted        // the few users of the index of terms, sorted in memory
)

// plan chooses the source. The users of a range or a condition that are not contiguous in the order are sorted if
// they are few; otherwise the index of the order is scanned, or that of terms for the order by ID.
func (l *lister) plan(r *reader) error {
	q := &l.Query
	if q.Where != nil {
		where, err := r.candidates.rarestFirst(*q.Where)
		if err != nil {
			return err
		}
		l.match = indexQuery(&where)
	}
	after, before := l.Positions()
	from, until := page.Micros(q.Created)
	for _, c := range []struct {
		use   bool
		query *stmt
		args  []driver.Value
	}{
		{q.AfterActivity+q.BeforeActivity > 0 && q.Order != user.ByLastActivity, r.candidates.activity, []driver.Value{after, before}},
		{q.Created != user.TimeRange{} && q.Order != user.ByCreated, r.candidates.created, []driver.Value{from, until}},
		{q.Where != nil && q.Order != user.ByID, r.candidates.terms, []driver.Value{l.match}},
	} {
		if !c.use {
			continue
		}
		ids, err := c.query.ids(append(c.args, int64(maxSorted+1))...)
		if err != nil {
			return err
		}
		if len(ids) <= maxSorted {
			l.source, l.sorted.ids = fromSorted, ids
			return nil
		}
	}
	l.source = fromOrder
	if q.Where != nil && q.Order == user.ByID {
		l.source = fromTerms
	}
	return nil
}

// rarestFirst sorts the parts of a conjunction: the users of the first one are compared with the others.
func (r *candidateReader) rarestFirst(c user.Condition) (user.Condition, error) {
	gaps := make([]uint64, len(c.All))
	order := make([]int, len(c.All))
	for i := range c.All {
		ids, err := r.terms.ids(indexQuery(&c.All[i]), int64(gapEntries))
		if err != nil {
			return c, err
		}
		order[i], gaps[i] = i, math.MaxUint64
		if len(ids) == gapEntries {
			gaps[i] = uint64(ids[len(ids)-1] - ids[0]) //nolint:gosec,nolintlint // the IDs ascend
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(gaps[b], gaps[a]) })
	sorted := make([]user.Condition, len(order))
	for i, part := range order {
		sorted[i] = c.All[part]
	}
	if len(sorted) > 0 {
		c.All = sorted
	}
	return c, nil
}

// ids returns the integers in the first column.
func (s *stmt) ids(args ...driver.Value) (ids []int64, err error) {
	err = s.each(func(row []driver.Value) (bool, error) {
		ids = append(ids, asNumber(row[0]))
		return true, nil
	}, args...)
	return ids, err
}

// listed calls visit with the row of a user, if it exists, and returns the size of the row.
func (r *reader) listed(id int64, visit func(row []driver.Value) error) (size int, err error) {
	err = r.listedUser.each(func(row []driver.Value) (bool, error) {
		size = rowBytes(row)
		return false, visit(row)
	}, id)
	return size, err
}

// sorted is the state of a list whose users are sorted in memory. Only their cursors are kept.
type sorted struct {
	ids     []int64            // candidates not read yet
	cursors []*user.ListCursor // of the matching users not returned yet
}

// sortedChunk reads the candidates after the cursor, then sorts and returns them.
func (l *lister) sortedChunk(r *reader) error {
	s := &l.sorted
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
			slices.SortFunc(s.cursors, l.Compare)
		}
	}
	for n, bytes := 0, 0; len(s.cursors) > 0 && !l.Done; n++ {
		if n == chunkRows || bytes >= chunkBytes {
			return nil
		}
		next := s.cursors[0]
		size, err := r.listed(next.ID, func(row []driver.Value) error {
			u, keys, err := scanListed(row)
			if err != nil || l.Compare(l.CursorOf(u, keys), next) != 0 {
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
	l.End()
	return nil
}

// addCandidate keeps the cursor of a user that is part of the rest of the list.
func (l *lister) addCandidate(row []driver.Value) error {
	u, keys, err := scanListed(row)
	if err != nil {
		return err
	}
	if cursor := l.Rest(u, keys); cursor != nil {
		l.sorted.cursors = append(l.sorted.cursors, cursor)
	}
	return nil
}
