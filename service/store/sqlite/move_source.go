package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/store/move"
	"github.com/yourorg/userservice/service/user"
)

// Source is a store that is moved to another one. It holds the lock of the file.
type Source struct {
	moveReader

	path        string
	lock        *fileLock
	fingerprint string
}

var _ move.Source = (*Source)(nil)

// OpenSource opens the file of an existing store, which no process may use. It modifies nothing.
func OpenSource(ctx context.Context, path string) (*Source, error) {
	s, err := openSource(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, translate(err))
	}
	return s, nil
}

func openSource(ctx context.Context, path string) (s *Source, err error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, err
	}
	lock, err := lockReplaced(resolved)
	if err != nil {
		return nil, err
	}
	if lock == nil {
		return nil, fs.ErrNotExist
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.unlock())
		}
	}()
	if err := errors.Join(checkHeader(lock.file), checkWAL(ctx, resolved), checkStore(ctx, resolved, false)); err != nil {
		return nil, err
	}
	c, err := connect(ctx, readOnlyDSN(resolved))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := checkCurrent(c); err != nil {
		return nil, err
	}
	s = &Source{moveReader: moveReader{conn: c}, path: resolved, lock: lock}
	err = c.rows("SELECT position, time, first, session, commits FROM meta", func(row []driver.Value) error {
		s.fingerprint = fmt.Sprint("sqlite", row)
		return nil
	})
	return s, err
}

// checkCurrent returns an error for a store whose schema or names are those of an older program, or that is incomplete.
func checkCurrent(c *conn) error {
	if err := checkComplete(c); err != nil {
		return err
	}
	newest, err := newestVersion()
	if err != nil {
		return err
	}
	version, names := int64(0), int64(0)
	err = c.rows("SELECT max(version_id) FROM goose_db_version WHERE is_applied", func(row []driver.Value) error {
		version = asNumber(row[0])
		return nil
	})
	if err == nil && version == newest {
		err = c.rows("SELECT names FROM meta", func(row []driver.Value) error { names = asNumber(row[0]); return nil })
	}
	if err == nil && (version != newest || names != user.NamesVersion) {
		err = errors.New("it was written by an older version of the program: start userd serve once, which migrates it, and repeat")
	}
	return err
}

// checkComplete returns an error for a store that is the target of an incomplete move.
func checkComplete(c *conn) error {
	return c.rows("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'move'", func([]driver.Value) error { return move.ErrIncomplete })
}

// Fingerprint implements move.Source. Each open of the store changes the session, each transaction the commits.
func (s *Source) Fingerprint() string { return s.fingerprint }

// Order implements move.Source. Request ids are in the order of their times.
func (s *Source) Order(t *move.Table) []string {
	if t.Name == move.Requests {
		return []string{"seq"}
	}
	return t.Key
}

// Meta implements move.Source. The epoch of a copy is not that of the store from which it was copied.
func (s *Source) Meta(context.Context) (m move.Meta, err error) {
	err = s.conn.rows("SELECT epoch, copied, position, time, first, clock_time, clock_elapsed, clock_boot FROM meta", func(row []driver.Value) error {
		if asNumber(row[1]) == 0 {
			m.Epoch = asText(row[0])
		}
		m.Position, m.Time, m.First = asNumber(row[2]), asNumber(row[3]), asNumber(row[4])
		if at := asNumber(row[5]); at != 0 {
			m.Clock = clock.Checkpoint{Time: encoding.FromMicros(at), Elapsed: time.Duration(asNumber(row[6])), Boot: asText(row[7])}
		}
		return nil
	})
	return m, err
}

// Retire implements move.Source. It marks the file as a copy, which has no write-ahead log.
func (s *Source) Retire(ctx context.Context) (err error) {
	if err := s.conn.close(); err != nil {
		return err
	}
	s.conn = nil
	if err := removeWAL(ctx, s.path); err != nil {
		return translate(err)
	}
	c, err := connect(ctx, address(s.path, url.Values{"_pragma": {"busy_timeout(5000)", "synchronous(FULL)"}}))
	if err != nil {
		return err
	}
	return translate(errors.Join(markCopied(c), c.close()))
}

// Close implements move.Source.
func (s *Source) Close() error { return errors.Join(s.moveReader.Close(), s.lock.unlock()) }

// moveReader implements move.Reader.
type moveReader struct {
	conn  *conn // nil: closed
	stmts map[string]*stmt
}

// Read implements move.Reader.
func (r *moveReader) Read(_ context.Context, t *move.Table, key []string, after move.Row, limit int) (chunk move.Chunk, err error) {
	s, err := r.prepare(t.Select(key, after == nil, "?"))
	if err != nil {
		return chunk, err
	}
	args := make([]driver.Value, 0, len(after)+1)
	for _, v := range after {
		args = append(args, v)
	}
	err = s.each(func(row []driver.Value) (bool, error) {
		values := make([]any, len(row))
		for i, v := range row {
			values[i] = v
		}
		return chunk.Add(t, key, values), nil
	}, append(args, int64(limit))...)
	return chunk, translate(err)
}

// prepare returns a statement, which is kept.
func (r *moveReader) prepare(query string) (*stmt, error) {
	if s := r.stmts[query]; s != nil {
		return s, nil
	}
	var err error
	s := r.conn.prepare(&err, query)
	if err == nil && r.stmts == nil {
		r.stmts = make(map[string]*stmt)
	}
	if err == nil {
		r.stmts[query] = s
	}
	return s, err
}

// Count implements move.Reader.
func (r *moveReader) Count(_ context.Context, t *move.Table) (n int64, err error) {
	err = r.conn.rows("SELECT count(*) FROM "+t.Name, func(row []driver.Value) error { n = asNumber(row[0]); return nil })
	return n, translate(err)
}

// Close implements move.Reader.
func (r *moveReader) Close() error {
	if r.conn == nil {
		return nil
	}
	return r.conn.close()
}
