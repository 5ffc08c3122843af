package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// reader is a connection that only reads, with the statements of all reads.
type reader struct {
	conn    *conn
	get     *stmt
	status  *stmt
	logAll  [2]*stmt // ascending, descending
	logUser [2]*stmt
	timeAt  *stmt
	first   *stmt
	due     *stmt
	lists   [len(listQueries)]*stmt
}

func newReader(ctx context.Context, path string) (*reader, error) {
	c, err := connect(ctx, dsn(path, readerCacheKiB, "query_only(ON)"))
	if err != nil {
		return nil, err
	}
	r := &reader{conn: c}
	r.get = c.prepare(&err, "SELECT "+userColumns+" FROM users WHERE user_id = ?")
	r.status = c.prepare(&err, statusQuery)
	r.logAll[0] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position > ? AND position < ? ORDER BY position LIMIT ?")
	r.logAll[1] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE position > ? AND position < ? ORDER BY position DESC LIMIT ?")
	r.logUser[0] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE user_id = ? AND position > ? AND position < ? ORDER BY position LIMIT ?")
	r.logUser[1] = c.prepare(&err, "SELECT "+logColumns+" FROM log WHERE user_id = ? AND position > ? AND position < ? ORDER BY position DESC LIMIT ?")
	r.timeAt = c.prepare(&err, "SELECT time FROM log WHERE position = ?")
	r.first = c.prepare(&err, "SELECT min(position) FROM log")
	r.due = c.prepare(&err, dueQuery)
	for i, query := range listQueries {
		r.lists[i] = c.prepare(&err, query)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return r, nil
}

// pool carries out reads. Each reader has a goroutine of its own, whose stack has
// grown once to what SQLite needs: on the goroutines of calls and streams it would
// have to grow for every one of them, and would stay that large while a stream
// waits.
type pool struct {
	disk disk
	// onDamage is called when a read meets damage.
	onDamage func()
	log      *slog.Logger
	told     atomic.Int64 // when the log was last told why reads fail
	work     chan *errand
	spare    sync.Pool // of *errand
	closed   chan struct{}
	ended    sync.WaitGroup
	failed   [readers]error // of closing the connections; valid once ended
}

// errand is one short read on its way to a reader and back.
type errand struct {
	run  func(*reader)
	done chan struct{}
}

func newPool(ctx context.Context, disk disk, log *slog.Logger) (*pool, error) {
	p := &pool{disk: disk, log: log, work: make(chan *errand), closed: make(chan struct{})}
	p.spare.New = func() any { return &errand{done: make(chan struct{}, 1)} }
	for i := range readers {
		r, err := newReader(ctx, disk.path)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.ended.Go(func() { p.failed[i] = p.serve(r) })
	}
	return p, nil
}

func (p *pool) serve(r *reader) error {
	for {
		select {
		case e := <-p.work:
			e.run(r)
			e.done <- struct{}{}
		case <-p.closed:
			return r.conn.close()
		}
	}
}

// close waits until every read that has begun is done.
func (p *pool) close() error {
	close(p.closed)
	p.ended.Wait()
	return errors.Join(p.failed[:]...)
}

// answered is what a read gave. Whoever gave the read up never looks at it.
type answered[T any] struct {
	value T
	err   error
}

// read carries f out on a reader and waits for it, but not longer than ctx lasts: a
// disk that does not answer holds up the reader, not the caller. f must be short,
// there are few readers; and as it may still be under way when its caller has gone, it
// must keep what it finds to itself until it returns. A panic within it is an
// unexpected error of this read.
func read[T any](ctx context.Context, p *pool, f func(*reader) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	e, _ := p.spare.Get().(*errand)
	got := new(answered[T])
	e.run = func(r *reader) {
		defer func() {
			if value := recover(); value != nil {
				got.err = fmt.Errorf("read: panic: %v\n%s", value, debug.Stack())
			}
		}()
		got.value, got.err = f(r)
		if isDamage(got.err) { // only what a second try finds too is called damage
			got.value, got.err = f(r)
		}
	}
	select {
	case p.work <- e:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-p.closed:
		return none, user.ErrStoreUnavailable()
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return none, context.Cause(ctx) // the reader has the errand still: it is nobody's spare
	}
	e.run = nil
	p.spare.Put(e)
	if got.err != nil {
		return none, p.refusal(got.err)
	}
	return got.value, nil
}

// tellEvery is how often the log is told that reads fail.
const tellEvery = 10 * time.Second

// refusal makes of a failure what the caller may see. Where that hides what the disk
// did, the log is told, though not of each read.
func (p *pool) refusal(err error) error {
	if _, expected := user.AsError(err); expected {
		return err
	}
	err = p.disk.lookCloser(err)
	if isDamage(err) && p.onDamage != nil {
		p.onDamage()
	}
	seen := forCallers(err)
	if user.HasReason(seen, user.StoreUnavailable) {
		last, now := p.told.Load(), time.Now().UnixNano()
		if now-last > int64(tellEvery) && p.told.CompareAndSwap(last, now) {
			p.log.Error("reads fail", "error", err)
		}
	}
	return seen
}
