package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"maps"

	"github.com/yourorg/userservice/service/user"
)

// remembered returns the first success of a request, if it is still known.
func (w *writer) remembered(once *user.IdempotencyKey) (result user.Result, found bool, err error) {
	row, err := w.getRequest.one(once.ID, once.Procedure, once.Caller)
	if err != nil || row == nil {
		return user.Result{}, false, err
	}
	fingerprint, created := asBlob(row[0]), moment(asNumber(row[1]))
	if w.due.Sub(created) >= user.RequestIDLifetime {
		return user.Result{}, false, nil
	}
	if !bytes.Equal(fingerprint, once.Fingerprint[:]) {
		return user.Result{}, false, user.NewRequestIDReusedError()
	}
	a, err := decodeAnswer(asBlob(row[2]))
	if err != nil {
		return user.Result{}, false, err
	}
	if a.shared {
		if a.user, err = w.sharedUser(a.user); err != nil {
			return user.Result{}, false, err
		}
	}
	result = user.Result{Outcome: a.outcome, User: a.user, Position: a.position}
	if a.rows > 0 {
		err = w.rowRange.each(func(row []driver.Value) (bool, error) {
			activity, err := scanRow(row)
			result.Rows = append(result.Rows, activity)
			return true, err
		}, a.first, a.first+int64(a.rows))
	}
	return result, true, err
}

// remember notes the success of a request, in the place of one past its lifetime.
func (w *writer) remember(once *user.IdempotencyKey, op user.Op, result *user.Result) error {
	a := answer{outcome: result.Outcome, position: result.Position, user: result.User, rows: len(result.Rows)}
	if a.rows > 0 {
		a.first = result.Rows[0].Position
	}
	id := op.Target()
	if result.User != nil {
		id = result.User.ID
	}
	answer := encodeAnswer(a)
	if len(answer) > largeAnswer {
		if err := w.shareUser(a.user); err != nil {
			return err
		}
		a.shared = true
		answer = encodeAnswer(a)
	}
	return w.putRequest.exec(once.ID, once.Procedure, once.Caller, once.Fingerprint[:], w.clock.UnixMicro(), id, answer)
}

// largeAnswer is the size above which a remembered result shares its user with others.
const largeAnswer = 1 << 10

// shareUser stores a user for all results that have it, for as long as the newest of them
// is remembered. A large row is not written again for each.
func (w *writer) shareUser(u *user.User) error {
	key := []driver.Value{u.ID, u.Version, micros(u.StatusTime)}
	until, known, err := w.keptUntil.number(key...)
	switch {
	case err != nil:
		return err
	case !known:
		kept := w.clock.Add(2 * user.RequestIDLifetime).UnixMicro()
		return w.putShared.exec(append(key, kept, encodeAnswer(answer{user: u}))...)
	case until < w.clock.Add(user.RequestIDLifetime).UnixMicro():
		return w.keepShared.exec(append([]driver.Value{w.clock.Add(2 * user.RequestIDLifetime).UnixMicro()}, key...)...)
	}
	return nil
}

// sharedUser returns the stored user with the id, the version and the time of ref.
func (w *writer) sharedUser(ref *user.User) (*user.User, error) {
	row, err := w.getShared.one(ref.ID, ref.Version, micros(ref.StatusTime))
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errEncoding
	}
	a, err := decodeAnswer(asBlob(row[0]))
	return a.user, err
}

// ExpireRequestIDs drops at most limit request ids past their lifetime.
func (s *Store) ExpireRequestIDs(ctx context.Context, limit int) (int, error) {
	dropped := 0
	err := s.do(ctx, func(w *writer) error {
		dropped = 0 // the job may run twice
		var last int64
		if err := w.redateRequests(limit); err != nil {
			return err
		}
		if err := w.forgetShared(limit); err != nil {
			return err
		}
		oldest := w.due.Add(-user.RequestIDLifetime).UnixMicro()
		// Rows stand in the order of their time, so those to drop come first.
		err := w.conn.rows("SELECT seq, created_at FROM request_ids ORDER BY seq LIMIT ?", func(row []driver.Value) error {
			if asNumber(row[1]) <= oldest {
				last = asNumber(row[0])
				dropped++
			}
			return nil
		}, int64(limit))
		if err != nil || dropped == 0 {
			return err
		}
		return w.conn.run("DELETE FROM request_ids WHERE seq <= ?", last)
	})
	if err != nil {
		return 0, err // the job may still be under way
	}
	return dropped, nil
}

// forgetShared drops at most limit users that no remembered result has.
func (w *writer) forgetShared(limit int) error {
	return w.conn.run("DELETE FROM request_users WHERE seq IN (SELECT seq FROM request_users WHERE kept_until <= ? LIMIT ?)",
		w.due.UnixMicro(), int64(limit))
}

// redateRequests gives the oldest request ids the present time if theirs lies in a future
// that only a wrong clock can have given them: they would stand for years before all others.
func (w *writer) redateRequests(limit int) error {
	return w.conn.run("UPDATE request_ids SET created_at = ? WHERE seq IN (SELECT seq FROM request_ids ORDER BY seq LIMIT ?) AND created_at > ?",
		w.clock.UnixMicro(), int64(limit), w.clock.Add(user.RequestIDLifetime).UnixMicro())
}

// ownUser gives a result a user that the observer does not see.
func ownUser(u *user.User) *user.User {
	if u == nil {
		return nil
	}
	return u.Clone()
}

func ownRows(rows []user.Activity) []user.Activity {
	own := make([]user.Activity, len(rows))
	for i, row := range rows {
		row.Details = maps.Clone(row.Details)
		own[i] = row
	}
	return own
}
