package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"

	codes "modernc.org/sqlite/lib"

	"github.com/yourorg/userservice/service/store/encoding"
)

// isDamage reports whether err says that the database is corrupt.
func isDamage(err error) bool {
	c := code(err) & 0xff
	return errors.As(err, new(disorderError)) || errors.Is(err, encoding.ErrEncoding) || c == codes.SQLITE_CORRUPT || c == codes.SQLITE_NOTADB
}

// disorderError reports that rows were not returned in index order. A walk over such a
// corrupt b-tree may not end.
type disorderError struct{ rows string }

func (e disorderError) Error() string {
	return e.rows + " out of order: database disk image is malformed"
}

// unreadableError reports an I/O error of a file that SQLite reported as corrupt.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

func isUnreadable(err error) bool { return errors.As(err, new(unreadableError)) }

// disk gives access to the files of a database.
type disk struct {
	path string
	db   *os.File // may be nil
}

// diagnose replaces an error that reports corruption with an unreadableError if the
// files cannot be read: SQLite reports EIO as a malformed database, and on such a disk
// restoring a backup does not help.
func (d disk) diagnose(err error) error {
	if !isDamage(err) {
		return err
	}
	db := d.db
	if db == nil {
		opened, failure := os.Open(d.path)
		if failure != nil {
			return unreadable(err, failure)
		}
		defer func() { _ = opened.Close() }()
		db = opened
	}
	if failure := sample(db); failure != nil {
		return unreadable(err, failure)
	}
	wal, failure := os.Open(d.path + "-wal")
	if failure == nil {
		defer func() { _ = wal.Close() }()
		failure = sample(wal)
	}
	return unreadable(err, failure)
}

// unreadable returns an unreadableError for failure, or err if failure is nil or os.ErrNotExist.
func unreadable(err, failure error) error {
	if failure == nil || errors.Is(failure, os.ErrNotExist) {
		return err
	}
	return unreadableError{fmt.Errorf("database file cannot be read: %w", failure)}
}

// samples is the number of pages that sample reads, few enough to do so for each error.
const samples = 256

// sample reads pages spread over a file.
func sample(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return samplePages(f, info.Size())
}

func samplePages(r io.ReaderAt, size int64) error {
	var page [4096]byte
	step := max(size/samples, int64(len(page)))
	for at := int64(0); at < size; at += step {
		if _, err := r.ReadAt(page[:], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}
