package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// replicaTimeout bounds a read of the replica, after which the primary is read.
	replicaTimeout = time.Second
	// replicaPause is the longest pause between two checks of a replica that cannot be read.
	replicaPause = 500 * time.Millisecond
	// lagLogged is the time after which a replica that is behind is logged.
	lagLogged = 5 * time.Second
)

var (
	errBehind     = errors.New("replica is behind")
	errOtherStore = errors.New("replica is of another store")
	errNoStore    = errors.New("replica has no store yet")
)

const (
	selectPosition = "SELECT position FROM meta"
	selectProgress = "SELECT position, (SELECT coalesce(max(number), 0) FROM writers WHERE process = $1) FROM meta"
	selectIdentity = "SELECT epoch, system_identifier FROM meta, pg_control_system()"
)

// progress is what a read must reflect: the head that this node has published, what it has read before, and its last
// transaction, which may have no rows.
type progress struct{ position, transaction int64 }

// progress returns what a read that starts now must reflect.
func (s *Store) progress() progress {
	return progress{position: max(s.feed.head.Load().Position, s.seen.Load()), transaction: s.committed.Load()}
}

// see queues a query of the position after the data of a read, so that a later read of another database does not go back.
func (s *Store) see(b *pgx.Batch) {
	b.Queue(selectPosition).QueryRow(func(row pgx.Row) error {
		var position int64
		err := row.Scan(&position)
		advance(&s.seen, position)
		return err
	})
}

// replica is a streaming replica. A read of it fails unless the replica has reached the progress that the read needs: that
// is read in the same round trip, before the data. A nil replica cannot be read.
type replica struct {
	pool    *pgxpool.Pool
	log     *slog.Logger
	process string // identifies this process in the database
	usable  atomic.Bool
	failed  chan struct{} // receives when usable was set to false
}

// openReplica connects to the replica. It fails if the replica is of another store. A replica
// that is unavailable is read later.
func (s *Store) openReplica(ctx context.Context) (*replica, error) {
	if s.opts.ReplicaURL == "" {
		return nil, nil //nolint:nilnil // there is no replica
	}
	var epoch string
	var system int64
	if err := s.pool.QueryRow(ctx, selectIdentity).Scan(&epoch, &system); err != nil {
		return nil, err
	}
	config, err := parseURL(s.opts.ReplicaURL)
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error { return identify(ctx, conn, epoch, system) }
	r := &replica{log: s.opts.Logger, process: s.process, failed: make(chan struct{}, 1)}
	if r.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	r.fail()
	if err := r.check(ctx, progress{}); errors.Is(err, errOtherStore) {
		r.pool.Close()
		return nil, err
	}
	return r, nil
}

// identify returns an error if the server of a connection has another store.
func identify(ctx context.Context, conn *pgx.Conn, epoch string, system int64) error {
	var itsEpoch string
	var itsSystem int64
	err := conn.QueryRow(ctx, selectIdentity).Scan(&itsEpoch, &itsSystem)
	switch {
	case err != nil:
		return err
	case itsSystem != system:
		return fmt.Errorf("%w: its system identifier is %d, that of the primary %d", errOtherStore, itsSystem, system)
	case itsEpoch == "":
		return errNoStore
	case itsEpoch != epoch:
		return fmt.Errorf("%w: its epoch is %s, that of the primary %s", errOtherStore, itsEpoch, epoch)
	}
	return nil
}

// read sends the queries of queue, and reports whether what was read reflects the progress.
func (r *replica) read(ctx context.Context, need progress, snapshot bool, queue ...func(*pgx.Batch)) bool {
	if r == nil || !r.usable.Load() {
		return false
	}
	reading, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	check := func(b *pgx.Batch) {
		b.Queue(selectProgress, r.process).QueryRow(func(row pgx.Row) error { return reached(row, need) })
	}
	err := r.pool.SendBatch(reading, newRead(snapshot, append([]func(*pgx.Batch){check}, queue...)...)).Close()
	if err != nil && ctx.Err() == nil {
		r.fail()
	}
	return err == nil
}

func reached(row pgx.Row, need progress) error {
	var at progress
	if err := row.Scan(&at.position, &at.transaction); err != nil {
		return err
	}
	if at.position < need.position || at.transaction < need.transaction {
		return fmt.Errorf("%w: at position %d, want %d", errBehind, at.position, need.position)
	}
	return nil
}

// fail stops the use of the replica until watch finds it usable.
func (r *replica) fail() {
	r.usable.Store(false)
	select {
	case r.failed <- struct{}{}:
	default: // signaled already
	}
}

// check returns an error if the replica cannot be read or has not reached the progress.
func (r *replica) check(ctx context.Context, need progress) error {
	ctx, cancel := context.WithTimeout(ctx, replicaTimeout)
	defer cancel()
	err := reached(r.pool.QueryRow(ctx, selectProgress, r.process), need)
	if err != nil && !errors.Is(err, errBehind) {
		r.pool.Reset() // other connections are probably lost too
	}
	return err
}

// watch waits after each failure until the replica is usable again, until ctx ends.
func (r *replica) watch(ctx context.Context, need func() progress) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.failed:
		}
		start, logged := time.Now(), false
		for pause := retryPause; ; pause = min(2*pause, replicaPause) {
			err := r.check(ctx, need())
			if err == nil {
				break
			}
			if !logged && (!errors.Is(err, errBehind) || time.Since(start) > lagLogged) && ctx.Err() == nil {
				logged = true
				r.log.Warn("store replica not used, reading from the primary", "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		if logged {
			r.log.Info("store replica used again", "after", time.Since(start))
		}
		r.usable.Store(true)
	}
}

func (r *replica) close() {
	if r != nil {
		r.pool.Close()
	}
}
