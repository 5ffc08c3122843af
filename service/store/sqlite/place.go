package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
)

// journalLimit is how large SQLite leaves the write-ahead log when it begins it anew.
const journalLimit = 64 << 20

// place is where a file that is open was found. A process that has a file open does not
// notice when its name is removed or given to another file: it would write, sync and
// acknowledge what the next start does not find.
type place struct {
	path  string
	limit int64 // up to which the file never shrinks
	info  os.FileInfo
}

// findPlaces notes where the files of a database are that has just been opened.
func findPlaces(path string) (places [2]place, err error) {
	places = [2]place{{path: path, limit: 1 << 62}, {path: path + "-wal", limit: journalLimit}}
	for i := range places {
		if places[i].info, err = os.Stat(places[i].path); err != nil {
			return places, err
		}
	}
	return places, nil
}

// content is what a database file says of itself while it is open: its session. A process
// that copies another file over it in place keeps the name, the file and perhaps the size.
type content struct {
	file    *os.File
	at      int64 // of the page of the meta table
	page    []byte
	session int64 // 0: it is not known
}

// findContent finds where the file of a database that has just been opened has the session.
// A file that a checkpoint has not brought it into yet is not watched.
func findContent(c *conn, file *os.File) (found content, err error) {
	var page, size, session int64
	err = c.rows("SELECT rootpage, page_size, session FROM sqlite_schema, pragma_page_size, meta WHERE name = 'meta'", func(row []driver.Value) error {
		page, size, session = asNumber(row[0]), asNumber(row[1]), asNumber(row[2])
		return nil
	})
	if err != nil || page == 0 {
		return found, err
	}
	found = content{file: file, at: (page - 1) * size, page: make([]byte, size)}
	if _, err := file.ReadAt(found.page, found.at); err != nil {
		return found, nil //nolint:nilerr // the file has nothing of it yet, see beginSession
	}
	if mark, ok := parseMetaPage(found.page); ok && mark.session == session {
		found.session = mark.session
	}
	return found, nil
}

// check returns what has become of the file's content, nil if it is that of this session.
func (c *content) check() error {
	if c.session == 0 {
		return nil
	}
	if _, err := c.file.ReadAt(c.page, c.at); err != nil {
		return nil //nolint:nilerr // it cannot be looked at, which says nothing of it
	}
	if mark, ok := parseMetaPage(c.page); !ok || mark.session != c.session {
		return fmt.Errorf("%s was overwritten while it was open", c.file.Name())
	}
	return nil
}

// check returns what has become of the file, nil if it is where it was, and whole.
func (p *place) check() error {
	info, err := os.Stat(p.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s was removed while it was open", p.path)
	case err != nil:
		return nil //nolint:nilerr // it cannot be looked at, which says nothing of it
	case !os.SameFile(info, p.info):
		return fmt.Errorf("%s was replaced by another file while it was open", p.path)
	case info.Size() < min(p.info.Size(), p.limit):
		return fmt.Errorf("%s was cut from %d bytes to %d while it was open", p.path, p.info.Size(), info.Size())
	}
	p.info = info
	return nil
}
