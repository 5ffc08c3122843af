package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// Options configures a Store.
type Options struct {
	URL    string       // postgres://…; parameters pool_… configure the pool, see pgxpool.ParseConfig
	Clock  clock.Source // default: clock.System
	Random io.Reader    // for IDs and epochs; default: crypto/rand
	Logger *slog.Logger // default: slog.Default
	// TrustClock accepts the system clock at start even if it differs from the time of the last node.
	TrustClock bool
	// OnCommit is called for each commit with changes. It must not block.
	OnCommit func(CommitStats)
	// OnWriteFailure is called when writes, or the reads of the commits of other nodes, start to fail. It must not block.
	OnWriteFailure func()
	// ReplicaURL is that of a streaming replica, which is read while it has reached the head of this node.
	ReplicaURL string
	// OnRead is called for each read with the database that it reads. It must not block.
	OnRead func(source string)
	// NoListen uses no notifications, for databases that have none: other nodes are polled.
	NoListen bool

	// pollInterval, catchUpTimeout and group override constants in tests, inject injects faults.
	pollInterval   time.Duration
	catchUpTimeout time.Duration
	readTimeout    time.Duration
	group          group.Options
	inject         func(point string) error
	// bareSequence plants a fault: positions are those of a sequence.
	bareSequence bool
}

// CommitStats describes a commit.
type CommitStats struct {
	Changes int           // number of changes in the transaction
	Sync    time.Duration // duration of the last round trip, which writes and commits
}

// Sources of reads.
const (
	ReadPrimary = "primary"
	ReadReplica = "replica"
)

// Store implements user.Store in a PostgreSQL database. It is safe for concurrent use.
type Store struct {
	opts    Options
	epoch   string
	ids     *user.IDs
	pool    *pgxpool.Pool // for reads
	writes  *pgxpool.Pool // for writes, and reads of the commits of other nodes
	replica *replica      // nil: none
	clock   *clock.Monitor
	queue   *group.Queue[*tx]
	scans   *slots
	// reading and background are the slots of reads with and without a caller, for which there are connections.
	reading, background *slots
	feed                *feed
	first               atomic.Int64    // position of the oldest retained row, as last read
	process             string          // identifies this process in the database
	closing             context.Context //nolint:containedctx // ends background work
	stop                context.CancelFunc
	running             sync.WaitGroup

	transactions atomic.Int64 // number of transactions that were begun
	committed    atomic.Int64 // number of the last one that was committed
	seen         atomic.Int64 // position that reads have reflected, if there is a replica
	failures     int          // of the current series; used by the writer only
	bytes        atomic.Int64 // size of the database
	redacting    sync.Map     // user ID -> position up to which its rows are redacted
}

var _ user.Store = (*Store)(nil)

// Open connects to the database and migrates its schema.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.System()
	}
	if opts.Random == nil {
		opts.Random = rand.Reader
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.OnWriteFailure == nil {
		opts.OnWriteFailure = func() {}
	}
	if opts.OnRead == nil {
		opts.OnRead = func(string) {}
	}
	opts.pollInterval = cmp.Or(opts.pollInterval, pollInterval)
	opts.readTimeout = cmp.Or(opts.readTimeout, readTimeout)
	config, err := parseURL(opts.URL)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts, ids: user.NewIDs(opts.Random), scans: newSlots(max(1, int(config.MaxConns)/4))}
	if err := s.connect(ctx, config); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.open(ctx, config.ConnConfig); err != nil {
		s.disconnect()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, config *pgx.ConnConfig) error {
	if err := checkComplete(ctx, s.pool); err != nil {
		return err
	}
	if err := migrate(ctx, s.pool); err != nil {
		return err
	}
	if err := s.checkLock(ctx); err != nil {
		return err
	}
	if err := s.renormalizeNames(ctx); err != nil {
		return err
	}
	head, kept, err := s.readMeta(ctx)
	if err != nil {
		return err
	}
	warnUnsafe(ctx, s.writes, s.opts.Logger)
	s.epoch = head.Epoch
	s.process = uuid.NewString()
	if s.replica, err = s.openReplica(ctx); err != nil {
		return err
	}
	s.clock = clock.New(s.opts.Clock, clock.Checkpoint{Time: kept}, s.opts.TrustClock, s.opts.Logger)
	s.feed = &feed{pool: s.writes, log: s.opts.Logger, first: &s.first, onFailure: s.opts.OnWriteFailure, timeout: cmp.Or(s.opts.catchUpTimeout, catchUpTimeout), ownFrom: noOwn}
	s.feed.head.Store(&head)
	s.queue = group.NewQueue[*tx](s.opts.group)
	//nolint:contextcheck,nolintlint // the background work outlives ctx
	s.closing, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.queue.Run(s.write) //nolint:contextcheck,nolintlint // outlives ctx
	wake := make(chan struct{}, 1)
	s.running.Go(func() { s.feed.follow(s.closing, wake, s.opts.pollInterval) })
	s.measure(ctx)
	s.running.Go(func() { s.measureAtIntervals(s.closing) })
	if s.replica != nil {
		s.running.Go(func() { s.replica.watch(s.closing, s.progress) })
	}
	if !s.opts.NoListen {
		s.running.Go(func() { s.feed.listen(s.closing, config, wake) })
	}
	return nil
}

// errLocked is the error of Open while the counter row is locked.
var errLocked = errors.New("the row of meta is locked: the store is being moved (userd migrate), or its writers hang")

// checkLock returns an error if the counter row is locked, as a move of the store locks it until it ends. It rolls back: a commit
// would wait for a synchronous standby.
func (s *Store) checkLock(ctx context.Context) error {
	t, err := s.pool.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, "SELECT FROM meta FOR UPDATE")
	if sqlState(err) == lockTimeout {
		err = errLocked
	}
	return cmp.Or(err, t.Rollback(ctx))
}

// readMeta returns the head of the log, and the latest time that a node trusted. It sets the epoch of a new store.
func (s *Store) readMeta(ctx context.Context) (head user.Head, kept time.Time, err error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(s.opts.Random, id); err != nil {
		return head, kept, err
	}
	if _, err := s.pool.Exec(ctx, "UPDATE meta SET epoch = $1 WHERE epoch = ''", fmt.Sprintf("%x", id)); err != nil {
		return head, kept, err
	}
	var micros, first, clockTime int64
	err = s.pool.QueryRow(ctx, "SELECT epoch, position, time, first, clock FROM meta, probe").Scan(&head.Epoch, &head.Position, &micros, &first, &clockTime)
	if err != nil {
		return head, kept, err
	}
	s.first.Store(first)
	head.Time = headTime(head.Position, micros)
	if clockTime > 0 {
		kept = encoding.FromMicros(clockTime)
	}
	return head, kept, nil
}

// headTime returns the time of the last row, zero if there was none.
func headTime(position, micros int64) time.Time {
	if position == 0 {
		return time.Time{}
	}
	return encoding.FromMicros(micros)
}

// Head implements user.Store. It is the last commit of which the observer was notified.
func (s *Store) Head(ctx context.Context) (user.Head, error) {
	if ctx.Err() != nil {
		return user.Head{}, context.Cause(ctx)
	}
	return *s.feed.head.Load(), nil
}

// Observe implements user.Store.
func (s *Store) Observe(observer func(user.Commit)) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.feed.observe = observer
}

// Clock returns the status of the system clock.
func (s *Store) Clock() clock.Status { return s.clock.Status() }

// Close waits for submitted batches, and closes the connections.
func (s *Store) Close() error {
	if !s.queue.Close() {
		return nil
	}
	s.stop()
	s.running.Wait()
	s.forgetProcess()
	s.disconnect()
	return nil
}

// forgetProcess removes the row of the process, which shows that it may be running. A failure means that it is removed later.
func (s *Store) forgetProcess() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := s.pool.Exec(ctx, "DELETE FROM writers WHERE process = $1", s.process); err != nil {
		s.opts.Logger.Warn("the process was not removed from the writers", "error", err)
	}
}
