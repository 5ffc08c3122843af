package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	driverpkg "modernc.org/sqlite"
)

// backupStep is how many pages are copied between two looks at the context.
const backupStep = 512

// Backup writes a consistent copy of the store to path, while a process may serve
// from it. The
// copy is synced before Backup returns, and gets an epoch of its own when it is
// first opened. A file that is there is not overwritten, and after an error none is
// left. progress, which may be nil, is told of the pages copied so far.
//
// The copy is what the store was when the backup began. Until it ends the write-ahead
// log grows, because what the copy is read from may not be overwritten.
func (f *File) Backup(ctx context.Context, path string, progress func(done, total int)) (err error) {
	if progress == nil {
		progress = func(int, int) {}
	}
	// The name is taken first, so that two backups cannot both find it free, and is
	// replaced by the finished copy in the end.
	place, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	partial := path + ".partial"
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("back up to %s: %w", path, translate(err)), removeAll(path, partial, partial+"-journal"))
		}
	}()
	if err := place.Close(); err != nil {
		return err
	}
	if err := removeAll(partial, partial+"-journal"); err != nil {
		return err
	}
	if err := f.copyTo(ctx, partial, progress); err != nil {
		return err
	}
	if err := syncFile(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// copyTo copies the store's pages from one instant.
func (f *File) copyTo(ctx context.Context, path string, progress func(done, total int)) (err error) {
	source, err := connect(ctx, readOnlyDSN(f.path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	// An open transaction holds the instant: without it the copy would begin anew
	// after each commit.
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
			return errors.Join(err, backup.Finish())
		}
		total := backup.PageCount()
		progress(total-backup.Remaining(), total)
	}
	raw, err := backup.Commit()
	if err != nil {
		return err
	}
	target := &conn{raw: raw}
	// The copy is one file: without a write-ahead log of its own until it is opened.
	err = target.rows("PRAGMA journal_mode = DELETE", func([]driver.Value) error { return nil })
	if err == nil {
		err = target.run("UPDATE meta SET copied = 1")
	}
	return errors.Join(err, target.close())
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeAll removes the files that there are.
func removeAll(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
