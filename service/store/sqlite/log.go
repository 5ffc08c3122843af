package sqlite

import (
	"context"
	"database/sql/driver"
	"sort"
	"time"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/user"
)

const logColumns = "position, user_id, time, action, details"

func scanRow(row []driver.Value) (user.Activity, error) {
	activity, _, err := scanSized(row)
	return activity, err
}

// scanSized also returns the total length of the details.
func scanSized(row []driver.Value) (activity user.Activity, detailBytes int, err error) {
	details, detailBytes, err := encoding.DecodeDetails(asBlob(row[4]))
	return user.Activity{
		Position: asNumber(row[0]), UserID: asNumber(row[1]), Time: encoding.FromMicros(asNumber(row[2])),
		Action: asText(row[3]), Details: details,
	}, detailBytes, err
}

// Log implements user.Store. A page ends at the head known when Log was called. Rows are only added at
// the end and deleted at the start, so chunks are consistent without a read transaction.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	l := s.newLogReader(query)
	var err error
	if l.Limit <= shortRead {
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
	return l.Page, nil
}

// logReader reads a page of the log in chunks.
type logReader struct {
	*page.Log

	store *Store
}

func (s *Store) newLogReader(query user.LogQuery) *logReader {
	return &logReader{page.NewLog(query, s.first.Load(), s.head.Load().Position), s}
}

// chunk reads the next rows. It reads one row more than it may scan, to detect the end.
func (l *logReader) chunk(r *reader) (last bool, err error) {
	want := min(l.Left+1, chunkRows)
	got, bytes, full, query := 0, 0, false, l.Query
	err = queryLog(r, &query, int64(want), func(row []driver.Value) (bool, error) {
		if full = l.Full(); full {
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
	l.End()
	return true, nil
}

// add adds a row to the page.
func (l *logReader) add(row []driver.Value) error {
	position := asNumber(row[0])
	if !l.InOrder(position) {
		return disorderError{"log rows"}
	}
	if l.Selects(asText(row[3])) {
		activity, detailBytes, err := scanSized(row)
		if err != nil {
			return err
		}
		l.Append(activity, detailBytes)
	}
	l.Reach(position)
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
