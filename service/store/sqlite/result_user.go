package sqlite

import (
	"bytes"
	"database/sql/driver"
	"maps"
	"slices"

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
	if version == u.Version && statusTime == toMicros(u.StatusTime) {
		return nil
	}
	base, rows, err := s.get(&user.User{ID: u.ID, Version: version, StatusTime: fromMicros(statusTime)})
	if err != nil {
		return err
	}
	difference := encodeResult(storedResult{difference: newDifference(base, u)})
	if rows > maxDifferences || 2*len(difference) > u.Size() {
		return s.saveWhole(w, u)
	}
	return s.write(u, keptUntil, difference)
}

func (s *sharedUsers) saveWhole(w *writer, u *user.User) error {
	return s.write(u, w.clock.Add(2*user.RequestIDLifetime).UnixMicro(), encodeResult(storedResult{user: u}))
}

func (s *sharedUsers) write(u *user.User, keptUntil int64, encoded []byte) error {
	return s.put.exec(u.ID, u.Version, toMicros(u.StatusTime), keptUntil, encoded)
}

// get returns the user with the ID, version and status time of ref, and the number of rows read.
func (s *sharedUsers) get(ref *user.User) (u *user.User, rows int, err error) {
	var whole *user.User
	var differences []*difference
	err = s.until.each(func(row []driver.Value) (bool, error) {
		if rows++; rows == 1 && (asNumber(row[0]) != ref.Version || asNumber(row[1]) != toMicros(ref.StatusTime)) {
			return false, errEncoding
		}
		a, err := decodeResult(asBlob(row[2]))
		if err != nil {
			return false, err
		}
		if a.difference != nil {
			differences = append(differences, a.difference)
			return true, nil
		}
		whole = a.user
		return false, nil
	}, ref.ID, ref.Version, toMicros(ref.StatusTime))
	if err != nil {
		return nil, rows, err
	}
	if whole == nil {
		return nil, rows, errEncoding
	}
	for _, d := range slices.Backward(differences) {
		if err := d.apply(whole); err != nil {
			return nil, rows, err
		}
	}
	return whole, rows, nil
}

// difference is what changes one user into another. set and removed are messages of a user.
type difference struct {
	cleared []int64 // numbers of the changed fields other than maps, cleared first
	removed []byte  // entries of maps to be removed, without values
	set     []byte  // new values, of maps the new entries
}

// Field numbers of the protobuf message of a difference.
//
//	message Difference {
//	  repeated int64 cleared = 1;
//	  User removed = 2;
//	  User set = 3;
//	}
const (
	differenceCleared = iota + 1
	differenceRemoved
	differenceSet
)

func newDifference(from, to *user.User) *difference {
	d := new(difference)
	for _, f := range columns {
		switch {
		case from.Equal(to, user.FieldSet(0).With(f)):
		case f.Map != nil:
			removed, set := new(user.User), new(user.User)
			*f.Map(removed), *f.Map(set) = changedEntries(*f.Map(from), *f.Map(to))
			d.removed = appendField(d.removed, f, removed)
			d.set = appendField(d.set, f, set)
		default:
			d.cleared = append(d.cleared, int64(f.Number))
			d.set = appendField(d.set, f, to)
		}
	}
	return d
}

// changedEntries returns the keys of the entries that only from has, and the entries that only to has.
func changedEntries(from, to map[string]string) (removed, set map[string]string) {
	removed, set = make(map[string]string), maps.Clone(to)
	for key, value := range from {
		after, kept := to[key]
		switch {
		case !kept:
			removed[key] = ""
		case after == value:
			delete(set, key)
		}
	}
	return removed, set
}

func (d *difference) encode() (b []byte) {
	for _, field := range d.cleared {
		b = appendNumber(b, differenceCleared, field)
	}
	b = appendBytes(b, differenceRemoved, d.removed)
	return appendBytes(b, differenceSet, d.set)
}

func decodeDifference(b []byte) (*difference, error) {
	d := new(difference)
	return d, eachField(b, func(v protoValue) error {
		switch v.field {
		case differenceCleared:
			d.cleared = append(d.cleared, v.number)
		case differenceRemoved:
			d.removed = bytes.Clone(v.bytes)
		case differenceSet:
			d.set = bytes.Clone(v.bytes)
		}
		return nil
	})
}

// apply changes a user.
func (d *difference) apply(u *user.User) error {
	removed, err := decodeUser(d.removed)
	if err != nil {
		return err
	}
	for _, f := range columns {
		if slices.Contains(d.cleared, int64(f.Number)) {
			f.Copy(u, new(user.User))
		}
		if f.Map != nil {
			for key := range *f.Map(removed) {
				delete(*f.Map(u), key)
			}
		}
	}
	return mergeUser(u, d.set)
}
