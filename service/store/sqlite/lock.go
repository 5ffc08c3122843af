package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errLocked is returned by lockHandle if another process holds the lock.
var errLocked = errors.New("locked by another process")

// lockOffset is the offset of the locked byte, beyond all bytes that SQLite reads, writes or locks.
const lockOffset = 1 << 60

// fileLock is the exclusive lock of a process on a database. It belongs to the file and not
// to its name, so it also holds through symbolic links, hard links and bind mounts. The
// operating system releases it when the process ends.
//
// The handle must stay open while SQLite has the file open: closing any handle of a file
// releases the POSIX locks that SQLite holds on it.
type fileLock struct {
	file    *os.File
	created bool // by lockFile
	release func() error
}

// lockFile opens or creates the database file at a resolved path, and locks it.
func lockFile(path string) (*fileLock, error) {
	for {
		f, created, err := openOrCreate(path)
		if err != nil {
			return nil, err
		}
		l, err := lockOpen(f)
		if err != nil {
			return nil, err
		}
		l.created = created
		same, err := l.isAt(path)
		if err != nil {
			return nil, errors.Join(err, l.unlock())
		}
		if same {
			return l, nil
		}
		// The file was replaced between open and lock.
		if err := l.unlock(); err != nil {
			return nil, err
		}
	}
}

// lockOpen locks an open file. It closes the file if that fails.
func lockOpen(f *os.File) (*fileLock, error) {
	release, err := lockHandle(f)
	if errors.Is(err, errLocked) {
		err = errors.New("database is locked by another process" + holder(f) + "; stop it or use another file")
	} else if err != nil {
		err = fmt.Errorf("lock: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileLock{file: f, release: release}, nil
}

func openOrCreate(path string) (f *os.File, created bool, err error) {
	for {
		f, err = os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // path given by the operator
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, false, err
		}
		f, err = createFile(path)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return f, err == nil, err
		}
	}
}

// createFile creates a file with fileMode, regardless of the umask. It fails if the file exists.
func createFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // path given by the operator
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(fileMode); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return f, nil
}

// isAt reports whether the path names the locked file.
func (l *fileLock) isAt(path string) (bool, error) {
	locked, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, named), err
}

func (l *fileLock) unlock() error { return errors.Join(l.release(), l.file.Close()) }

// discard is unlock for a store that could not be opened. It removes a file that lockFile
// created if it is still empty.
func (l *fileLock) discard() error {
	if info, err := l.file.Stat(); err == nil && l.created && info.Size() == 0 {
		if same, err := l.isAt(l.file.Name()); err == nil && same {
			return errors.Join(os.Remove(l.file.Name()), l.unlock())
		}
	}
	return l.unlock()
}
