package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/user"
)

// File is a store's file as an operator's command sees it: to be copied or looked
// over, beside a process that may be serving from it.
type File struct {
	path string
	dsn  string // of the connections to it
}

// OpenFile returns the file of a store that is there. It takes no lock, and changes
// neither the database nor its write-ahead log; where there is no log SQLite leaves an
// empty one. The error is meant for the person who gave the name.
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
	if err := checkPairBeside(ctx, resolved); err != nil {
		return nil, err
	}
	return readFile(ctx, resolved)
}

// readFile is openFile for a resolved path whose log is not looked at.
func readFile(ctx context.Context, resolved string) (*File, error) {
	db, err := os.Open(resolved) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkHeader(db), db.Close()); err != nil {
		return nil, err
	}
	f := newFile(resolved)
	_, err = f.head(ctx)
	if _, failure := os.Lstat(resolved + "-wal"); code(err)&0xff == codes.SQLITE_CANTOPEN && errors.Is(failure, fs.ErrNotExist) {
		// On a read-only file system SQLite cannot make the index of a log. There is no log.
		f.dsn = fileDSN(resolved)
		_, err = f.head(ctx)
	}
	if err != nil {
		return nil, disk{path: resolved}.lookCloser(err)
	}
	return f, nil
}

func newFile(path string) *File { return &File{path: path, dsn: readOnlyDSN(path)} }

// head reads the end of the log as the file has it.
func (f *File) head(ctx context.Context) (head user.Head, err error) {
	c, err := connect(ctx, f.dsn)
	if err != nil {
		return head, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	err = c.rows("SELECT epoch, position, time FROM meta", func(row []driver.Value) error {
		head.Epoch, head.Position = asText(row[0]), asNumber(row[1])
		if head.Position > 0 {
			head.Time = moment(asNumber(row[2]))
		}
		return nil
	})
	return head, err
}

// Backup is File.Backup on the store's own file.
func (s *Store) Backup(ctx context.Context, path string, progress func(done, total int)) error {
	return newFile(s.opts.Path).Backup(ctx, path, progress)
}

// Check is File.Check on the store's own file.
func (s *Store) Check(ctx context.Context, progress func(done, total int)) ([]string, error) {
	return newFile(s.opts.Path).Check(ctx, progress)
}
