package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"

	codes "modernc.org/sqlite/lib"
)

// isDamage reports whether SQLite says of the file that it is not what it should be.
func isDamage(err error) bool {
	c := code(err) & 0xff
	return c == codes.SQLITE_CORRUPT || c == codes.SQLITE_NOTADB
}

// unreadableError says that a file cannot be read where SQLite has found it damaged.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

func isUnreadable(err error) bool { return errors.As(err, new(unreadableError)) }

// lookCloser finds out whether a database that is said to be damaged can be read at
// all: SQLite makes of an error of the disk, EIO, that the database is malformed, and
// whoever restores a backup on such a disk is none the better for it.
func lookCloser(path string, err error) error {
	if !isDamage(err) {
		return err
	}
	for _, name := range []string{path, path + "-wal"} {
		if failure := sample(name); failure != nil && !errors.Is(failure, os.ErrNotExist) {
			return unreadableError{fmt.Errorf("the disk of the database cannot be read: %w", failure)}
		}
	}
	return err
}

// samples is how many pages of a file are looked at: enough to find out about a disk,
// and few enough to look at them whenever a read meets damage.
const samples = 256

// sample reads pages all over a file.
func sample(path string) error {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var page [4096]byte
	step := max(info.Size()/samples, int64(len(page)))
	for at := int64(0); at < info.Size(); at += step {
		if _, err := f.ReadAt(page[:], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}
