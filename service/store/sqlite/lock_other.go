//go:build !unix

package sqlite

import (
	"errors"
	"os"
)

// fileLock is the lock by which one process owns a database file. Where there is no
// flock it is the existence of PATH.lock, which an operator removes after a crash.
type fileLock struct{ file *os.File }

func lockFile(path string) (*fileLock, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, errors.New("another process has it open; if none has, remove " + name)
	}
	if err != nil {
		return nil, err
	}
	return &fileLock{file: f}, nil
}

func (l *fileLock) unlock() error {
	return errors.Join(l.file.Close(), os.Remove(l.file.Name()))
}
