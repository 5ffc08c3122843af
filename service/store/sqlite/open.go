package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/group"
	"github.com/yourorg/userservice/service/user"
)

// Options configures a Store.
type Options struct {
	Path   string       // database file, created if it does not exist
	Clock  clock.Source // default: clock.System
	Random io.Reader    // for IDs and epochs; default: crypto/rand
	Logger *slog.Logger // default: slog.Default
	// TrustClock accepts the system clock at start even if it has jumped.
	TrustClock bool
	// OnCommit is called for each commit with changes. It must not block.
	OnCommit func(CommitStats)
	// OnIndexing is called while Open builds the index of existing users, with the number of users indexed and
	// that of all users.
	OnIndexing func(done, total int)
	// OnWriteFailure is called when writes start to fail or stop. It must not block.
	OnWriteFailure func()

	// group overrides constants in tests.
	group group.Options
	// keepDeleted plants a fault: no secure_delete. So does keepEntries: the index keeps removed entries.
	keepDeleted, keepEntries bool
}

// CommitStats describes a commit.
type CommitStats struct {
	Changes int           // number of changes in the transaction
	Sync    time.Duration // duration of COMMIT, mostly the sync to disk
}

// Store implements user.Store in a SQLite file. It is safe for concurrent use.
type Store struct {
	opts      Options
	epoch     string
	ids       *user.IDs
	lock      *fileLock
	clock     *clock.Monitor
	disk      disk
	pool      *pool
	heavy     *processors
	writer    *writer
	users     *userCache
	integrity *integrity
	head      atomic.Pointer[user.Head]
	first     atomic.Int64            // position of the oldest retained row
	stopped   atomic.Pointer[stopped] // nil: writes are accepted
	observe   func(user.Commit)

	queue *group.Queue[*writer]

	// Used by the writer goroutine only.
	failures writeFailures
	files    [2]fileIdentity
	session  fileSession

	cleaning  atomic.Bool // the index is being cleaned, or will be
	redacting sync.Map    // user ID -> position up to which its rows are redacted
}

var _ user.Store = (*Store)(nil)

// Open opens or creates the database file, locks it and migrates its schema.
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
	name := opts.Path
	var err error
	if opts.Path, err = resolve(name); err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	lock, err := lockFile(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	s := &Store{opts: opts, ids: user.NewIDs(opts.Random), lock: lock, disk: disk{path: opts.Path, db: lock.file}, heavy: newProcessors(), users: newUserCache()}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", name, translate(s.disk.diagnose(err))), lock.discard())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if err := checkHeader(s.lock.file); err != nil {
		return err
	}
	if err := checkWAL(ctx, s.opts.Path); err != nil && !errors.Is(err, errShortWAL) { // see adopt
		return err
	}
	if err := checkStore(ctx, s.opts.Path, false); err != nil {
		return err
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	defer pinWAL(ctx, s.opts.Path)()
	if err := migrate(ctx, s.opts.Path); err != nil {
		return err
	}
	restrict(s.opts.Path, s.opts.Logger)
	if err := syncDir(filepath.Dir(s.opts.Path)); err != nil {
		return err
	}
	w, err := newWriter(ctx, s)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.conn.close())
		}
	}()
	if err := renormalizeNames(w.conn, s.opts.Logger); err != nil {
		return err
	}
	head, err := s.readMeta(w.conn)
	if err != nil {
		return err
	}
	kept, err := readClockCheckpoint(w.conn, head)
	if err != nil {
		return err
	}
	s.clock = clock.New(s.opts.Clock, kept, s.opts.TrustClock, s.opts.Logger)
	if err := s.beginSession(w); err != nil {
		return err
	}
	if s.session, err = findSession(w.conn, s.lock.file); err != nil {
		return err
	}
	unused, err := w.prepareIndex(ctx)
	if err != nil {
		return err
	}
	if s.pool, err = newPool(ctx, s.disk, s.opts.Logger, s.heavy); err != nil {
		return err
	}
	if s.files, err = identifyFiles(s.opts.Path); err != nil {
		return errors.Join(err, s.pool.close())
	}
	s.head.Store(&head)
	s.epoch = head.Epoch
	w.start(head)
	s.writer = w
	s.opts.group.Stopped, s.opts.group.Prepare = s.stopError, prepare
	s.queue = group.NewQueue[*writer](s.opts.group)
	go s.queue.Run(s.write) //nolint:contextcheck,nolintlint // outlives ctx
	s.checkIntegrity(ctx)
	s.cleanIf(unused)
	return nil
}

// pinWAL keeps the write-ahead log of a database until unpin is called, although other connections are closed: a
// database that is not marked as closed always has a log. It ignores errors, which migrate reports.
func pinWAL(ctx context.Context, path string) (unpin func()) {
	c, err := connect(ctx, readOnlyDSN(path))
	if err != nil {
		return func() {}
	}
	_ = c.rows("SELECT 1 FROM sqlite_schema LIMIT 1", func([]driver.Value) error { return nil })
	return func() { _ = c.close() } // it has written nothing
}

// checkIntegrity starts the integrity check and waits up to openCheckTimeout for its result.
//
//nolint:contextcheck,nolintlint // the check outlives ctx
func (s *Store) checkIntegrity(ctx context.Context) {
	s.integrity = startIntegrity(s.disk, s.opts.Logger, func(damage error) { s.stopWrites(damage, user.NewStoreDamagedError()) })
	s.pool.onDamage = s.integrity.report
	timer := time.NewTimer(openCheckTimeout)
	defer timer.Stop()
	select {
	case <-s.integrity.first:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkHeader returns an error for a file that is not a SQLite database.
func checkHeader(f io.ReaderAt) error {
	var start [16]byte
	switch n, err := f.ReadAt(start[:], 0); {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n == 0: // SQLite initializes an empty file
		return nil
	case string(start[:n]) != "SQLite format 3\x00":
		return errors.New("file is not a SQLite database; use another path or move the file away")
	}
	return nil
}

// syncDir makes the directory entry of a new file durable.
func syncDir(path string) error {
	f, err := os.Open(path) //nolint:gosec // path given by the operator
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || runtime.GOOS == "windows" {
		err = nil // not supported by the file system
	}
	return errors.Join(err, f.Close())
}

// Head implements user.Store.
func (s *Store) Head(ctx context.Context) (user.Head, error) {
	if err := ctx.Err(); err != nil {
		return user.Head{}, err
	}
	return *s.head.Load(), nil
}

// Observe implements user.Store.
func (s *Store) Observe(observer func(user.Commit)) { s.observe = observer }

// ReadOnly returns the reason why the store no longer accepts writes, or nil.
func (s *Store) ReadOnly() error {
	if why := s.stopped.Load(); why != nil {
		return why.cause
	}
	return nil
}

// RowsRead returns the number of rows that reads have read from tables and indexes since Open.
func (s *Store) RowsRead() int64 { return s.pool.rows.Load() }

// Clock returns the status of the system clock.
func (s *Store) Clock() clock.Status { return s.clock.Status() }

// Integrity returns the reason why the store is not ready, or nil: the database is damaged,
// or its check has been in progress for less than a minute.
func (s *Store) Integrity() error { return s.integrity.status() }

// stopped is the reason why the store no longer accepts writes, and the error for callers.
type stopped struct {
	cause error
	err   *user.Error
}

// Close waits for submitted batches and for reads in progress, and closes the file.
func (s *Store) Close() error {
	if !s.queue.Close() {
		return nil
	}
	s.users.close()
	s.integrity.close()
	errs := []error{s.pool.close()}
	if s.ReadOnly() == nil {
		errs = append(errs, s.endSession(s.writer))
	}
	// After a failed sync the writer's connection stays open until the process exits:
	// closing it would checkpoint and remove the write-ahead log, which may be the only
	// intact copy.
	return errors.Join(append(errs, s.lock.unlock())...)
}
