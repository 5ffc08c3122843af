package sqlite

import (
	"context"
	"database/sql/driver"

	"github.com/yourorg/userservice/service/store/decide"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// Request implements decide.Tx.
func (w *writer) Request(key *user.IdempotencyKey) (*decide.Request, error) {
	stored, err := w.requests.get(key)
	if err != nil || stored == nil {
		return nil, err
	}
	r := &decide.Request{Fingerprint: stored.fingerprint, Created: encoding.FromMicros(stored.created)}
	r.Result, err = encoding.DecodeResult(stored.result)
	return r, err
}

// Result implements decide.Tx.
func (w *writer) Result(a encoding.Result) (result user.Result, err error) {
	if a.Shared {
		if a.User, _, err = w.sharedUsers.get(a.User); err != nil {
			return user.Result{}, err
		}
	}
	result = user.Result{Outcome: a.Outcome, User: a.User, Position: a.Position}
	if a.Rows > 0 {
		if err := w.log.flush(); err != nil {
			return user.Result{}, err
		}
		err = w.rowRange.each(func(row []driver.Value) (bool, error) {
			activity, err := scanRow(row)
			result.Rows = append(result.Rows, activity)
			return true, err
		}, a.First, a.First+int64(a.Rows))
	}
	return result, err
}

// SaveRequest implements decide.Tx.
func (w *writer) SaveRequest(key *user.IdempotencyKey, userID int64, a encoding.Result) error {
	if a.User != nil && a.User.Size() > largeUserBytes {
		if err := w.sharedUsers.save(w, a.User); err != nil {
			return err
		}
		a.Shared = true
	}
	return w.requests.put(key, w.clock.UnixMicro(), userID, encoding.EncodeResult(a))
}

// ExpireRequestIDs implements user.Store.
func (s *Store) ExpireRequestIDs(ctx context.Context, limit int) (int, error) {
	dropped := 0
	err := s.queue.Do(ctx, func(w *writer) error {
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
