package sqlite

import (
	"cmp"
	"context"
	"crypto/rand"
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
	"github.com/yourorg/userservice/service/user"
)

// Options say which file to open, and what the store takes from outside.
type Options struct {
	Path   string       // of the database file, which is created if it is missing
	Clock  clock.Source // nil: clock.System
	Random io.Reader    // for ids and epochs; nil: crypto/rand
	Logger *slog.Logger // nil: slog.Default
	// TrustClock takes the system clock as right from the start.
	TrustClock bool
	// OnCommit is told of each commit with changes; it must return quickly.
	OnCommit func(CommitStats)
	// OnTrouble is told when writes begin to fail, not of each that does; it must
	// return quickly.
	OnTrouble func()

	// turnUnits and maxGroup replace the constants in tests; 0: the constants.
	turnUnits, maxGroup int
}

// CommitStats says what one commit took.
type CommitStats struct {
	Changes int           // carried out in the transaction
	Sync    time.Duration // of the commit, most of which is the sync to disk
}

// Store is a user.Store in one SQLite file. It is safe for use by many goroutines.
type Store struct {
	opts   Options
	epoch  string
	ids    *user.IDs
	lock   *fileLock
	clock  *clock.Monitor
	disk   disk
	pool   *pool
	heavy  processors
	writer *writer
	// integrity checks the database in the background.
	integrity *integrity
	head      atomic.Pointer[user.Head]
	stopped   atomic.Pointer[stopped] // nil: the store takes writes
	observe   func(user.Commit)

	// closing guards the queue: Submit holds it to read, Close to write.
	closing  sync.RWMutex
	closed   bool
	queue    *writeQueue
	pace     *pace
	finished chan struct{} // closed when the writer has ended

	// The writer's own.
	trouble trouble
	places  [2]place
	content content

	redacting sync.Map // user id -> position up to which its rows are redacted
}

var _ user.Store = (*Store)(nil)

// Open opens the store, creates the file if there is none, and brings its tables to
// the present form. A second process that opens the same file is refused. The error
// is meant for the person who starts the program.
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
	opts.turnUnits, opts.maxGroup = cmp.Or(opts.turnUnits, turnUnits), cmp.Or(opts.maxGroup, maxGroup)
	name := opts.Path
	var err error
	if opts.Path, err = resolve(name); err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	lock, err := lockFile(opts.Path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", name, err)
	}
	s := &Store{opts: opts, ids: user.NewIDs(opts.Random), lock: lock, disk: disk{path: opts.Path, db: lock.file}, heavy: newProcessors()}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", name, translate(s.disk.lookCloser(err))), lock.discard())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if err := checkHeader(s.lock.file); err != nil {
		return err
	}
	if err := checkPair(ctx, s.opts.Path); err != nil {
		return err
	}
	if err := checkStore(ctx, s.opts.Path, false); err != nil {
		return err
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, s.opts.Path); err != nil {
		return err
	}
	restrict(s.opts.Path, s.opts.Logger)
	if err := syncFolder(filepath.Dir(s.opts.Path)); err != nil {
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
	if err := renewNames(w.conn, s.opts.Logger); err != nil {
		return err
	}
	head, err := s.readMeta(w.conn)
	if err != nil {
		return err
	}
	kept, err := readMark(w.conn, head)
	if err != nil {
		return err
	}
	s.clock = clock.New(s.opts.Clock, kept, s.opts.TrustClock, s.opts.Logger)
	if err := s.beginSession(w); err != nil {
		return err
	}
	if s.content, err = findContent(w.conn, s.lock.file); err != nil {
		return err
	}
	if s.pool, err = newPool(ctx, s.disk, s.opts.Logger, s.heavy); err != nil {
		return err
	}
	if s.places, err = findPlaces(s.opts.Path); err != nil {
		return errors.Join(err, s.pool.close())
	}
	s.head.Store(&head)
	s.epoch = head.Epoch
	w.start(head)
	s.writer = w
	s.queue = newWriteQueue()
	s.pace = newPace() //nolint:contextcheck,nolintlint // the writer's pace outlasts this context
	s.finished = make(chan struct{})
	go s.write() //nolint:contextcheck,nolintlint // so does the writer
	s.checkIntegrity(ctx)
	return nil
}

// checkIntegrity begins to check the database, and waits a little for the result.
//
//nolint:contextcheck,nolintlint // the check outlasts the context
func (s *Store) checkIntegrity(ctx context.Context) {
	s.integrity = startIntegrity(s.disk, s.opts.Logger, func(damage error) { s.stopWrites(damage, user.NewStoreDamagedError()) })
	s.pool.onDamage = s.integrity.suspected
	timer := time.NewTimer(openWaits)
	defer timer.Stop()
	select {
	case <-s.integrity.first:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkHeader refuses what is surely not a database before SQLite touches it.
func checkHeader(f io.ReaderAt) error {
	var start [16]byte
	switch n, err := f.ReadAt(start[:], 0); {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n == 0: // an empty file becomes a database
		return nil
	case string(start[:n]) != "SQLite format 3\x00":
		return errors.New("this file is not a SQLite database; name another one, or move it out of the way")
	}
	return nil
}

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || runtime.GOOS == "windows" {
		err = nil // some file systems cannot sync a folder; they need not
	}
	return errors.Join(err, f.Close())
}

// Head returns the end of the log.
func (s *Store) Head(ctx context.Context) (user.Head, error) {
	if err := ctx.Err(); err != nil {
		return user.Head{}, err
	}
	return *s.head.Load(), nil
}

// Observe names the observer of commits.
func (s *Store) Observe(observer func(user.Commit)) { s.observe = observer }

// ReadOnly returns why the store takes no more writes, nil if it does.
func (s *Store) ReadOnly() error {
	if why := s.stopped.Load(); why != nil {
		return why.cause
	}
	return nil
}

// Clock returns what the store thinks of the system clock.
func (s *Store) Clock() clock.Status { return s.clock.Status() }

// Integrity returns why the store must not be reported ready: it is damaged, or its check
// has yet to end. It is nil for a sound store, and for a large one whose check takes long.
func (s *Store) Integrity() error { return s.integrity.status() }

// stopped is why the store takes no more writes, and what it answers to them.
type stopped struct {
	cause  error
	answer *user.Error
}

// Close waits for the batches handed in, and for reads under way, and closes the file.
func (s *Store) Close() error {
	s.closing.Lock()
	if s.closed {
		s.closing.Unlock()
		return nil
	}
	s.closed = true
	s.queue.close()
	s.closing.Unlock()
	<-s.finished
	s.integrity.close()
	errs := []error{s.pool.close()}
	if s.ReadOnly() == nil {
		errs = append(errs, s.endSession(s.writer))
	}
	// After a failed sync the writer's connection is left to the end of the process:
	// closing the last one copies the write-ahead log into the database and drops
	// it, and the log may be the only whole copy.
	return errors.Join(append(errs, s.lock.unlock())...)
}
