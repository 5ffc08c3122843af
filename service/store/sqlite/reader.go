package sqlite

import (
	"context"
	"errors"
)

// reader is a read-only connection with its prepared statements.
type reader struct {
	conn *conn
	get  *stmt
	// getMany and statuses have a JSON array of ids.
	getMany, statuses *stmt

	logAll  [2]*stmt // ascending, descending
	logUser [2]*stmt
	timeAt  *stmt
	due     *stmt
	lists   [len(listQueries)]*stmt
	// listedUser is a user of a list.
	listedUser *stmt
	candidates candidateReader
	// countEntries counts entries of the index.
	countEntries *stmt
	// begin and commit delimit a read transaction, head is the head of the log.
	begin, commit, head *stmt
}

func newReader(ctx context.Context, path string) (*reader, error) {
	c, err := connect(ctx, dsn(path, readerCacheKiB, "query_only(ON)"))
	if err != nil {
		return nil, err
	}
	r := &reader{conn: c}
	r.get = c.prepare(&err, "SELECT "+userColumns+" FROM users WHERE user_id = ?")
	r.getMany = c.prepare(&err, usersQuery)
	r.statuses = c.prepare(&err, statusQuery)
	r.logAll[0] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position > ? AND position < ? ORDER BY position LIMIT ?")
	r.logAll[1] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position > ? AND position < ? ORDER BY position DESC LIMIT ?")
	r.logUser[0] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE user_id = ? AND position > ? AND position < ? ORDER BY position LIMIT ?")
	r.logUser[1] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE user_id = ? AND position > ? AND position < ? ORDER BY position DESC LIMIT ?")
	r.timeAt = c.prepare(&err, "SELECT time FROM log WHERE position = ?")
	r.due = c.prepare(&err, dueQuery)
	r.listedUser = c.prepare(&err, listSelect+"WHERE user_id = ?")
	r.candidates = newCandidateReader(&err, c)
	r.countEntries = c.prepare(&err, countEntries)
	r.begin, r.commit = c.prepare(&err, "BEGIN"), c.prepare(&err, "COMMIT")
	r.head = c.prepare(&err, "SELECT position FROM meta")
	for i, query := range listQueries {
		r.lists[i] = c.prepare(&err, query)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return r, nil
}

// snapshot runs f in a read transaction.
func (r *reader) snapshot(f func() error) (err error) {
	if err := r.begin.exec(); err != nil {
		return err
	}
	defer func() {
		if failure := r.commit.exec(); err == nil {
			err = failure
		}
	}()
	return f()
}
