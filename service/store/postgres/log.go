package postgres

import (
	"context"
	"sort"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/page"
	"github.com/yourorg/userservice/service/user"
)

const logColumns = "position, user_id, time, action, details"

// eachRow calls visit with rows of the log, without their details, and the encoded details.
func eachRow(rows pgx.Rows, visit func(row user.Activity, details []byte) error) error {
	defer rows.Close()
	for rows.Next() {
		var row user.Activity
		var micros int64
		var details []byte
		if err := rows.Scan(&row.Position, &row.UserID, &micros, &row.Action, &details); err != nil {
			return err
		}
		row.Time = encoding.FromMicros(micros)
		if err := visit(row, details); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Log implements user.Store. A page ends at the head known when Log was called. Rows are only added at
// the end and deleted at the start, so chunks are consistent without a read transaction.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	l := page.NewLog(query, s.first.Load(), s.feed.head.Load().Position)
	for done := false; !done; {
		read := func() (err error) {
			done, err = s.logChunk(ctx, l)
			return err
		}
		var err error
		if l.Limit <= shortRead {
			err = read()
		} else {
			err = s.scan(ctx, read)
		}
		if err != nil {
			return user.LogPage{}, err
		}
	}
	return l.Page, nil
}

// logChunk reads the next rows. It reads one row more than it may scan, to detect the end.
func (s *Store) logChunk(ctx context.Context, l *page.Log) (last bool, err error) {
	want := min(l.Left+1, chunkRows)
	query := l.Query
	statement, args := logStatement(&query, want)
	var rows []logRow
	var cut bool
	var first, position int64
	err = s.read(ctx, false, func(b *pgx.Batch) {
		b.Queue("SELECT position FROM meta").QueryRow(func(row pgx.Row) error { return row.Scan(&position) })
		b.Queue(statement, args...).Query(func(read pgx.Rows) error {
			bytes := 0
			rows, cut = nil, false
			return eachRow(read, func(row user.Activity, details []byte) error {
				if cut = cut || bytes >= chunkBytes; !cut {
					bytes += len(details)
					rows = append(rows, logRow{row, details})
				}
				return nil
			})
		})
		b.Queue("SELECT first FROM meta").QueryRow(func(row pgx.Row) error { return row.Scan(&first) })
	})
	if err != nil {
		return false, err
	}
	advance(&s.first, first)
	if err := s.checkRetained(&query); err != nil {
		return false, err
	}
	for i := range rows {
		if l.Full() {
			return true, nil
		}
		if err := rows[i].appendTo(l); err != nil {
			return false, err
		}
	}
	if len(rows) == want || cut {
		return false, nil
	}
	l.Query.Before = min(l.Query.Before, position+1) // the head of this node is ahead of a database that lost commits
	l.End()
	return true, nil
}

// logRow is a row with its encoded details.
type logRow struct {
	row     user.Activity
	details []byte
}

// appendTo appends the row to a page, if that selects it.
func (r *logRow) appendTo(l *page.Log) error {
	if l.Selects(r.row.Action) {
		details, bytes, err := encoding.DecodeDetails(r.details)
		if err != nil {
			return err
		}
		r.row.Details = details
		l.Append(r.row, bytes)
	}
	l.Reach(r.row.Position)
	return nil
}

func logStatement(query *user.LogQuery, limit int) (statement string, args []any) {
	statement, args = "SELECT "+logColumns+" FROM log WHERE position > $1 AND position < $2", []any{query.After, query.Before}
	if query.UserID != 0 {
		statement += " AND user_id = $3"
		args = append(args, query.UserID)
	}
	statement += " ORDER BY position"
	if query.Desc {
		statement += " DESC"
	}
	return statement + " LIMIT $" + strconv.Itoa(len(args)+1), append(args, limit)
}

// checkRetained returns an error if rows after query.After may have been pruned before the query read
// them. It must be called after the read of the rows and then of the oldest position.
func (s *Store) checkRetained(query *user.LogQuery) error {
	if first := s.first.Load(); !query.Retained && query.After+1 < first {
		return user.NewRowsPrunedError(s.epoch, first, s.feed.head.Load().Position)
	}
	return nil
}

// First implements user.Store.
func (s *Store) First(ctx context.Context) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return s.first.Load(), nil
}

// Before implements user.Store by binary search: times do not decrease along the log, and
// positions have no gap. A row that is pruned during the search counts as before t.
func (s *Store) Before(ctx context.Context, t time.Time) (int64, error) {
	head := *s.feed.head.Load()
	if head.Position == 0 || head.Time.Before(t) {
		return head.Position, nil
	}
	first := s.first.Load()
	var err error
	n := sort.Search(int(max(0, head.Position-first+1)), func(i int) bool {
		if err != nil {
			return true
		}
		var times []int64
		times, err = s.ids64(ctx, "SELECT time FROM log WHERE position = $1", first+int64(i))
		return len(times) > 0 && !time.UnixMicro(times[0]).Before(t)
	})
	if err != nil {
		return 0, err
	}
	return first + int64(n) - 1, nil
}
