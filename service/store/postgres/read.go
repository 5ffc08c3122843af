package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

const (
	// A scan reads at most chunkRows, and little more than chunkBytes, in a turn.
	chunkRows  = 256
	chunkBytes = 256 << 10
	// shortRead is the largest number of rows or IDs of a point read.
	shortRead = 16
	// readTimeout bounds a read, with the time until it has a connection.
	readTimeout = 5 * time.Second
)

// query runs a query and passes its rows to scan, which must close them. See read.
func (s *Store) query(ctx context.Context, scan func(pgx.Rows) error, query string, args ...any) error {
	return s.read(ctx, false, func(b *pgx.Batch) { b.Queue(query, args...).Query(scan) })
}

// read runs the queries of queue in one round trip, as of one instant if snapshot is set. It reads the replica if that has
// reached the progress of this node, else the primary. If the replica fails, the functions that read the rows are called again with those
// of the primary.
func (s *Store) read(ctx context.Context, snapshot bool, queue func(*pgx.Batch)) error {
	slot := fair.FromContext(ctx)
	defer slot.Resume(slot.Release())
	queues := []func(*pgx.Batch){queue}
	if s.replica != nil {
		queues = append(queues, s.see)
	}
	if s.replica.read(ctx, s.progress(), snapshot, queues...) {
		s.opts.OnRead(ReadReplica)
		return nil
	}
	s.opts.OnRead(ReadPrimary)
	return readError(ctx, s.readPrimary(ctx, newRead(snapshot, queues...)))
}

// readPrimary sends a batch to the primary. Callers get connections in turn.
func (s *Store) readPrimary(ctx context.Context, b *pgx.Batch) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.readTimeout, user.NewOverloadedError())
	defer cancel()
	slots := s.reading
	if user.CallerFromContext(ctx) == "" {
		slots = s.background
	}
	if err := slots.acquire(ctx); err != nil {
		return err
	}
	defer slots.release()
	return s.pool.SendBatch(ctx, b).Close()
}

// newRead returns a batch of the queries of each function in queue.
func newRead(snapshot bool, queue ...func(*pgx.Batch)) *pgx.Batch {
	b := &pgx.Batch{}
	if snapshot {
		b.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
		defer b.Queue("COMMIT")
	}
	for _, q := range queue {
		q(b)
	}
	return b
}

// scan runs chunk in a slot of the scans.
func (s *Store) scan(ctx context.Context, chunk func() error) error {
	if err := s.scans.acquire(ctx); err != nil {
		return err
	}
	defer s.scans.release()
	return chunk()
}

// Get implements user.Store.
func (s *Store) Get(ctx context.Context, id int64) (found *user.User, err error) {
	err = s.query(ctx, func(rows pgx.Rows) error {
		return eachUser(rows, func(u *user.User, _ user.Keys, _ int) { found = u })
	}, userSelect+"WHERE user_id = $1", id)
	if err == nil && found == nil {
		err = user.NewNotFoundError(id)
	}
	return found, err
}

// GetMany implements user.Store.
func (s *Store) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	users := make([]*user.User, 0, len(ids))
	err := s.eachChunk(ctx, ids, func(ids []int64) error {
		found := make(map[int64]*user.User, len(ids))
		err := s.query(ctx, func(rows pgx.Rows) error {
			return eachUser(rows, func(u *user.User, _ user.Keys, _ int) { found[u.ID] = u })
		}, userSelect+"WHERE user_id = ANY($1)", ids)
		for _, id := range ids {
			if u := found[id]; u != nil {
				users = append(users, u)
				found[id] = u.Clone() // of an id that is repeated
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return users, nil
}

// Statuses implements user.Store.
func (s *Store) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	statuses := make([]user.CurrentStatus, 0, len(ids))
	err := s.eachChunk(ctx, ids, func(ids []int64) error {
		found := make(map[int64]user.CurrentStatus, len(ids))
		err := s.query(ctx, func(rows pgx.Rows) error {
			defer rows.Close()
			for rows.Next() {
				var c user.CurrentStatus
				var micros int64
				if err := rows.Scan(&c.UserID, &c.Status, &micros, &c.Position, &c.Deleted); err != nil {
					return err
				}
				c.Time = encoding.FromMicros(micros)
				found[c.UserID] = c
			}
			return rows.Err()
		}, "SELECT user_id, status, status_time, status_position, deleted_at IS NOT NULL FROM users WHERE user_id = ANY($1)", ids)
		for _, id := range ids {
			if status, exists := found[id]; exists {
				statuses = append(statuses, status)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return statuses, nil
}

// eachChunk calls read with some of the ids at a time: in a point read for a few ids, otherwise in scans.
func (s *Store) eachChunk(ctx context.Context, ids []int64, read func(ids []int64) error) error {
	if len(ids) <= shortRead {
		return read(ids)
	}
	for len(ids) > 0 {
		chunk := ids[:min(len(ids), chunkRows)]
		ids = ids[len(chunk):]
		if err := s.scan(ctx, func() error { return read(chunk) }); err != nil {
			return err
		}
	}
	return nil
}

// DuePurges implements user.Store. The earliest purge times are first.
func (s *Store) DuePurges(ctx context.Context, limit int) ([]int64, error) {
	return s.ids64(ctx, "SELECT user_id FROM users WHERE purge_at <= $1 ORDER BY purge_at, user_id LIMIT $2", s.clock.Now().Earliest.UnixMicro(), limit)
}

// ids64 returns the integers in the first column.
func (s *Store) ids64(ctx context.Context, query string, args ...any) (ids []int64, err error) {
	err = s.query(ctx, func(rows pgx.Rows) (err error) {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	}, query, args...)
	return ids, err
}
