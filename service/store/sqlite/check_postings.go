package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
)

// postings checks that the postings are those of the users, in one read transaction. A store that has not
// been opened since it has postings may have those of a part of the users only.
func (k *checker) postings(ctx context.Context) (err error) {
	if err := k.conn.run("BEGIN"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.conn.run("COMMIT")) }()
	indexed, stored := int64(0), int64(0)
	err = k.conn.rows("SELECT indexed, (SELECT count(*) FROM postings) FROM meta", func(row []driver.Value) error {
		indexed, stored = asNumber(row[0]), asNumber(row[1])
		return nil
	})
	if err != nil {
		return err
	}
	want, err := k.userPostings(ctx, indexed)
	if err == nil && indexed == allIndexed && stored != want {
		err = k.found("postings: %d entries, the users have %d terms", stored, want)
	}
	return err
}

// userPostings checks that the users up to an ID have their postings, and returns the number of these.
func (k *checker) userPostings(ctx context.Context, upTo int64) (want int64, err error) {
	users := k.conn.prepare(&err, "SELECT "+userColumns+" FROM users WHERE user_id > ? AND user_id <= ? ORDER BY user_id LIMIT ?")
	posting := k.conn.prepare(&err, "SELECT 1 FROM postings WHERE term = ? AND user_id = ?")
	if err != nil {
		return 0, err
	}
	id := int64(0)
	for more := true; more; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		more = false
		err := users.each(func(row []driver.Value) (bool, error) {
			more = true
			id = asNumber(row[0])
			u, err := scanUser(row)
			if err != nil {
				return true, nil //nolint:nilerr // found by users
			}
			for _, term := range termHashes(u) {
				want++
				if _, ok, err := posting.number(term, id); err != nil {
					return false, err
				} else if !ok {
					return true, k.found("user %d: not in the postings of each of its terms", id)
				}
			}
			return true, nil
		}, id, upTo, int64(checkChunk))
		if err != nil {
			return 0, err
		}
	}
	return want, nil
}
