package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// closedStore returns the path of a closed store with its meta table, and the number of the page of that.
func closedStore(t *testing.T) (path string, main metaRow, metaPage uint32) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "users.db")
	if err := openTest(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	main, metaPage, err := readMain(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return path, main, metaPage
}

// A journal belongs to a database if its header and each valid record fit it.
func TestJournalBelongs(t *testing.T) {
	path, main, metaPage := closedStore(t)
	original := readPages(t, path)
	writeJournal(t, path, original, 1, metaPage)
	written := readPages(t, path+"-journal")
	const records, record = 512, 4 + testPageBytes + 4
	setHeader := func(i int, v uint32) func([]byte) {
		return func(journal []byte) { binary.BigEndian.PutUint32(journal[len(journalMagic)+4*i:], v) }
	}
	// setByte changes the byte at an offset of page 1 and its checksum.
	setByte := func(offset int) func([]byte) {
		return func(journal []byte) {
			page, sum := journal[records+4:records+4+testPageBytes], journal[records+4+testPageBytes:]
			page[offset]++
			binary.BigEndian.PutUint32(sum, journalChecksum(42, page))
		}
	}
	for name, test := range map[string]struct {
		edit func(journal []byte)
		want bool
	}{
		"unchanged":                      {func([]byte) {}, true},
		"another number of pages":        {setHeader(2, uint32(len(original)/testPageBytes)+1), false},
		"more pages than a store writes": {setHeader(0, journalMaxPages+1), false},
		"records at another offset":      {setHeader(3, records+1), true}, // SQLite ignores what has another checksum
		"end of page 1 differs":          {setByte(testPageBytes - 1), false},
		"before the journal mode":        {setByte(17), false},
		"journal mode":                   {setByte(18), true},
		"end of the journal mode":        {setByte(19), true},
		"after the journal mode":         {setByte(20), false},
		"before the change counter":      {setByte(23), false},
		"change counter":                 {setByte(24), true},
		"end of the change counter":      {setByte(27), true},
		"after the change counter":       {setByte(28), false},
		"before the version":             {setByte(91), false},
		"version":                        {setByte(92), true},
		"end of the version":             {setByte(99), true},
		"after the version":              {setByte(100), false},
		"foreign page":                   {func(b []byte) { binary.BigEndian.PutUint32(b[records:], metaPage+1) }, false},
		"foreign page after page 1":      {func(b []byte) { binary.BigEndian.PutUint32(b[records+record:], metaPage+1) }, false},
		"foreign page, wrong checksum":   {func(b []byte) { b[records+3] = 99; b[records+record-1]++ }, true},
	} {
		t.Run(name, func(t *testing.T) {
			journal := bytes.Clone(written)
			test.edit(journal)
			if err := os.WriteFile(path+"-journal", journal, 0o600); err != nil {
				t.Fatal(err)
			}
			wantBelongs(t, checkJournal(path, main, metaPage), test.want)
		})
	}
	for name, test := range map[string]struct {
		edit func(*metaRow)
		want bool
	}{
		"same transaction":            {func(*metaRow) {}, true},
		"another session":             {func(m *metaRow) { m.session++ }, false},
		"another transaction":         {func(m *metaRow) { m.commits++ }, false},
		"store without a session yet": {func(m *metaRow) { m.session = 0 }, true},
		"store of an older release":   {func(m *metaRow) { m.session, m.hasSession = 0, false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			writeJournal(t, path, original, metaPage)
			main := main
			test.edit(&main)
			wantBelongs(t, checkJournal(path, main, metaPage), test.want)
		})
	}
	t.Run("page of another kind as meta table", func(t *testing.T) {
		writeJournal(t, path, make([]byte, len(original)), metaPage)
		wantBelongs(t, checkJournal(path, main, metaPage), false)
	})
}

func wantBelongs(t *testing.T, err error, want bool) {
	t.Helper()
	if want && err != nil || !want && (err == nil || !strings.Contains(err.Error(), "of another database")) {
		t.Errorf("checkJournal = %v, want an error about another database: %v", err, !want)
	}
}

// SQLite ignores a journal without a complete header.
func TestJournalWithoutHeaderIsIgnored(t *testing.T) {
	path, main, metaPage := closedStore(t)
	writeJournal(t, path, make([]byte, testPageBytes))
	written := readPages(t, path+"-journal")
	wantBelongs(t, checkJournal(path, main, metaPage), false)
	for name, content := range map[string][]byte{
		"empty": nil, "short": written[:journalHeaderSize-1], "zeroed magic": append(make([]byte, len(journalMagic)), written[len(journalMagic):]...),
	} {
		if err := os.WriteFile(path+"-journal", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkJournal(path, main, metaPage); err != nil {
			t.Errorf("%s: checkJournal = %v, want nil", name, err)
		}
	}
}

// The sizes of pages and the number of records are bounded before anything is read.
func TestJournalBounds(t *testing.T) {
	for _, test := range []struct {
		fileSize, pageSize, count int
		want                      bool
	}{
		{fileSize: 8 * 512, pageSize: 512, want: true},
		{fileSize: 16 * 256, pageSize: 256},
		{fileSize: 65536, pageSize: 65536, want: true},
		{fileSize: 1 << 17, pageSize: 1 << 17},
		{fileSize: 4096, pageSize: 4096, count: journalMaxPages, want: true},
		{fileSize: 4096, pageSize: 4096, count: journalMaxPages + 1},
	} {
		db := openBytes(t, make([]byte, test.fileSize))
		header := journalHeader(test.count, test.fileSize/test.pageSize, test.pageSize)
		got, err := journalBelongs(bytes.NewReader(nil), header, db, metaRow{}, 2)
		if got != test.want || err != nil {
			t.Errorf("%+v: journalBelongs = %v, %v, want %v", test, got, err, test.want)
		}
	}
}

type failingReader struct{ err error }

func (u failingReader) ReadAt([]byte, int64) (int, error) { return 0, u.err }

func TestJournalOfUnreadableFiles(t *testing.T) {
	failed := errors.New("failed")
	if _, err := journalBelongs(failingReader{failed}, journalHeader(1, 1, 4096), openBytes(t, make([]byte, 4096)), metaRow{}, 2); !errors.Is(err, failed) {
		t.Errorf("journal that cannot be read: journalBelongs error = %v, want %v", err, failed)
	}
	if _, err := journalBelongs(bytes.NewReader(nil), journalHeader(0, 0, 4096), openBytes(t, nil), metaRow{}, 2); err == nil {
		t.Error("database without a first page: journalBelongs succeeded, want an error")
	}
	closed := openBytes(t, nil)
	_ = closed.Close()
	if _, err := journalBelongs(bytes.NewReader(nil), journalHeader(0, 0, 4096), closed, metaRow{}, 2); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed database: journalBelongs error = %v, want %v", err, os.ErrClosed)
	}
	path := filepath.Join(t.TempDir(), "users.db")
	writeJournal(t, path, nil)
	if err := checkJournal(path, metaRow{}, 2); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: checkJournal = %v, want %v", err, os.ErrNotExist)
	}
	for name, create := range map[string]func(name string) error{
		"directory":     func(name string) error { return os.Mkdir(name, 0o700) },
		"symbolic loop": func(name string) error { return os.Symlink(name, name) },
	} {
		path := filepath.Join(t.TempDir(), "users.db")
		if err := create(path + "-journal"); err != nil {
			t.Fatal(err)
		}
		if err := checkJournal(path, metaRow{}, 2); err == nil {
			t.Errorf("journal is a %s: checkJournal succeeded, want an error", name)
		}
	}
}

// journalHeader returns what follows the magic bytes.
func journalHeader(count, pages, pageSize int) []byte {
	var b []byte
	for _, n := range []int{count, 42, pages, 512, pageSize} {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	return b
}

func openBytes(t *testing.T, content []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
