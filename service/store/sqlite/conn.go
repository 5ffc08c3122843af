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

// Page cache sizes in KiB. With them a process with a million users stays well below 150 MiB.
const (
	writerCacheKiB = 24 << 10
	readerCacheKiB = 6 << 10
)

// dsn returns the data source name of a read-write connection, with its PRAGMAs.
func dsn(path string, cacheKiB int, pragmas ...string) string {
	sync := "FULL"
	if planted(syncOff) {
		sync = "OFF"
	}
	return address(path, url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
		"busy_timeout(5000)",
		"journal_mode(WAL)",
		"synchronous(" + sync + ")",
		"foreign_keys(OFF)",
		"temp_store(MEMORY)",
		"trusted_schema(OFF)",
		// The writer runs checkpoints itself, after it has completed a group.
		"wal_autocheckpoint(0)",
		"cache_size(-" + strconv.Itoa(cacheKiB) + ")",
	}, pragmas...)})
}

func address(path string, query url.Values) string {
	// The driver ends the name at "?"; SQLite decodes percent-encoding.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
}

// readOnlyDSN returns the data source name of a read-only connection. Unlike a read-write
// connection, the last one to be closed does not checkpoint and remove the write-ahead log.
func readOnlyDSN(path string) string {
	return address(path, url.Values{"mode": {"ro"}, "_pragma": {
		"busy_timeout(5000)",
		"temp_store(MEMORY)",
		"trusted_schema(OFF)",
		"cache_size(-" + strconv.Itoa(readerCacheKiB) + ")",
	}})
}

// fileDSN is readOnlyDSN for the database file alone, without its write-ahead log. An
// interrupted checkpoint can leave the file shorter than its header states;
// writable_schema makes SQLite read it all the same.
func fileDSN(path string) string {
	return address(path, url.Values{"mode": {"ro"}, "immutable": {"1"}, "_pragma": {"writable_schema(ON)", "trusted_schema(OFF)"}})
}

// conn is a connection with its prepared statements. It is not safe for concurrent use.
type conn struct {
	raw      driver.Conn
	stmts    []*stmt
	rowsRead int64
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

// prepare compiles a statement, which close closes. It does nothing if *err is not nil,
// and sets it if it fails.
//
//nolint:contextcheck,nolintlint // see stmt; reported at the callers
func (c *conn) prepare(err *error, query string) *stmt {
	if *err != nil {
		return nil
	}
	preparer, ok := c.raw.(driver.ConnPrepareContext)
	if !ok {
		*err = errors.New("SQLite driver: PrepareContext not supported")
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
		*err = errors.Join(errors.New("SQLite driver: ExecContext or QueryContext not supported"), raw.Close())
		return nil
	}
	s := &stmt{conn: c, raw: raw, execer: execer, queryer: queryer}
	c.stmts = append(c.stmts, s)
	return s
}

// run executes a statement once, without keeping it prepared.
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

// rows calls visit for each row of a query that is not kept prepared.
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

// rowsContext is rows for a long query, which the context can interrupt.
func (c *conn) rowsContext(ctx context.Context, query string, visit func([]driver.Value) error) (err error) {
	queryer, ok := c.raw.(driver.QueryerContext)
	if !ok {
		return errors.New("SQLite driver: QueryContext not supported")
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

// stmt is a prepared statement. Arguments are int64, string, []byte or nil. Buffers are
// reused by the next call.
//
// It does not use the caller's context: for a context that can be canceled the driver
// starts a goroutine for each call, which costs more than the short statements here.
// Callers check their context between statements.
type stmt struct {
	conn    *conn
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

//nolint:contextcheck,nolintlint // see stmt; reported at the callers
func (s *stmt) exec(args ...driver.Value) error {
	_, err := s.execer.ExecContext(context.Background(), s.bind(args))
	return err
}

// each calls visit for each row until it returns false. A row is valid during the call only.
//
//nolint:contextcheck,nolintlint // see stmt; reported at the callers
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
		s.conn.rowsRead++
		if more, err := visit(s.row); err != nil || !more {
			return err
		}
	}
}

// one returns the first row, in the statement's buffer, or nil.
func (s *stmt) one(args ...driver.Value) (row []driver.Value, err error) {
	err = s.each(func(r []driver.Value) (bool, error) {
		row = r
		return false, nil
	}, args...)
	return row, err
}

// number returns the integer in the first row; ok is false for NULL and for no row.
func (s *stmt) number(args ...driver.Value) (n int64, ok bool, err error) {
	row, err := s.one(args...)
	if err != nil || row == nil {
		return 0, false, err
	}
	n, ok = row[0].(int64)
	return n, ok, nil
}
