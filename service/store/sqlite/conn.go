package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	driverpkg "modernc.org/sqlite"
)

// Sizes of the page caches, in KiB. Together with the rest of the process they
// keep a store of a million users well under 150 MiB.
const (
	writerCacheKiB = 24 << 10
	readerCacheKiB = 6 << 10
)

// dsn names the file and the settings that every connection of its kind has. Being
// part of the name they hold for each connection, however it comes about.
func dsn(path string, cacheKiB int, pragmas ...string) string {
	sync := "FULL"
	if planted(faultSyncOff) {
		sync = "OFF"
	}
	return address(path, url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
		"busy_timeout(5000)",
		"journal_mode(WAL)",
		"synchronous(" + sync + ")",
		"foreign_keys(OFF)",
		"temp_store(MEMORY)",
		"trusted_schema(OFF)",
		// The writer checkpoints by itself, between a group's answers and the next group.
		"wal_autocheckpoint(0)",
		"cache_size(-" + strconv.Itoa(cacheKiB) + ")",
	}, pragmas...)})
}

func address(path string, query url.Values) string {
	// A driver sees "?" as the end of the name, SQLite decodes what is escaped.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
}

// readOnlyDSN is dsn for a file that is only looked at. Closing the last connection that
// may write copies the write-ahead log into the database and removes it; after a kill
// that would be one that only came to look, and the log may be what has to be looked at.
func readOnlyDSN(path string) string {
	return address(path, url.Values{"mode": {"ro"}, "_pragma": {
		"busy_timeout(5000)",
		"temp_store(MEMORY)",
		"trusted_schema(OFF)",
		"cache_size(-" + strconv.Itoa(readerCacheKiB) + ")",
	}})
}

// fileDSN is readOnlyDSN for the database file alone, without its write-ahead log. A
// checkpoint that was interrupted leaves a file that is shorter than its header says;
// writable_schema lets SQLite read that too.
func fileDSN(path string) string {
	return address(path, url.Values{"mode": {"ro"}, "immutable": {"1"}, "_pragma": {"writable_schema(ON)", "trusted_schema(OFF)"}})
}

// conn is one connection with its prepared statements. It is used by one goroutine
// at a time.
type conn struct {
	raw   driver.Conn
	stmts []*stmt
}

func connect(ctx context.Context, name string) (*conn, error) {
	connector, err := driverpkg.NewConnector(name)
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{raw: raw}, nil
}

// prepare compiles a statement that lives as long as the connection. After the
// first failure, which err keeps, it does nothing.
//
//nolint:contextcheck,nolintlint // see stmt; what is left out shows only at the callers
func (c *conn) prepare(err *error, query string) *stmt {
	if *err != nil {
		return nil
	}
	preparer, ok := c.raw.(driver.ConnPrepareContext)
	if !ok {
		*err = errors.New("the SQLite driver cannot prepare statements")
		return nil
	}
	raw, failure := preparer.PrepareContext(context.Background(), query)
	if failure != nil {
		*err = fmt.Errorf("prepare %q: %w", query, failure)
		return nil
	}
	execer, canExec := raw.(driver.StmtExecContext)
	queryer, canQuery := raw.(driver.StmtQueryContext)
	if !canExec || !canQuery {
		*err = errors.Join(errors.New("the SQLite driver cannot run statements"), raw.Close())
		return nil
	}
	s := &stmt{raw: raw, execer: execer, queryer: queryer}
	c.stmts = append(c.stmts, s)
	return s
}

// run carries out a statement that is not worth preparing.
func (c *conn) run(query string, args ...driver.Value) error {
	var err error
	s := c.prepare(&err, query)
	if err != nil {
		return err
	}
	c.stmts = c.stmts[:len(c.stmts)-1]
	err = s.exec(args...)
	return errors.Join(err, s.raw.Close())
}

// rows reads the rows of a query that is not worth preparing.
func (c *conn) rows(query string, visit func([]driver.Value) error, args ...driver.Value) error {
	var err error
	s := c.prepare(&err, query)
	if err != nil {
		return err
	}
	c.stmts = c.stmts[:len(c.stmts)-1]
	err = s.each(func(row []driver.Value) (bool, error) { return true, visit(row) }, args...)
	return errors.Join(err, s.raw.Close())
}

// rowsUntil is rows for a query that takes long: it ends when the context does.
func (c *conn) rowsUntil(ctx context.Context, query string, visit func([]driver.Value) error) (err error) {
	queryer, ok := c.raw.(driver.QueryerContext)
	if !ok {
		return errors.New("the SQLite driver cannot run queries")
	}
	rows, err := queryer.QueryContext(ctx, query, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := visit(row); err != nil {
			return err
		}
	}
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// stmt is a prepared statement. Arguments are int64, string, []byte or nil. Its
// buffers are used again by the next call.
//
// It runs without the caller's context: with one that can end the driver starts a
// goroutine for each call, which costs more than the short reads and writes here.
// Whoever reads looks at the caller's context between statements.
type stmt struct {
	raw     driver.Stmt
	execer  driver.StmtExecContext
	queryer driver.StmtQueryContext
	args    []driver.NamedValue
	row     []driver.Value
}

func (s *stmt) bind(args []driver.Value) []driver.NamedValue {
	if s.args == nil {
		s.args = make([]driver.NamedValue, len(args))
		for i := range s.args {
			s.args[i].Ordinal = i + 1
		}
	}
	for i, value := range args {
		s.args[i].Value = value
	}
	return s.args
}

// exec carries the statement out.
//
//nolint:contextcheck,nolintlint // see stmt; what is left out shows only at the callers
func (s *stmt) exec(args ...driver.Value) error {
	_, err := s.execer.ExecContext(context.Background(), s.bind(args))
	return err
}

// each visits the rows until visit returns false. A row is good until the visit ends.
//
//nolint:contextcheck,nolintlint // see stmt; what is left out shows only at the callers
func (s *stmt) each(visit func(row []driver.Value) (more bool, err error), args ...driver.Value) (err error) {
	rows, err := s.queryer.QueryContext(context.Background(), s.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		if err := rows.Next(s.row); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if more, err := visit(s.row); err != nil || !more {
			return err
		}
	}
}

// one reads the first row into the statement's buffer; nil if there is none.
func (s *stmt) one(args ...driver.Value) (row []driver.Value, err error) {
	err = s.each(func(r []driver.Value) (bool, error) {
		row = r
		return false, nil
	}, args...)
	return row, err
}

// number reads the one number of the first row; ok is false if there is no row or
// it holds NULL.
func (s *stmt) number(args ...driver.Value) (n int64, ok bool, err error) {
	row, err := s.one(args...)
	if err != nil || row == nil {
		return 0, false, err
	}
	n, ok = row[0].(int64)
	return n, ok, nil
}
