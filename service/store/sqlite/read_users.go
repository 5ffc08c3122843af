package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/yourorg/userservice/service/user"
)

const statusQuery = "SELECT status, status_time, status_position, deleted_at IS NOT NULL FROM users WHERE user_id = ?"

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
	err := s.eachID(ctx, ids, func(r *reader, id int64) (size int, err error) {
		u, err := r.get.oneUser(id)
		if err != nil || u == nil {
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
	err := s.eachID(ctx, ids, func(r *reader, id int64) (size int, err error) {
		row, err := r.status.one(id)
		if err != nil || row == nil {
			return 0, err
		}
		statuses = append(statuses, user.CurrentStatus{
			UserID: id, Status: user.Status(asNumber(row[0])), Time: asTime(row[1]),
			Position: asNumber(row[2]), Deleted: asNumber(row[3]) != 0,
		})
		return 0, nil
	})
	if err != nil {
		return nil, err
	}
	return statuses, nil
}

// eachID calls visit for each ID: in a point read for a few IDs, otherwise in a scan. visit
// returns the size of the data it has read.
func (s *Store) eachID(ctx context.Context, ids []int64, visit func(r *reader, id int64) (size int, err error)) error {
	chunk := func(r *reader) (last bool, err error) {
		bytes := 0
		for n := 0; len(ids) > 0 && n < chunkRows && bytes < chunkBytes; n++ {
			size, err := visit(r, ids[0])
			if err != nil {
				return false, err
			}
			bytes += size
			ids = ids[1:]
		}
		return len(ids) == 0, nil
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
