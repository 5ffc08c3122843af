package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/store/encoding"
	"github.com/yourorg/userservice/service/user"
)

// File is the database file of a store, for commands that copy or check it. Another
// process may use the store.
type File struct {
	path string
	dsn  string
}

// OpenFile opens the file of an existing store. It takes no lock and modifies neither the
// database nor its write-ahead log; SQLite creates an empty log if there is none.
func OpenFile(ctx context.Context, path string) (*File, error) {
	f, err := openFile(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, translate(err))
	}
	return f, nil
}

func openFile(ctx context.Context, path string) (*File, error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if err := checkWALOfOpenStore(ctx, resolved); err != nil {
		return nil, err
	}
	return readFile(ctx, resolved)
}

// readFile is openFile for a resolved path, without the check of the write-ahead log.
func readFile(ctx context.Context, resolved string) (*File, error) {
	db, err := os.Open(resolved) //nolint:gosec // path given by the operator
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkHeader(db), db.Close()); err != nil {
		return nil, err
	}
	f := newFile(resolved)
	_, err = f.head(ctx)
	if _, failure := os.Lstat(resolved + "-wal"); code(err)&0xff == codes.SQLITE_CANTOPEN && errors.Is(failure, fs.ErrNotExist) {
		// SQLite cannot create a WAL index on a read-only file system. There is no WAL to read.
		f.dsn = fileDSN(resolved)
		_, err = f.head(ctx)
	}
	if err == nil {
		err = f.checkComplete(ctx)
	}
	if err != nil {
		return nil, disk{path: resolved}.diagnose(err)
	}
	return f, nil
}

func (f *File) checkComplete(ctx context.Context) error {
	c, err := connect(ctx, f.dsn)
	if err != nil {
		return err
	}
	return errors.Join(checkComplete(c), c.close())
}

func newFile(path string) *File { return &File{path: path, dsn: readOnlyDSN(path)} }

// head reads the head of the log from the meta table.
func (f *File) head(ctx context.Context) (head user.Head, err error) {
	c, err := connect(ctx, f.dsn)
	if err != nil {
		return head, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	err = c.rows("SELECT epoch, position, time FROM meta", func(row []driver.Value) error {
		head.Epoch, head.Position = asText(row[0]), asNumber(row[1])
		if head.Position > 0 {
			head.Time = encoding.FromMicros(asNumber(row[2]))
		}
		return nil
	})
	return head, err
}

// Backup is [File.Backup] for the file of the store.
func (s *Store) Backup(ctx context.Context, path string, progress func(done, total int)) error {
	return newFile(s.opts.Path).Backup(ctx, path, progress)
}

// Check is [File.Check] for the file of the store.
func (s *Store) Check(ctx context.Context, progress func(done, total int)) ([]string, error) {
	return newFile(s.opts.Path).Check(ctx, progress)
}
