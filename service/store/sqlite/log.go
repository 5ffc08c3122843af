package sqlite

import (
	"context"
	"database/sql/driver"
	"slices"
	"sort"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// maxLogLooked bounds the rows of one page's read when a filter leaves most out.
const maxLogLooked = 10_000

const logColumns = "position, user_id, time, action, details"

func scanRow(row []driver.Value) (user.Activity, error) {
	details, err := decodeMap(asBlob(row[4]))
	return user.Activity{
		Position: asNumber(row[0]), UserID: asNumber(row[1]), Time: moment(asNumber(row[2])),
		Action: asText(row[3]), Details: details,
	}, err
}

// Log returns a page of the log. The instant of the page is the head that was known
// when it began: the log only grows, so the rows up to there are what it was then,
// and no transaction has to hold it still.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	head := s.head.Load().Position
	return read(ctx, s.pool, func(r *reader) (user.LogPage, error) { return readLog(r, query, head) })
}

func readLog(r *reader, query user.LogQuery, head int64) (user.LogPage, error) {
	before := head + 1
	if query.Before > 0 {
		before = min(before, query.Before)
	}
	limit := maxLogLooked
	if query.MaxLooked > 0 {
		limit = min(limit, query.MaxLooked)
	}
	if len(query.Actions) == 0 {
		limit = min(limit, query.MaxRows)
	}
	var page user.LogPage
	page.Reached = query.After
	if query.Desc {
		page.Reached = before
	}
	looked, bytes, full := 0, 0, false
	visit := func(row []driver.Value) (bool, error) {
		full = len(page.Rows) == query.MaxRows || looked == limit || query.MaxBytes > 0 && bytes >= query.MaxBytes
		if full {
			return false, nil
		}
		looked++
		position := asNumber(row[0])
		if query.Desc && position >= page.Reached || !query.Desc && position <= page.Reached {
			return false, disorderError{"log rows"}
		}
		page.Reached = position
		if len(query.Actions) > 0 && !slices.Contains(query.Actions, asText(row[3])) {
			return true, nil
		}
		activity, err := scanRow(row)
		page.Rows = append(page.Rows, activity)
		bytes += activity.DetailBytes()
		return true, err
	}
	// One row more than is wanted tells whether there is more.
	if err := queryLog(r, query, before, int64(limit)+1, visit); err != nil {
		return user.LogPage{}, err
	}
	if page.Done = !full; page.Done {
		page.Reached = max(query.After, before-1)
		if query.Desc {
			page.Reached = query.After + 1
		}
	}
	return page, nil
}

func queryLog(r *reader, query user.LogQuery, before, limit int64, visit func([]driver.Value) (bool, error)) error {
	direction := 0
	if query.Desc {
		direction = 1
	}
	if query.UserID == 0 {
		return r.logAll[direction].each(visit, query.After, before, limit)
	}
	return r.logUser[direction].each(visit, query.UserID, query.After, before, limit)
}

// First returns the position of the oldest row kept.
func (s *Store) First(ctx context.Context) (int64, error) {
	return read(ctx, s.pool, func(r *reader) (int64, error) {
		position, ok, err := r.first.number()
		if err != nil {
			return 0, err
		}
		if !ok {
			return 1, nil
		}
		return position, nil
	})
}

// Before returns the position of the last row whose time is before t. Times never
// go back along the log and positions have no gap, so halving finds it.
func (s *Store) Before(ctx context.Context, t time.Time) (int64, error) {
	head := *s.head.Load()
	if head.Position == 0 || head.Time.Before(t) {
		return head.Position, nil
	}
	first, err := s.First(ctx)
	if err != nil {
		return 0, err
	}
	return read(ctx, s.pool, func(r *reader) (int64, error) {
		var err error
		n := sort.Search(int(head.Position-first+1), func(i int) bool {
			if err != nil {
				return true
			}
			var at int64
			at, _, err = r.timeAt.number(first + int64(i))
			return !time.UnixMicro(at).Before(t)
		})
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, nil
		}
		return first + int64(n) - 1, nil
	})
}
