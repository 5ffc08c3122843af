package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
)

// journalSizeLimit is the size to which SQLite truncates the write-ahead log on a reset.
const journalSizeLimit = 64 << 20

// fileIdentity detects that the path of an open file was removed, or refers to another file.
// Writes to the open file would succeed, and be lost at the next start.
type fileIdentity struct {
	path  string
	limit int64 // up to this size the file never shrinks
	info  os.FileInfo
}

// identifyFiles returns the identities of the database file and its write-ahead log.
func identifyFiles(path string) (files [2]fileIdentity, err error) {
	files = [2]fileIdentity{{path: path, limit: 1 << 62}, {path: path + "-wal", limit: journalSizeLimit}}
	for i := range files {
		if files[i].info, err = os.Stat(files[i].path); err != nil {
			return files, err
		}
	}
	return files, nil
}

// fileSession detects that the database file was overwritten in place, by the session ID in
// its meta table.
type fileSession struct {
	file    *os.File
	offset  int64 // of the page of the meta table
	page    []byte
	session int64 // 0: unknown, not checked
}

// findSession locates the session ID in the file of a database that was just opened. It is
// unknown if no checkpoint has written it to the file yet.
func findSession(c *conn, file *os.File) (found fileSession, err error) {
	var page, size, session int64
	err = c.rows("SELECT rootpage, page_size, session FROM sqlite_schema, pragma_page_size, meta WHERE name = 'meta'", func(row []driver.Value) error {
		page, size, session = asNumber(row[0]), asNumber(row[1]), asNumber(row[2])
		return nil
	})
	if err != nil {
		return found, err
	}
	found = fileSession{file: file, offset: (page - 1) * size, page: make([]byte, size)}
	if _, err := file.ReadAt(found.page, found.offset); err != nil {
		return found, nil //nolint:nilerr // not checkpointed yet, see beginSession
	}
	if meta, ok := parseMetaPage(found.page); ok && meta.session == session {
		found.session = session
	}
	return found, nil
}

// check returns an error if the file has the data of another session.
func (s *fileSession) check() error {
	if s.session == 0 {
		return nil
	}
	if _, err := s.file.ReadAt(s.page, s.offset); err != nil {
		return nil //nolint:nilerr // inconclusive
	}
	if meta, ok := parseMetaPage(s.page); !ok || meta.session != s.session {
		return fmt.Errorf("%s was overwritten while it was open", s.file.Name())
	}
	return nil
}

// check returns an error if the file was removed, replaced or truncated.
func (f *fileIdentity) check() error {
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s was removed while it was open", f.path)
	case err != nil:
		return nil //nolint:nilerr // inconclusive
	case !os.SameFile(info, f.info):
		return fmt.Errorf("%s was replaced by another file while it was open", f.path)
	case info.Size() < min(f.info.Size(), f.limit):
		return fmt.Errorf("%s was truncated from %d bytes to %d while it was open", f.path, f.info.Size(), info.Size())
	}
	f.info = info
	return nil
}
