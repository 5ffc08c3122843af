package sqlite

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockHandle takes an open file description lock on one byte of the file. Unlike flock it
// does not conflict with SQLite's POSIX locks on a network file system; unlike a POSIX lock
// it survives the closing of other handles of the process. Where such locks are not
// supported it uses flock.
func lockHandle(f *os.File) (release func() error, err error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: lockOffset, Len: 1}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = errLocked
	}
	return func() error { return nil }, err // closing the handle releases the lock
}

// The byte range of a database on which SQLite holds a POSIX lock while it is open.
const (
	sqliteSharedFirst = 0x40000002
	sqliteSharedSize  = 510
)

// holder returns " (pid N)" for the process that has the database open, or "".
func holder(f *os.File) string {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: sqliteSharedFirst, Len: sqliteSharedSize}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", lock.Pid)
}
