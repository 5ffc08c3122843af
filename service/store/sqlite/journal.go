package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// The format of a rollback journal, see https://www.sqlite.org/fileformat2.html#the_rollback_journal.
const (
	journalMagic      = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
	journalHeaderSize = 28
	journalMaxPages   = 16 // more than a store ever writes
)

// checkJournal returns an error if the rollback journal beside a database belongs to another database: SQLite
// would overwrite the database with its pages. A store has a journal only while it opens a copy and while it
// enables the write-ahead log, which change the meta table and the header of the database. A store that no server has
// used, such as the target of an interrupted move, has a journal of any transaction, which is not checked.
func checkJournal(path string, main metaRow, metaPage uint32) error {
	if main.hasSession && main.session == 0 {
		return nil
	}
	journal, err := os.Open(path + "-journal") //nolint:gosec // path given by the operator
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = journal.Close() }()
	var header [journalHeaderSize]byte
	if _, err := io.ReadFull(journal, header[:]); err != nil || string(header[:len(journalMagic)]) != journalMagic {
		return ignoreEnd(err) // SQLite ignores it
	}
	db, err := os.Open(path) //nolint:gosec // path given by the operator
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	belongs, err := journalBelongs(journal, header[len(journalMagic):], db, main, metaPage)
	if err == nil && !belongs {
		err = fmt.Errorf("%s-journal is the rollback journal of another database: move it away", path)
	}
	return err
}

// journalBelongs compares the pages in the first segment of a journal with those of the database.
func journalBelongs(journal io.ReaderAt, header []byte, db *os.File, main metaRow, metaPage uint32) (bool, error) {
	number := func(i int) uint32 { return binary.BigEndian.Uint32(header[4*i:]) }
	count, nonce, pages, sector, size := number(0), number(1), number(2), number(3), number(4)
	info, err := db.Stat()
	if err != nil {
		return false, err
	}
	if size < 512 || size > maxWALPageBytes || int64(pages)*int64(size) != info.Size() || count > journalMaxPages {
		return false, nil
	}
	first, record := make([]byte, size), make([]byte, 4+size+4)
	if _, err := db.ReadAt(first, 0); err != nil {
		return false, err
	}
	for i := range int64(count) {
		if _, err := journal.ReadAt(record, int64(sector)+i*int64(len(record))); err != nil {
			return true, ignoreEnd(err)
		}
		page := record[4 : 4+size]
		if journalChecksum(nonce, page) != binary.BigEndian.Uint32(record[4+size:]) {
			return true, nil // SQLite ignores the rest
		}
		switch binary.BigEndian.Uint32(record) {
		case 1:
			if !sameFirstPage(page, first) {
				return false, nil
			}
		case metaPage:
			if row, ok := parseMetaPage(page); !ok || row.session != main.session || row.commits != main.commits {
				return false, nil
			}
		default:
			return false, nil
		}
	}
	return true, nil
}

func journalChecksum(nonce uint32, page []byte) uint32 {
	for i := len(page) - 200; i > 0; i -= 200 {
		nonce += uint32(page[i])
	}
	return nonce
}

// sameFirstPage compares the first page of two states of a database, without the journal mode, the change
// counter and the version of SQLite.
func sameFirstPage(a, b []byte) bool {
	return bytes.Equal(a[:18], b[:18]) && bytes.Equal(a[20:24], b[20:24]) &&
		bytes.Equal(a[28:92], b[28:92]) && bytes.Equal(a[100:], b[100:])
}
