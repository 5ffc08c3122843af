package sqlite

import (
	"context"
	"database/sql/driver"
	"strconv"

	"github.com/yourorg/userservice/service/user"
)

// The users of a JSON array of ids that exist, in its order, each after its index in the array: SQLite
// does not change the order of a CROSS JOIN.
var (
	ofIDs       = " FROM json_each(?) AS ids CROSS JOIN users ON users.user_id = ids.value"
	usersQuery  = "SELECT ids.key, " + userColumns + ofIDs
	statusQuery = "SELECT ids.key, user_id, status, status_time, status_position, deleted_at IS NOT NULL" + ofIDs
)

const dueQuery = "SELECT user_id FROM users WHERE purge_at <= ? ORDER BY purge_at LIMIT ?"

// oneUser returns a user, or nil.
func (s *stmt) oneUser(arg driver.Value) (*user.User, error) {
	row, err := s.one(arg)
	if err != nil || row == nil {
		return nil, err
	}
	return scanUser(row)
}

// Get implements user.Store.
func (s *Store) Get(ctx context.Context, id int64) (*user.User, error) {
	cached, transactions := s.users.get(id)
	if cached != nil {
		return cached, nil
	}
	u, err := read(ctx, s.pool, func(r *reader) (*user.User, error) {
		u, err := r.get.oneUser(id)
		if err != nil {
			return nil, err
		}
		if u == nil {
			return nil, user.NewNotFoundError(id)
		}
		return u, nil
	})
	if err == nil {
		s.users.add(u, transactions)
	}
	return u, err
}

// GetMany implements user.Store.
func (s *Store) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	users := make([]*user.User, 0, len(ids))
	query := func(r *reader) *stmt { return r.getMany }
	err := s.eachOf(ctx, ids, query, func(row []driver.Value) (size int, err error) {
		u, err := scanUser(row)
		if err != nil {
			return 0, err
		}
		users = append(users, u)
		return u.Size(), nil
	})
	if err != nil {
		return nil, err
	}
	return users, nil
}

// Statuses implements user.Store.
func (s *Store) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	statuses := make([]user.CurrentStatus, 0, len(ids))
	query := func(r *reader) *stmt { return r.statuses }
	err := s.eachOf(ctx, ids, query, func(row []driver.Value) (size int, err error) {
		statuses = append(statuses, user.CurrentStatus{
			UserID: asNumber(row[0]), Status: user.Status(asNumber(row[1])), Time: asTime(row[2]),
			Position: asNumber(row[3]), Deleted: asNumber(row[4]) != 0,
		})
		return 0, nil
	})
	if err != nil {
		return nil, err
	}
	return statuses, nil
}

// eachOf calls visit for the row of each user that exists: in a point read for a few ids, otherwise in a scan.
// visit returns the size of the data it has read.
func (s *Store) eachOf(ctx context.Context, ids []int64, query func(*reader) *stmt, visit func(row []driver.Value) (size int, err error)) error {
	chunk := func(r *reader) (last bool, err error) {
		part := ids[:min(len(ids), chunkRows)]
		bytes, done := 0, 0
		err = query(r).each(func(row []driver.Value) (bool, error) {
			size, err := visit(row[1:])
			if err != nil {
				return false, err
			}
			bytes += size
			done = int(asNumber(row[0])) + 1
			return bytes < chunkBytes, nil
		}, jsonArray(part))
		if err == nil && bytes < chunkBytes {
			done = len(part)
		}
		ids = ids[done:] // after an error too: the chunk may be read again
		return len(ids) == 0, err
	}
	if len(ids) > shortRead {
		return scan(ctx, s.pool, chunk)
	}
	_, err := read(ctx, s.pool, func(r *reader) (none struct{}, err error) {
		for last := false; !last && err == nil; {
			last, err = chunk(r)
		}
		return none, err
	})
	return err
}

func jsonArray(ids []int64) string {
	text := append(make([]byte, 0, 8+20*len(ids)), '[')
	for i, id := range ids {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, id, 10)
	}
	return string(append(text, ']'))
}

// DuePurges implements user.Store. The earliest purge times are first.
func (s *Store) DuePurges(ctx context.Context, limit int) ([]int64, error) {
	due := s.clock.Now().Earliest
	var ids []int64
	err := scan(ctx, s.pool, func(r *reader) (last bool, err error) {
		ids = ids[:0]
		return true, r.due.each(func(row []driver.Value) (bool, error) {
			ids = append(ids, asNumber(row[0]))
			return true, nil
		}, due.UnixMicro(), int64(limit))
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}
