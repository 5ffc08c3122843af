package sqlite

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// Probe implements user.Store. It writes one page only, so it also fails while the writer
// reports another page as unreadable.
func (s *Store) Probe(ctx context.Context) error {
	return s.queue.Do(ctx, func(w *writer) error {
		if page := s.failures.page; page != nil {
			return page
		}
		if err := w.conn.run("UPDATE meta SET probes = probes + 1"); err != nil {
			return err
		}
		return s.saveClockCheckpoint(w)
	})
}

// Redact implements user.Store. Its progress is kept in memory, so that the rows of a user
// are scanned once. After a restart the scan starts again and skips redacted rows.
func (s *Store) Redact(ctx context.Context, id int64, limit int) (bool, error) {
	// The job may set these after do has returned an error.
	var reached int64
	var rowsLeft, requestsLeft bool
	err := s.queue.Do(ctx, func(w *writer) (err error) {
		if reached, rowsLeft, err = w.redactRows(id, s.redactedUpTo(id), limit); err != nil {
			return err
		}
		requestsLeft, err = w.forgetUser(id, limit)
		return err
	})
	if err != nil {
		return false, err
	}
	if rowsLeft || requestsLeft {
		s.redacting.Store(id, reached)
		return true, nil
	}
	s.redacting.Delete(id)
	return false, nil
}

func (s *Store) redactedUpTo(id int64) int64 {
	if reached, ok := s.redacting.Load(id); ok {
		position, _ := reached.(int64)
		return position
	}
	return 0
}

// redactRows redacts at most limit rows of a user after a position.
func (w *writer) redactRows(id, after int64, limit int) (reached int64, more bool, err error) {
	type redacted struct {
		position int64
		details  []byte
	}
	var rows []redacted
	reached = after
	scanned := 0
	err = w.conn.rows("SELECT "+logColumns+" FROM log WHERE user_id = ? AND position > ? ORDER BY position LIMIT ?",
		func(row []driver.Value) error {
			scanned++
			position := asNumber(row[0])
			if position <= reached {
				return disorderError{"log rows"}
			}
			reached = position
			if b := asBlob(row[4]); len(b) == 0 || b[0] == encoding.FormRedacted {
				return nil
			}
			activity, err := scanRow(row)
			rows = append(rows, redacted{reached, encoding.EncodeMap(encoding.FormRedacted, user.RedactDetails(activity.Details))})
			return err
		}, id, after, int64(limit))
	if err != nil {
		return 0, false, err
	}
	for _, row := range rows {
		if err := w.conn.run("UPDATE log SET details = ? WHERE position = ?", row.details, row.position); err != nil {
			return 0, false, err
		}
	}
	return reached, scanned == limit, nil
}

// forgetUser deletes at most limit stored results that contain data of the user.
func (w *writer) forgetUser(id int64, limit int) (more bool, err error) {
	err = w.conn.run("DELETE FROM request_ids WHERE seq IN (SELECT seq FROM request_ids WHERE user_id = ? LIMIT ?)", id, int64(limit))
	if err != nil {
		return false, err
	}
	err = w.conn.run("DELETE FROM request_users WHERE seq IN (SELECT seq FROM request_users WHERE user_id = ? LIMIT ?)", id, int64(limit))
	if err != nil {
		return false, err
	}
	err = w.conn.rows("SELECT 1 FROM request_ids WHERE user_id = ?1 UNION ALL SELECT 1 FROM request_users WHERE user_id = ?1 LIMIT 1",
		func([]driver.Value) error {
			more = true
			return nil
		}, id)
	return more, err
}

// Prune implements user.Store. With limit rows of at most user.MaxDetails, it is bounded in bytes too.
func (s *Store) Prune(ctx context.Context, age time.Duration, limit int) (int, error) {
	pruned := 0
	err := s.queue.Do(ctx, func(w *writer) (err error) {
		pruned, err = w.prune(w.due.Add(-age), limit)
		return err
	})
	if err != nil {
		return 0, err // the job may still be running
	}
	return pruned, nil
}

// prune deletes the oldest rows up to a time. If the transaction fails, Store.first is ahead of the file
// until the next start; the rows before it are due.
func (w *writer) prune(until time.Time, limit int) (pruned int, err error) {
	first := w.store.first.Load()
	err = w.conn.rows("SELECT position, time FROM log ORDER BY position LIMIT ?", func(row []driver.Value) error {
		if asNumber(row[1]) <= until.UnixMicro() {
			first = max(first, asNumber(row[0])+1)
			pruned++
		}
		return nil
	}, int64(limit))
	if err != nil || pruned == 0 {
		return 0, err
	}
	w.store.first.Store(first) // before the deletions are visible, see checkRetained
	if err := w.conn.run("DELETE FROM log WHERE position < ?", first); err != nil {
		return 0, err
	}
	return pruned, w.conn.run("UPDATE meta SET first = ?", first)
}
