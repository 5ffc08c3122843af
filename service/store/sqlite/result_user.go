package sqlite

import (
	"database/sql/driver"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// The users of large stored results are rows of request_users, one for each state of a user. A row has the
// whole user, or its difference from the row before: a small request that changes a large user stores little.
// The rows from a whole user to the one before the next whole user expire together.

const (
	// largeUserBytes is the size above which the user of a result is stored in request_users.
	largeUserBytes = 1 << 10
	// maxDifferences bounds the rows read to restore a user.
	maxDifferences = 256
)

// sharedUsers has the statements of request_users.
type sharedUsers struct{ newest, until, put *stmt }

func newSharedUsers(err *error, c *conn) sharedUsers {
	const table, order = " FROM request_users WHERE user_id = ?", " ORDER BY version DESC, status_time DESC"
	return sharedUsers{
		newest: c.prepare(err, "SELECT version, status_time, kept_until"+table+order+" LIMIT 1"),
		until:  c.prepare(err, "SELECT version, status_time, answer"+table+" AND (version, status_time) <= (?, ?)"+order),
		put:    c.prepare(err, "INSERT OR REPLACE INTO request_users (user_id, version, status_time, kept_until, answer) VALUES (?, ?, ?, ?, ?)"),
	}
}

// save stores the state of a user until the results that may refer to it expire.
func (s *sharedUsers) save(w *writer, u *user.User) error {
	row, err := s.newest.one(u.ID)
	if err != nil {
		return err
	}
	if len(row) == 0 {
		return s.saveWhole(w, u)
	}
	version, statusTime, keptUntil := asNumber(row[0]), asNumber(row[1]), asNumber(row[2])
	if keptUntil < w.clock.Add(user.RequestIDLifetime).UnixMicro() {
		return s.saveWhole(w, u)
	}
	if version == u.Version && statusTime == encoding.ToMicros(u.StatusTime) {
		return nil
	}
	base, rows, err := s.get(&user.User{ID: u.ID, Version: version, StatusTime: encoding.FromMicros(statusTime)})
	if err != nil {
		return err
	}
	difference := encoding.EncodeResult(encoding.Result{Difference: encoding.NewDifference(base, u)})
	if rows > maxDifferences || 2*len(difference) > u.Size() {
		return s.saveWhole(w, u)
	}
	return s.write(u, keptUntil, difference)
}

func (s *sharedUsers) saveWhole(w *writer, u *user.User) error {
	return s.write(u, w.clock.Add(2*user.RequestIDLifetime).UnixMicro(), encoding.EncodeResult(encoding.Result{User: u}))
}

func (s *sharedUsers) write(u *user.User, keptUntil int64, encoded []byte) error {
	return s.put.exec(u.ID, u.Version, encoding.ToMicros(u.StatusTime), keptUntil, encoded)
}

// get returns the user with the ID, version and status time of ref, and the number of rows read.
func (s *sharedUsers) get(ref *user.User) (u *user.User, rows int, err error) {
	var states encoding.States
	err = s.until.each(func(row []driver.Value) (bool, error) {
		if rows++; rows == 1 && (asNumber(row[0]) != ref.Version || asNumber(row[1]) != encoding.ToMicros(ref.StatusTime)) {
			return false, encoding.ErrEncoding
		}
		return states.Add(asBlob(row[2]))
	}, ref.ID, ref.Version, encoding.ToMicros(ref.StatusTime))
	if err == nil {
		u, err = states.User()
	}
	return u, rows, err
}
