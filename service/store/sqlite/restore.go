package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RestoreOptions configures Restore.
type RestoreOptions struct {
	// Force replaces an existing store, whose files are renamed.
	Force bool
	// Incomplete accepts a backup whose write-ahead log is missing.
	Incomplete bool
	Now        time.Time                     // used in the names of replaced files
	Progress   func(done, total int)         // called with pages copied and rows checked; may be nil
	Renamed    func(oldPath, newPath string) // called for each replaced file; may be nil
}

// Restore replaces the store at path with a copy of backup. The copy is checked first, has
// mode 0600 and is synced when Restore returns. It gets a new epoch when it is first opened.
//
// Restore fails if a process has the store at path open, and if the backup is damaged, is
// not a store or has a newer schema than this program. If Restore is killed, path is either
// the old store or the restored one. The write-ahead log of the replaced store is renamed
// last: if it is left, Open fails until Restore is repeated.
func Restore(ctx context.Context, backup, path string, opts RestoreOptions) error {
	if opts.Progress == nil {
		opts.Progress = func(int, int) {}
	}
	if opts.Renamed == nil {
		opts.Renamed = func(string, string) {}
	}
	target, err := resolve(path)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", path, err)
	}
	if err := restore(ctx, backup, target, opts); err != nil {
		return fmt.Errorf("restore %s to %s: %w", backup, path, translate(err))
	}
	return nil
}

func restore(ctx context.Context, backup, target string, opts RestoreOptions) (err error) {
	replaced, err := lockReplaced(target)
	if err != nil {
		return err
	}
	if replaced != nil {
		defer func() { err = errors.Join(err, replaced.unlock()) }()
	}
	if err := mayReplace(target, opts.Force); err != nil {
		return err
	}
	source, err := openBackup(ctx, backup, target, opts.Incomplete)
	if err != nil {
		return err
	}
	partial, err := source.copyBeside(ctx, target, opts.Progress)
	if err != nil {
		return err
	}
	lock, err := verifyCopy(ctx, partial, opts)
	if err != nil {
		return errors.Join(err, removeAll(partial, partial+"-wal", partial+"-shm", partial+"-journal"))
	}
	defer func() { err = errors.Join(err, lock.unlock()) }()
	if err := install(partial, target, replaced, opts); err != nil {
		return errors.Join(err, removeAll(partial))
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return fmt.Errorf("the store is restored, but a crash of the machine may undo it: %w", err)
	}
	return nil
}

// lockReplaced locks the database to be replaced. It returns nil if there is none.
func lockReplaced(target string) (*fileLock, error) {
	f, err := os.OpenFile(target, os.O_RDWR, 0) //nolint:gosec // path given by the operator
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing to lock
	}
	if err != nil {
		return nil, err
	}
	lock, err := lockOpen(f)
	if err != nil {
		return nil, err
	}
	same, err := lock.isAt(target)
	if err == nil && !same {
		err = errors.New("replaced by another process")
	}
	if err != nil {
		return nil, errors.Join(err, lock.unlock())
	}
	return lock, nil
}

// mayReplace returns an error if the store exists and force is false.
func mayReplace(target string, force bool) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		info, err := os.Lstat(target + suffix)
		if err == nil && info.Size() > 0 && !force {
			return fmt.Errorf("%s exists; use --force to replace it (it is renamed)", target+suffix)
		}
	}
	return nil
}

// openBackup opens the backup to restore.
func openBackup(ctx context.Context, backup, target string, incomplete bool) (*File, error) {
	resolved, err := resolve(backup)
	if err != nil {
		return nil, err
	}
	from, err := os.Stat(resolved)
	if err != nil {
		return nil, err
	}
	if to, err := os.Stat(target); err == nil && os.SameFile(from, to) {
		return nil, errors.New("backup and store are the same file")
	}
	if from.Size() == 0 {
		return nil, errors.New("backup is empty")
	}
	if err := checkLength(resolved, from.Size()); err != nil {
		return nil, err
	}
	if incomplete {
		return readFile(ctx, resolved)
	}
	return openFile(ctx, resolved)
}

// checkLength returns an error for a database without a log that is shorter than its header
// states: SQLite would read the missing pages as zeros.
func checkLength(path string, size int64) error {
	if log, err := readWAL(path+"-wal", 0); err != nil || log.commits > 0 {
		return err
	}
	f, err := os.Open(path) //nolint:gosec // path given by the operator
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var header [100]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return checkHeader(f)
	}
	page := int64(binary.BigEndian.Uint16(header[16:]))
	if page == 1 {
		page = 65536
	}
	if pages := int64(binary.BigEndian.Uint32(header[28:])); size < pages*page {
		return fmt.Errorf("backup is damaged: file size %d, want %d by its header", size, pages*page)
	}
	return nil
}

// verifyCopy migrates and checks the copy, and returns it locked.
func verifyCopy(ctx context.Context, partial string, opts RestoreOptions) (*fileLock, error) {
	if err := checkStore(ctx, partial, true); err != nil {
		return nil, err
	}
	if err := migrate(ctx, partial); err != nil {
		return nil, err
	}
	if err := removeWAL(ctx, partial); err != nil {
		return nil, err
	}
	findings, err := newFile(partial).Check(ctx, opts.Progress)
	if err != nil {
		return nil, err
	}
	if len(findings) > 0 {
		return nil, fmt.Errorf("backup is damaged: %s", strings.Join(findings, "; "))
	}
	if err := syncFile(partial); err != nil {
		return nil, err
	}
	return lockFile(partial)
}

// removeWAL turns a closed database into a single file without a write-ahead log.
func removeWAL(ctx context.Context, path string) error {
	c, err := connect(ctx, address(path, url.Values{"_pragma": {"busy_timeout(5000)"}}))
	if err != nil {
		return err
	}
	err = c.rows("PRAGMA journal_mode = DELETE", func([]driver.Value) error { return nil })
	return errors.Join(err, c.close())
}

// install renames the copy to target, with the owner of the replaced database. Replaced files are renamed: the database is hard-linked
// to a second name, the copy is renamed over it, then the log is renamed. Between the last
// two steps Open fails, because the log does not belong to the copy.
func install(partial, target string, replaced *fileLock, opts RestoreOptions) error {
	renamed := target + ".replaced-" + opts.Now.UTC().Format("20060102T150405.000000Z")
	if replaced == nil {
		if err := moveWAL(target, renamed, opts); err != nil {
			return err
		}
		return publish(partial, target)
	}
	info, err := replaced.file.Stat()
	if err == nil {
		err = keepOwner(partial, info)
	}
	if err != nil {
		return err
	}
	if err := os.Link(target, renamed); err != nil {
		return fmt.Errorf("link the replaced store: %w", err)
	}
	if err := os.Rename(partial, target); err != nil {
		return errors.Join(err, os.Remove(renamed))
	}
	opts.Renamed(target, renamed)
	if err := moveWAL(target, renamed, opts); err != nil {
		return fmt.Errorf("the restored database is in place, beside a log of the replaced one: repeat the command: %w", err)
	}
	return nil
}

// moveWAL renames the WAL and the journal of a replaced database, and removes the WAL index.
func moveWAL(target, renamed string, opts RestoreOptions) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		err := os.Rename(target+suffix, renamed+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		opts.Renamed(target+suffix, renamed+suffix)
	}
	return removeAll(target + "-shm")
}
