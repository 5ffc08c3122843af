package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	driverpkg "modernc.org/sqlite"
)

// backupStep is the number of pages copied between checks of the context.
const backupStep = 512

// Backup writes a consistent, synced copy of the store to path, which must not exist, and must not be the name of
// a log or journal of the store: SQLite would delete it.
// Another process may use the store. The copy gets a new epoch when it is first opened.
// After an error no file is left. progress may be nil.
//
// The backup holds a read transaction, so the write-ahead log grows until it ends.
func (f *File) Backup(ctx context.Context, path string, progress func(done, total int)) error {
	if progress == nil {
		progress = func(int, int) {}
	}
	if err := f.backup(ctx, path, progress); err != nil {
		return fmt.Errorf("back up to %s: %w", path, translate(err))
	}
	return nil
}

func (f *File) backup(ctx context.Context, path string, progress func(done, total int)) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	if target, err := resolve(path); err != nil {
		return err
	} else if suffix, ok := strings.CutPrefix(target, f.path); ok && slices.Contains(sidecars[:], suffix) {
		return errors.New("is the name of a file of the store; use another path")
	}
	partial, err := f.copyBeside(ctx, path, progress)
	if err != nil {
		return err
	}
	if err := publish(partial, path); err != nil {
		return errors.Join(err, removeAll(partial))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, removeAll(path))
	}
	return nil
}

// copyBeside writes a synced copy of the store to a new file in the directory of path.
// After an error no file is left.
func (f *File) copyBeside(ctx context.Context, path string, progress func(done, total int)) (partial string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".partial-*")
	if err != nil {
		return "", err
	}
	partial = file.Name()
	defer func() {
		if err != nil {
			err = errors.Join(err, removeAll(partial, partial+"-journal", partial+"-wal", partial+"-shm"))
		}
	}()
	// SQLite creates the journal with the mode of the database.
	if err := errors.Join(file.Chmod(fileMode), file.Close()); err != nil {
		return partial, err
	}
	if err := f.copyTo(ctx, partial, progress); err != nil {
		return partial, err
	}
	return partial, syncFile(partial)
}

// publish renames a complete file to path, and fails if path exists.
func publish(partial, path string) error {
	err := os.Link(partial, path)
	switch {
	case err == nil:
		return os.Remove(partial)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	// The file system has no hard links. An empty file reserves the name first.
	name, err := createFile(path)
	if err != nil {
		return err
	}
	return errors.Join(name.Close(), os.Rename(partial, path))
}

// copyTo copies the pages of the store in one read transaction.
func (f *File) copyTo(ctx context.Context, path string, progress func(done, total int)) (err error) {
	source, err := connect(ctx, f.dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	// Without a transaction SQLite would restart the backup after each commit.
	if err := source.run("BEGIN"); err != nil {
		return err
	}
	if err := source.rows("SELECT position FROM meta", func([]driver.Value) error { return nil }); err != nil {
		return err
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	maker, ok := source.raw.(interface {
		NewBackup(to string) (*driverpkg.Backup, error)
	})
	if !ok {
		return errors.New("the SQLite driver cannot make backups")
	}
	backup, err := maker.NewBackup("file:" + (&url.URL{Path: absolute}).EscapedPath())
	if err != nil {
		return err
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return errors.Join(context.Cause(ctx), backup.Finish())
		}
		if more, err = backup.Step(backupStep); err != nil {
			_ = backup.Finish() // the same error
			return err
		}
		total := backup.PageCount()
		progress(total-backup.Remaining(), total)
	}
	raw, err := backup.Commit()
	if err != nil {
		return err
	}
	target := &conn{raw: raw}
	// The copy is a single file, without a write-ahead log.
	err = target.rows("PRAGMA journal_mode = DELETE", func([]driver.Value) error { return nil })
	if err == nil {
		err = markCopied(target)
	}
	return errors.Join(err, target.close())
}

// markCopied marks a database as a copy that is not open. Earlier releases have no
// column place.
func markCopied(c *conn) error {
	query := "UPDATE meta SET copied = 1"
	err := c.rows("SELECT 1 FROM pragma_table_info('meta') WHERE name = 'place'", func([]driver.Value) error {
		query += ", place = ''"
		return nil
	})
	if err != nil {
		return err
	}
	return c.run(query)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // path given by the operator
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeAll removes the files that exist.
func removeAll(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
