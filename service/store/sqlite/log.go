package sqlite

import (
	"context"
	"database/sql/driver"
	"slices"
	"sort"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// maxLogScan limits the rows scanned for a page with an action filter.
const maxLogScan = 10_000

const logColumns = "position, user_id, time, action, details"

func scanRow(row []driver.Value) (user.Activity, error) {
	details, err := decodeMap(asBlob(row[4]))
	return user.Activity{
		Position: asNumber(row[0]), UserID: asNumber(row[1]), Time: fromMicros(asNumber(row[2])),
		Action: asText(row[3]), Details: details,
	}, err
}

// Log implements user.Store. A page ends at the head known when Log was called. Rows are only added at
// the end and deleted at the start, so chunks are consistent without a read transaction.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	l := s.newLogReader(query)
	var err error
	if l.limit <= shortRead {
		_, err = read(ctx, s.pool, func(r *reader) (none struct{}, err error) {
			for last := false; !last && err == nil; {
				last, err = l.chunk(r)
			}
			return none, err
		})
	} else {
		err = scan(ctx, s.pool, l.chunk)
	}
	if err != nil {
		return user.LogPage{}, err
	}
	return l.page, nil
}

// logReader reads a page of the log in chunks.
type logReader struct {
	store *Store
	query user.LogQuery // After and Before are the bounds of the remaining rows
	page  user.LogPage
	limit int // rows to scan
	left  int // rows left to scan
	bytes int
}

func (s *Store) newLogReader(query user.LogQuery) *logReader {
	if query.Retained {
		query.After = s.first.Load() - 1
	}
	l := &logReader{store: s, query: query, limit: maxLogScan}
	l.query.Before = s.head.Load().Position + 1
	if query.Before > 0 {
		l.query.Before = min(l.query.Before, query.Before)
	}
	if query.MaxScanned > 0 {
		l.limit = min(l.limit, query.MaxScanned)
	}
	if len(query.Actions) == 0 {
		l.limit = min(l.limit, query.MaxRows)
	}
	l.left = l.limit
	l.page.Reached = query.After
	if query.Desc {
		l.page.Reached = l.query.Before
	}
	return l
}

// chunk reads the next rows. It reads one row more than it may scan, to detect the end.
func (l *logReader) chunk(r *reader) (last bool, err error) {
	want := min(l.left+1, chunkRows)
	got, bytes, full, query := 0, 0, false, l.query
	err = queryLog(r, &l.query, int64(want), func(row []driver.Value) (bool, error) {
		if full = l.full(); full {
			return false, nil
		}
		got++
		bytes += len(asBlob(row[4])) // details
		err := l.add(row)
		return bytes < chunkBytes, err
	})
	if err == nil {
		err = l.store.checkRetained(&query)
	}
	if err != nil || full {
		return full, err
	}
	if got == want || bytes >= chunkBytes {
		return false, nil
	}
	l.page.Done = true
	l.page.Reached = max(l.query.After, l.query.Before-1)
	if l.query.Desc {
		l.page.Reached = l.query.After + 1
	}
	return true, nil
}

func (l *logReader) full() bool {
	return len(l.page.Rows) == l.query.MaxRows || l.left == 0 || l.query.MaxBytes > 0 && l.bytes >= l.query.MaxBytes
}

// add adds a row to the page.
func (l *logReader) add(row []driver.Value) error {
	position := asNumber(row[0])
	if l.query.Desc && position >= l.page.Reached || !l.query.Desc && position <= l.page.Reached {
		return disorderError{"log rows"}
	}
	if len(l.query.Actions) == 0 || slices.Contains(l.query.Actions, asText(row[3])) {
		activity, err := scanRow(row)
		if err != nil {
			return err
		}
		l.page.Rows = append(l.page.Rows, activity)
		l.bytes += activity.DetailBytes()
	}
	l.left--
	l.page.Reached = position
	if l.query.Desc {
		l.query.Before = position
	} else {
		l.query.After, l.query.Retained = position, false
	}
	return nil
}

// checkRetained returns an error if rows after query.After may have been pruned before the query read
// them. It must be called after the read: Prune advances first before its deletions are visible.
func (s *Store) checkRetained(query *user.LogQuery) error {
	if first := s.first.Load(); !query.Retained && query.After+1 < first {
		return user.NewRowsPrunedError(s.epoch, first, s.head.Load().Position)
	}
	return nil
}

func queryLog(r *reader, query *user.LogQuery, limit int64, visit func([]driver.Value) (bool, error)) error {
	direction := 0
	if query.Desc {
		direction = 1
	}
	if query.UserID == 0 {
		return r.logAll[direction].each(visit, query.After, query.Before, limit)
	}
	return r.logUser[direction].each(visit, query.UserID, query.After, query.Before, limit)
}

// First implements user.Store.
func (s *Store) First(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	return s.first.Load(), nil
}

// Before implements user.Store by binary search: times do not decrease along the log, and
// positions have no gap. A row that is pruned during the search counts as before t.
func (s *Store) Before(ctx context.Context, t time.Time) (int64, error) {
	head := *s.head.Load()
	if head.Position == 0 || head.Time.Before(t) {
		return head.Position, nil
	}
	first, n := s.first.Load(), 0
	err := scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		n = sort.Search(int(max(0, head.Position-first+1)), func(i int) bool {
			if err != nil {
				return true
			}
			var at int64
			at, _, err = r.timeAt.number(first + int64(i))
			return !time.UnixMicro(at).Before(t)
		})
		return true, err
	})
	if err != nil {
		return 0, err
	}
	return first + int64(n) - 1, nil
}
