package sqlite

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockHandle locks one byte of the file for the handle (an open file description lock).
// Unlike flock, such a lock does not meet SQLite's own POSIX locks on a network file
// system; unlike a POSIX lock, it outlives other handles of the process. A system that
// does not know them gets flock.
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

// SQLite holds a POSIX lock on these bytes of every database that it has open.
const (
	sqliteSharedFirst = 0x40000002
	sqliteSharedSize  = 510
)

// holder names the process that has the database open, as a part of a sentence.
func holder(f *os.File) string {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: sqliteSharedFirst, Len: sqliteSharedSize}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", lock.Pid)
}
