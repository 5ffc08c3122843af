package sqlite

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

const (
	// pointReaders is the number of connections for point reads.
	pointReaders = 3
	// maxScanReaders limits the connections for scans.
	maxScanReaders = 4
	// scansPerCaller limits the started scans of a caller, which hold partial results. Each scan
	// reader after the first adds one.
	scansPerCaller = 4

	// A scan reads at most chunkRows or chunkBytes in a turn.
	chunkRows  = 256
	chunkBytes = 256 << 10
	// shortRead is the largest number of rows or IDs of a point read.
	shortRead = 16
)

// scanReaders returns the number of scan connections, at most half of the processors, so that scans do
// not delay other requests.
func scanReaders() int { return min(max(1, fair.Processors()/2), maxScanReaders) }

// pool runs reads. Point reads and scans have separate readers, so that a point read does not wait
// for a scan. A reader is a connection with its own goroutine: SQLite needs a large stack, which
// would otherwise grow on the goroutine of each call and remain for the lifetime of a stream.
type pool struct {
	disk     disk
	onDamage func(error) // called when a read finds damage
	log      *slog.Logger
	lines    *throttle.Throttle // of failing reads
	points   readQueue
	scans    readQueue
	heavy    *processors
	tasks    sync.Pool    // of *readTask
	rows     atomic.Int64 // read by the readers
	closed   chan struct{}
	readers  sync.WaitGroup
	failed   []error // errors of closing connections; valid after readers.Wait
}

func newPool(ctx context.Context, disk disk, log *slog.Logger, heavy *processors) (*pool, error) {
	p := &pool{disk: disk, log: log, lines: throttle.New(readErrorLogInterval, 1), heavy: heavy, closed: make(chan struct{})}
	p.tasks.New = func() any { return &readTask{done: make(chan struct{}, 1)} }
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
		p.readers.Go(func() { p.failed[i] = serve(r) })
	}
	return p, nil
}

func (p *pool) servePoints(r *reader) error {
	own := make(chan *readTask, 1)
	for t := p.points.next(own); t != nil; t = p.points.next(own) {
		t.run(r)
		p.countRows(r)
		t.done <- struct{}{}
	}
	return r.conn.close()
}

func (p *pool) serveScans(r *reader) error {
	own := make(chan *readTask, 1)
	for t := p.scans.next(own); t != nil; t = p.scans.next(own) {
		p.heavy.acquire(scans)
		last := t.run(r)
		p.heavy.release()
		p.countRows(r)
		if last {
			t.done <- struct{}{}
		} else {
			p.scans.insert(t, scansPerCaller-1)
			p.heavy.yield()
		}
	}
	return r.conn.close()
}

func (p *pool) countRows(r *reader) {
	p.rows.Add(r.conn.rowsRead)
	r.conn.rowsRead = 0
}

// close waits for point reads and chunks in progress.
func (p *pool) close() error {
	close(p.closed)
	p.points.close()
	p.scans.close()
	p.readers.Wait()
	return errors.Join(p.failed...)
}

// result is the result of a read. It is not used after the context of the read has ended.
type result[T any] struct {
	value T
	err   error
}

// read runs f, which must be short, on a point reader. It returns when ctx ends even if f still
// runs, so that a hanging disk blocks only the reader; f must not share its result before it
// returns. A panic in f is returned as an error.
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
		err = p.callerError(got.err)
	}
	if err != nil {
		var none T
		return none, err
	}
	return got.value, nil
}

// scan runs a read of many rows. It calls chunk until it returns last or an error, each time in a
// turn of the caller, possibly on another reader. Callers are served round-robin, and so are the
// started scans of a caller. chunk may be called again after an error.
func scan(ctx context.Context, p *pool, chunk func(*reader) (last bool, err error)) error {
	failed := new(error)
	err := p.wait(ctx, &p.scans, func(r *reader) (last bool) {
		if ctx.Err() != nil {
			return true
		}
		*failed = attempt(func() (err error) {
			last, err = chunk(r)
			return err
		})
		return last || *failed != nil || ctx.Err() != nil
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && *failed != nil {
		err = p.callerError(*failed)
	}
	return err
}

// attempt runs f. If f reports damage it runs f again, since only repeated damage counts.
func attempt(f func() error) (err error) {
	defer panics.Recover(&err)
	if err = f(); isDamage(err) {
		err = f()
	}
	return err
}

// wait submits a task and waits for it.
func (p *pool) wait(ctx context.Context, q *readQueue, run func(*reader) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t, _ := p.tasks.Get().(*readTask)
	t.caller, t.run = user.CallerFromContext(ctx), run
	if !q.submit(t) {
		return user.NewStoreUnavailableError()
	}
	if q != &p.points {
		slot := fair.FromContext(ctx)
		defer slot.Resume(slot.Release())
	} // A point read keeps its slot: results that waited for slots would be memory without limit.
	select {
	case <-t.done:
		t.run = nil
		p.tasks.Put(t)
		return nil
	case <-ctx.Done():
		q.cancel(t) // t is not reused, since a reader may still run it
		return context.Cause(ctx)
	case <-p.closed:
		q.cancel(t)
		return user.NewStoreUnavailableError()
	}
}

// readErrorLogInterval is the minimum interval of log lines about failing reads.
const readErrorLogInterval = 10 * time.Second

// callerError converts an error for callers. It logs I/O errors, at a limited rate, because the
// converted error does not contain them.
func (p *pool) callerError(err error) error {
	if _, expected := user.AsError(err); expected {
		return err
	}
	err = p.disk.diagnose(err)
	if isDamage(err) && p.onDamage != nil {
		p.onDamage(err)
	}
	converted := translateForCaller(err)
	if user.HasReason(converted, user.StoreUnavailable) {
		if _, ok := p.lines.Allow("", time.Now()); ok {
			p.log.Error("store reads failing", "error", err)
		}
	}
	return converted
}
