package sqlite

import (
	"context"
	"errors"

	"github.com/yourorg/userservice/service/user"
)

// reader is a connection that only reads, with the statements of all reads.
type reader struct {
	conn    *conn
	get     *stmt
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

// pool lends readers. A reader is held for one short read, so few of them do.
type pool struct {
	free   chan *reader
	closed chan struct{}
}

func newPool(ctx context.Context, path string) (*pool, error) {
	p := &pool{free: make(chan *reader, readers), closed: make(chan struct{})}
	for range readers {
		r, err := newReader(ctx, path)
		if err != nil {
			for range len(p.free) {
				err = errors.Join(err, (<-p.free).conn.close())
			}
			return nil, err
		}
		p.free <- r
	}
	return p, nil
}

// take lends a reader, which the caller gives back.
func (p *pool) take(ctx context.Context) (*reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case r := <-p.free:
		return r, nil
	default:
	}
	select {
	case r := <-p.free:
		return r, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-p.closed:
		return nil, user.ErrStoreUnavailable()
	}
}

func (p *pool) give(r *reader) { p.free <- r }

// close waits until every reader has been given back.
func (p *pool) close() error {
	close(p.closed)
	var errs []error
	for range readers {
		errs = append(errs, (<-p.free).conn.close())
	}
	return errors.Join(errs...)
}
