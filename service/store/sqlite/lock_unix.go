//go:build unix && !linux

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockDir is a directory that all processes of a machine share.
const lockDir = "/tmp"

// lockHandle locks a file in lockDir that is named after the device and inode of the
// database. The database itself cannot be locked: on these systems flock conflicts with the
// POSIX locks of SQLite, and a POSIX lock is lost when SQLite closes a handle.
func lockHandle(f *os.File) (release func() error, err error) {
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil {
		return nil, err
	}
	name := filepath.Join(lockDir, fmt.Sprintf("userd-%x-%x.lock", info.Dev, info.Ino))
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock.Close, nil // not removed: two processes could then lock different files of that name
}

func holder(*os.File) string { return "" }
