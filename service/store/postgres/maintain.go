package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// Probe implements user.Store. It writes in a transaction of the writer, and records the latest trusted time, with which
// the clock of a node that starts is compared.
func (s *Store) Probe(ctx context.Context) error {
	return s.queue.Do(ctx, func(t *tx) error {
		return t.exec("UPDATE probe SET probes = probes + 1, clock = greatest(clock, $1)", t.due.UnixMicro())
	})
}

// exec runs a statement of a job.
func (t *tx) exec(statement string, args ...any) error {
	_, err := t.conn.Exec(t.ctx, statement, args...)
	return err
}

// Redact implements user.Store. Its progress is kept in memory, so that the rows of a user are read once. The database
// removes the old versions of rows when it vacuums.
func (s *Store) Redact(ctx context.Context, id int64, limit int) (bool, error) {
	// The job may set these after Do has returned an error.
	var reached int64
	var more bool
	err := s.queue.Do(ctx, func(t *tx) (err error) {
		var rowsLeft, requestsLeft bool
		if reached, rowsLeft, err = t.redactRows(id, s.redactedUpTo(id), limit); err != nil {
			return err
		}
		requestsLeft, err = t.forgetUser(id, limit)
		more = rowsLeft || requestsLeft
		return err
	})
	if err != nil {
		return false, err
	}
	if more {
		s.redacting.Store(id, reached)
	} else {
		s.redacting.Delete(id)
	}
	return more, nil
}

func (s *Store) redactedUpTo(id int64) int64 {
	if reached, ok := s.redacting.Load(id); ok {
		position, _ := reached.(int64)
		return position
	}
	return 0
}

// redactRows redacts at most limit rows of a user after a position.
func (t *tx) redactRows(id, after int64, limit int) (reached int64, more bool, err error) {
	reached = after
	var positions []int64
	var redacted [][]byte
	scanned := 0
	rows, err := t.conn.Query(t.ctx, "SELECT "+logColumns+" FROM log WHERE user_id = $1 AND position > $2 ORDER BY position LIMIT $3", id, after, limit)
	if err != nil {
		return 0, false, err
	}
	err = eachRow(rows, func(row user.Activity, details []byte) error {
		scanned++
		reached = row.Position
		if len(details) == 0 || details[0] == encoding.FormRedacted {
			return nil
		}
		decoded, err := encoding.DecodeMap(details)
		positions = append(positions, row.Position)
		redacted = append(redacted, encoding.EncodeMap(encoding.FormRedacted, user.RedactDetails(decoded)))
		return err
	})
	if err == nil && len(positions) > 0 {
		err = t.exec("UPDATE log SET details = n.details FROM unnest($1::bigint[], $2::bytea[]) AS n(position, details) WHERE log.position = n.position",
			positions, redacted)
	}
	return reached, scanned == limit, err
}

// forgetUser deletes at most limit stored results that contain data of the user.
func (t *tx) forgetUser(id int64, limit int) (more bool, err error) {
	tag, err := t.conn.Exec(t.ctx, "DELETE FROM request_ids WHERE (id, procedure, caller) IN "+
		"(SELECT id, procedure, caller FROM request_ids WHERE user_id = $1 LIMIT $2)", id, limit)
	if err != nil {
		return false, err
	}
	users, err := t.conn.Exec(t.ctx, "DELETE FROM request_users WHERE (user_id, version, status_time) IN "+
		"(SELECT user_id, version, status_time FROM request_users WHERE user_id = $1 LIMIT $2)", id, limit)
	return max(tag.RowsAffected(), users.RowsAffected()) == int64(limit), err
}

// ExpireRequestIDs implements user.Store. Times in the far future, which a wrong clock has caused, are corrected.
func (s *Store) ExpireRequestIDs(ctx context.Context, limit int) (int, error) {
	expired := 0
	err := s.queue.Do(ctx, func(t *tx) error {
		err := t.exec("UPDATE request_ids SET created_at = $1 WHERE created_at > $2", t.clock.UnixMicro(), t.clock.Add(user.RequestIDLifetime).UnixMicro())
		if err != nil {
			return err
		}
		err = t.exec("DELETE FROM request_users WHERE (user_id, version, status_time) IN "+
			"(SELECT user_id, version, status_time FROM request_users WHERE kept_until <= $1 LIMIT $2)", t.due.UnixMicro(), limit)
		if err != nil {
			return err
		}
		// Of processes that ended; an outcome is looked up at once.
		if err := t.exec("DELETE FROM writers WHERE time < $1", t.due.Add(-user.RequestIDLifetime).UnixMicro()); err != nil {
			return err
		}
		tag, err := t.conn.Exec(t.ctx, "DELETE FROM request_ids WHERE (id, procedure, caller) IN "+
			"(SELECT id, procedure, caller FROM request_ids WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
			t.due.Add(-user.RequestIDLifetime).UnixMicro(), limit)
		expired = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, err // the job may still be running
	}
	return expired, nil
}

// Prune implements user.Store.
func (s *Store) Prune(ctx context.Context, age time.Duration, limit int) (int, error) {
	pruned := 0
	err := s.queue.Do(ctx, func(t *tx) (err error) {
		pruned, err = t.prune(t.due.Add(-age), limit)
		return err
	})
	if err != nil {
		return 0, err // the job may still be running
	}
	return pruned, nil
}

// prune deletes the oldest rows up to a time. Reads of any node read the oldest position after the rows, so they notice
// what was deleted before them.
func (t *tx) prune(until time.Time, limit int) (pruned int, err error) {
	rows, err := t.conn.Query(t.ctx, "SELECT position, time FROM log ORDER BY position LIMIT $1", limit)
	if err != nil {
		return 0, err
	}
	first, position, micros := t.first, int64(0), int64(0)
	_, err = pgx.ForEachRow(rows, []any{&position, &micros}, func() error {
		if micros <= until.UnixMicro() {
			first = position + 1
			pruned++
		}
		return nil
	})
	if err != nil || pruned == 0 {
		return 0, err
	}
	if err := t.exec("DELETE FROM log WHERE position < $1", first); err != nil {
		return 0, err
	}
	if err := t.exec("UPDATE meta SET first = $1", first); err != nil {
		return 0, err
	}
	t.first = first
	return pruned, nil
}

// measureInterval is the interval at which the size of the database is measured, which reads the sizes of its files.
const measureInterval = time.Minute

// measureAtIntervals measures the size of the database until ctx ends.
func (s *Store) measureAtIntervals(ctx context.Context) {
	ticker := time.NewTicker(measureInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.measure(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// measure measures the size of the database. Health reports failures of reads; other databases may not have the function.
func (s *Store) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.readTimeout)
	defer cancel()
	var bytes int64
	if err := s.pool.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes); err == nil {
		s.bytes.Store(bytes)
	}
}

// Bytes returns the size of the database as last measured, 0 if it is unknown.
func (s *Store) Bytes() int64 { return s.bytes.Load() }
