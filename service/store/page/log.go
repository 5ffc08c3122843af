package page

import (
	"slices"

	"github.com/yourorg/userservice/service/user"
)

// maxLogScan limits the rows scanned for a page with an action filter.
const maxLogScan = 10_000

// Log is a page of the log that is being read, possibly in chunks.
type Log struct {
	Query user.LogQuery // After and Before are the bounds of the remaining rows
	Page  user.LogPage
	Limit int // rows to scan
	Left  int // rows left to scan

	bytes int
}

// NewLog returns a page of which nothing was read, of a log with a first retained row and a head. The page ends at the
// head.
func NewLog(query user.LogQuery, first, head int64) *Log {
	if query.Retained {
		query.After = first - 1
	}
	l := &Log{Query: query, Limit: maxLogScan}
	l.Query.Before = head + 1
	if query.Before > 0 {
		l.Query.Before = min(l.Query.Before, query.Before)
	}
	if query.MaxScanned > 0 {
		l.Limit = min(l.Limit, query.MaxScanned)
	}
	if len(query.Actions) == 0 {
		l.Limit = min(l.Limit, query.MaxRows)
	}
	l.Left = l.Limit
	l.Page.Reached = query.After
	if query.Desc {
		l.Page.Reached = l.Query.Before
	}
	return l
}

// Full reports whether the page has no room for a further row.
func (l *Log) Full() bool {
	return len(l.Page.Rows) == l.Query.MaxRows || l.Left == 0 || l.Query.MaxBytes > 0 && l.bytes >= l.Query.MaxBytes
}

// Selects reports whether the page contains rows with an action.
func (l *Log) Selects(action string) bool {
	return len(l.Query.Actions) == 0 || slices.Contains(l.Query.Actions, action)
}

// InOrder reports whether the row at a position is after those read.
func (l *Log) InOrder(position int64) bool {
	return l.Query.Desc && position < l.Page.Reached || !l.Query.Desc && position > l.Page.Reached
}

// Append adds a row that the page selects, with details of a total length, see user.Activity.DetailBytes.
func (l *Log) Append(row user.Activity, detailBytes int) {
	l.Page.Rows = append(l.Page.Rows, row)
	l.bytes += detailBytes
}

// Reach records that the row at a position was read.
func (l *Log) Reach(position int64) {
	l.Left--
	l.Page.Reached = position
	if l.Query.Desc {
		l.Query.Before = position
	} else {
		l.Query.After, l.Query.Retained = position, false
	}
}

// End records that there are no more rows.
func (l *Log) End() {
	l.Page.Done = true
	l.Page.Reached = max(l.Query.After, l.Query.Before-1)
	if l.Query.Desc {
		l.Page.Reached = l.Query.After + 1
	}
}
