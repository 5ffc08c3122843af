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

// RestoreOptions say how Restore puts a backup in place.
type RestoreOptions struct {
	// Force replaces a store that is there. Its files are kept under other names.
	Force bool
	// Incomplete accepts a backup whose write-ahead log is missing.
	Incomplete bool
	Now        time.Time                 // goes into the names of replaced files
	Progress   func(done, total int)     // told of the pages copied and rows checked; may be nil
	Keep       func(replaced, by string) // told of each file that was renamed; may be nil
}

// Restore puts a copy of the store at backup in the place of the store at path. The copy
// is made and checked first, has the mode 0600 and is on disk when Restore returns. It
// gets an epoch of its own when it is first opened.
//
// Restore refuses while a process serves from path, and a backup that is damaged, is
// not a store or is newer than this program. It may be killed at any moment: path then
// names the store as it was, or the restored one. The log of the replaced store is
// renamed last; beside it Open refuses the restored one until Restore is repeated.
func Restore(ctx context.Context, backup, path string, opts RestoreOptions) error {
	if opts.Progress == nil {
		opts.Progress = func(int, int) {}
	}
	if opts.Keep == nil {
		opts.Keep = func(string, string) {}
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
	lock, err := verifiedCopy(ctx, partial, opts)
	if err != nil {
		return errors.Join(err, removeAll(partial, partial+"-wal", partial+"-shm", partial+"-journal"))
	}
	defer func() { err = errors.Join(err, lock.unlock()) }()
	if err := putInPlace(partial, target, replaced != nil, opts); err != nil {
		return errors.Join(err, removeAll(partial))
	}
	return syncFolder(filepath.Dir(target))
}

// lockReplaced locks the database that is to be replaced; nil if there is none.
func lockReplaced(target string) (*fileLock, error) {
	f, err := os.OpenFile(target, os.O_RDWR, 0) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is nothing to lock
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

// mayReplace refuses to replace files without being told to.
func mayReplace(target string, force bool) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		info, err := os.Lstat(target + suffix)
		if err == nil && info.Size() > 0 && !force {
			return fmt.Errorf("%s exists; --force replaces it and keeps it under another name", target+suffix)
		}
	}
	return nil
}

// openBackup opens what is to be restored.
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
		return nil, errors.New("the backup and the store are the same file")
	}
	if from.Size() == 0 {
		return nil, errors.New("the backup is empty")
	}
	if err := checkLength(resolved, from.Size()); err != nil {
		return nil, err
	}
	if incomplete {
		return readFile(ctx, resolved)
	}
	return openFile(ctx, resolved)
}

// checkLength refuses a database that is shorter than its header says: SQLite reads
// what is missing as zeros. One with a log of its own may be.
func checkLength(path string, size int64) error {
	if log, err := readWAL(path+"-wal", 0); err != nil || log.commits > 0 {
		return err
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	var header [100]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return checkHeader(f)
	}
	page := int64(binary.BigEndian.Uint16(header[16:]))
	if page == 1 {
		page = 65536
	}
	if pages := int64(binary.BigEndian.Uint32(header[28:])); size < pages*page {
		return fmt.Errorf("the backup is damaged: it has %d bytes, its header says %d", size, pages*page)
	}
	return nil
}

// verifiedCopy checks the copy before it gets its name, and locks it until it is in place
// and all else is done.
func verifiedCopy(ctx context.Context, partial string, opts RestoreOptions) (*fileLock, error) {
	if err := checkStore(ctx, partial, true); err != nil {
		return nil, err
	}
	if err := migrate(ctx, partial); err != nil {
		return nil, err
	}
	if err := withoutLog(ctx, partial); err != nil {
		return nil, err
	}
	findings, err := newFile(partial).Check(ctx, opts.Progress)
	if err != nil {
		return nil, err
	}
	if len(findings) > 0 {
		return nil, fmt.Errorf("the backup is damaged: %s", strings.Join(findings, "; "))
	}
	if err := syncFile(partial); err != nil {
		return nil, err
	}
	return lockFile(partial)
}

// withoutLog makes of a closed database one file that has no write-ahead log.
func withoutLog(ctx context.Context, path string) error {
	c, err := connect(ctx, address(path, url.Values{"_pragma": {"busy_timeout(5000)"}}))
	if err != nil {
		return err
	}
	err = c.rows("PRAGMA journal_mode = DELETE", func([]driver.Value) error { return nil })
	return errors.Join(err, c.close())
}

// putInPlace gives the finished copy its name. The files that it replaces are kept: the
// database gets a second name first, the copy takes its name in one step, and the log
// follows. Between these steps the copy lies beside a log that is not its own, which
// Open refuses.
func putInPlace(partial, target string, replaces bool, opts RestoreOptions) error {
	kept := target + ".replaced-" + opts.Now.UTC().Format("20060102T150405.000000Z")
	if !replaces {
		if err := moveLog(target, kept, opts); err != nil {
			return err
		}
		return publish(partial, target)
	}
	if err := os.Link(target, kept); err != nil {
		return fmt.Errorf("keep the replaced store: %w", err)
	}
	if err := os.Rename(partial, target); err != nil {
		return errors.Join(err, os.Remove(kept))
	}
	opts.Keep(target, kept)
	return moveLog(target, kept, opts)
}

// moveLog renames what SQLite left beside a replaced database, and removes the index of
// the log, which SQLite makes again.
func moveLog(target, kept string, opts RestoreOptions) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		err := os.Rename(target+suffix, kept+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		opts.Keep(target+suffix, kept+suffix)
	}
	return removeAll(target + "-shm")
}
