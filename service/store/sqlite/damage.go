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
	return errors.As(err, new(disorderError)) || c == codes.SQLITE_CORRUPT || c == codes.SQLITE_NOTADB
}

// disorderError says that rows did not come in the order of their index: what SQLite read
// is not one sound tree, and a walk through it may never end.
type disorderError struct{ what string }

func (e disorderError) Error() string {
	return e.what + " out of order: database disk image is malformed"
}

// unreadableError says that a file cannot be read where SQLite has found it damaged.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

func isUnreadable(err error) bool { return errors.As(err, new(unreadableError)) }

// disk is where a database lies.
type disk struct {
	path string
	db   *os.File // the open database; nil: it is opened where it is needed
}

// lookCloser finds out whether a database that is said to be damaged can be read at
// all: SQLite makes of an error of the disk, EIO, that the database is malformed, and
// whoever restores a backup on such a disk is none the better for it.
func (d disk) lookCloser(err error) error {
	if !isDamage(err) {
		return err
	}
	db := d.db
	if db == nil {
		opened, failure := os.Open(d.path)
		if failure != nil {
			return unreadable(err, failure)
		}
		defer func() { _ = opened.Close() }() // only read
		db = opened
	}
	if failure := sample(db); failure != nil {
		return unreadable(err, failure)
	}
	wal, failure := os.Open(d.path + "-wal")
	if failure == nil {
		defer func() { _ = wal.Close() }() // only read
		failure = sample(wal)
	}
	return unreadable(err, failure)
}

// unreadable returns the error for a file that could not be read for failure, and err
// where that says nothing.
func unreadable(err, failure error) error {
	if failure == nil || errors.Is(failure, os.ErrNotExist) {
		return err
	}
	return unreadableError{fmt.Errorf("the disk of the database cannot be read: %w", failure)}
}

// samples is how many pages of a file are looked at: enough to find out about a disk,
// and few enough to look at them whenever a read meets damage.
const samples = 256

// sample reads pages all over a file.
func sample(f *os.File) error {
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
