package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/user"
)

const (
	// pointReaders is the number of connections that only point reads use.
	pointReaders = 3
	// maxScanReaders bounds the connections that scans use.
	maxScanReaders = 4
	// scansPerCaller bounds the scans of one caller that have begun and hold a part of their
	// result. Where there are several scan readers each further one adds one.
	scansPerCaller = 4

	// A scan reads until it has read chunkRows or chunkBytes, and waits for its next turn.
	chunkRows  = 256
	chunkBytes = 256 << 10
	// shortRead is the number of rows or ids up to which a read is a point read.
	shortRead = 16
)

// scanReaders is the number of scans that run at a time. They leave processors to everything
// else: on a machine whose processors are all busy a request waits for a time slice at each step.
func scanReaders() int { return min(max(1, runtime.GOMAXPROCS(0)/2), maxScanReaders) }

// pool runs the reads of the store. Point reads and scans have their own readers, so that a point
// read never waits for a scan. Each reader is a connection with a goroutine, whose stack has grown
// once to what SQLite needs: on the goroutines of calls and streams it would grow for each of
// them, and would stay large while a stream waits.
type pool struct {
	disk disk
	// onDamage is called when a read meets damage.
	onDamage func()
	log      *slog.Logger
	told     atomic.Int64 // when the log last said why reads fail
	points   readQueue
	scans    readQueue
	heavy    processors
	spare    sync.Pool // of *readTask
	closed   chan struct{}
	ended    sync.WaitGroup
	failed   []error // of closing the connections; valid once ended
}

func newPool(ctx context.Context, disk disk, log *slog.Logger, heavy processors) (*pool, error) {
	p := &pool{disk: disk, log: log, heavy: heavy, closed: make(chan struct{})}
	p.spare.New = func() any { return &readTask{done: make(chan struct{}, 1)} }
	p.failed = make([]error, pointReaders+scanReaders())
	for i := range p.failed {
		r, err := newReader(ctx, disk.path)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		serve := p.servePoints
		if i >= pointReaders {
			serve = p.serveScans
		}
		p.ended.Go(func() { p.failed[i] = serve(r) })
	}
	return p, nil
}

func (p *pool) servePoints(r *reader) error {
	own := make(chan *readTask, 1)
	for t := p.points.next(own); t != nil; t = p.points.next(own) {
		t.run(r)
		t.done <- struct{}{}
	}
	return r.conn.close()
}

func (p *pool) serveScans(r *reader) error {
	own := make(chan *readTask, 1)
	for t := p.scans.next(own); t != nil; t = p.scans.next(own) {
		p.heavy.acquire()
		last := t.run(r)
		p.heavy.release()
		if last {
			t.done <- struct{}{}
		} else {
			p.scans.insert(t, scansPerCaller-1)
			p.heavy.rest()
		}
	}
	return r.conn.close()
}

// close waits until every point read and every chunk in progress has ended.
func (p *pool) close() error {
	close(p.closed)
	p.points.close()
	p.scans.close()
	p.ended.Wait()
	return errors.Join(p.failed...)
}

// result is what a read returned. A caller that gave up never looks at it.
type result[T any] struct {
	value T
	err   error
}

// read runs f on a reader for point reads, and waits for it no longer than ctx lasts: a disk that
// does not respond holds up the reader, not the caller. f must be short. It may still run when its
// caller has gone, and must keep its result to itself until it returns. A panic within it is an
// unexpected error of this read.
func read[T any](ctx context.Context, p *pool, f func(*reader) (T, error)) (T, error) {
	got := new(result[T])
	err := p.wait(ctx, &p.points, func(r *reader) bool {
		got.err = attempt(func() (err error) {
			got.value, err = f(r)
			return err
		})
		return true
	})
	if err == nil && got.err != nil {
		err = p.refusal(got.err)
	}
	if err != nil {
		var none T
		return none, err
	}
	return got.value, nil
}

// scan is read for a read of many rows. chunk is called until it reports the end or fails, each
// time in a turn of the caller's, maybe on another reader. Scans of all callers take turns, and
// so do the scans of one caller that have begun. A chunk that has failed may be called again.
func scan(ctx context.Context, p *pool, chunk func(*reader) (last bool, err error)) error {
	failed, q := new(error), &p.scans
	if planted(faultOneQueue) {
		q = &p.points
	}
	err := p.wait(ctx, q, func(r *reader) (last bool) {
		if ctx.Err() != nil {
			return true // its caller knows
		}
		*failed = attempt(func() (err error) {
			for last, err = chunk(r); planted(faultOneQueue) && !last && err == nil; {
				last, err = chunk(r)
			}
			return err
		})
		return last || *failed != nil || ctx.Err() != nil
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && *failed != nil {
		err = p.refusal(*failed)
	}
	return err
}

// attempt runs a read once more where it found damage: only what a second try finds, too, is
// reported as damage.
func attempt(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("read: panic: %v\n%s", value, debug.Stack())
		}
	}()
	if err = f(); isDamage(err) {
		err = f()
	}
	return err
}

// wait hands a task in and waits for its end.
func (p *pool) wait(ctx context.Context, q *readQueue, run func(*reader) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t, _ := p.spare.Get().(*readTask)
	t.caller, t.run = user.CallerFromContext(ctx), run
	if !q.submit(t) {
		return user.NewStoreUnavailableError()
	}
	select {
	case <-t.done:
		t.run = nil
		p.spare.Put(t)
		return nil
	case <-ctx.Done():
		q.cancel(t) // else a reader has it still: it cannot be used again
		return context.Cause(ctx)
	case <-p.closed:
		q.cancel(t)
		return user.NewStoreUnavailableError()
	}
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
