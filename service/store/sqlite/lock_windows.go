package sqlite

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockHandle locks one byte of the file for the handle.
func lockHandle(f *os.File) (release func() error, err error) {
	at := &windows.Overlapped{Offset: uint32(lockOffset & 0xffffffff), OffsetHigh: uint32(lockOffset >> 32)}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		err = errLocked
	}
	return func() error { return nil }, err // closing the handle releases the lock
}

func holder(*os.File) string { return "" }
