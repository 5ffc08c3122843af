package sqlite

import (
	"bytes"
	"context"
	"database/sql/driver"
	"maps"

	"github.com/yourorg/userservice/service/user"
)

// lookupResult returns the stored result of a request, unless it has expired.
func (w *writer) lookupResult(key *user.IdempotencyKey) (result user.Result, found bool, err error) {
	row, err := w.getRequest.one(key.ID, key.Procedure, key.Caller)
	if err != nil || row == nil {
		return user.Result{}, false, err
	}
	fingerprint, created := asBlob(row[0]), fromMicros(asNumber(row[1]))
	if w.due.Sub(created) >= user.RequestIDLifetime {
		return user.Result{}, false, nil
	}
	a, err := decodeResult(asBlob(row[2]))
	switch {
	case err != nil:
		return user.Result{}, false, err
	case a.rows > 0 && a.first < w.store.first.Load():
		return user.Result{}, false, nil // pruned
	case !bytes.Equal(fingerprint, key.Fingerprint[:]):
		return user.Result{}, false, user.NewRequestIDReusedError()
	}
	if a.shared {
		if a.user, _, err = w.sharedUsers.get(a.user); err != nil {
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

// saveResult stores the result of a request. It replaces an expired one.
func (w *writer) saveResult(key *user.IdempotencyKey, op user.Op, result *user.Result) error {
	a := storedResult{outcome: result.Outcome, position: result.Position, user: result.User, rows: len(result.Rows)}
	if a.rows > 0 {
		a.first = result.Rows[0].Position
	}
	id := op.Target()
	if result.User != nil {
		id = result.User.ID
	}
	if u := result.User; u != nil && u.Size() > largeUserBytes {
		if err := w.sharedUsers.save(w, u); err != nil {
			return err
		}
		a.shared = true
	}
	return w.putRequest.exec(key.ID, key.Procedure, key.Caller, key.Fingerprint[:], w.clock.UnixMicro(), id, encodeResult(a))
}

// ExpireRequestIDs implements user.Store.
func (s *Store) ExpireRequestIDs(ctx context.Context, limit int) (int, error) {
	dropped := 0
	err := s.do(ctx, func(w *writer) error {
		dropped = 0 // the job may be retried
		var last int64
		if err := w.redateRequests(limit); err != nil {
			return err
		}
		if err := w.forgetShared(limit); err != nil {
			return err
		}
		oldest := w.due.Add(-user.RequestIDLifetime).UnixMicro()
		// Rows are in the order of their times, so the expired ones are first.
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
		return 0, err // the job may still be running
	}
	return dropped, nil
}

// forgetShared deletes at most limit users that no stored result refers to.
func (w *writer) forgetShared(limit int) error {
	return w.conn.run("DELETE FROM request_users WHERE seq IN (SELECT seq FROM request_users WHERE kept_until <= ? LIMIT ?)",
		w.due.UnixMicro(), int64(limit))
}

// redateRequests sets the oldest request IDs to the current time if theirs is in the far
// future, which a wrong clock has caused: they would block the expiry of all later ones.
func (w *writer) redateRequests(limit int) error {
	return w.conn.run("UPDATE request_ids SET created_at = ? WHERE seq IN (SELECT seq FROM request_ids ORDER BY seq LIMIT ?) AND created_at > ?",
		w.clock.UnixMicro(), int64(limit), w.clock.Add(user.RequestIDLifetime).UnixMicro())
}

// cloneUser returns a copy, so that result and observer do not share a user.
func cloneUser(u *user.User) *user.User {
	if u == nil {
		return nil
	}
	return u.Clone()
}

func cloneRows(rows []user.Activity) []user.Activity {
	clones := make([]user.Activity, len(rows))
	for i, row := range rows {
		row.Details = maps.Clone(row.Details)
		clones[i] = row
	}
	return clones
}
