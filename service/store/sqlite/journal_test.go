package sqlite

import (
	"bytes"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/store/move"
)

// Open fails if a log or journal beside a closed store was written for another database. No
// file is modified.
func TestOpenWithLogOfOtherDatabase(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, closed)
	createUser(t, s, "anna")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.db")
	c := openOther(t, other)
	if err := c.run("UPDATE a SET x = 'changed'"); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(t.TempDir(), "store.db")
	if err := openTest(t, store).Close(); err != nil {
		t.Fatal(err)
	}
	_, metaPage, err := readMain(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		suffix string
		write  func(path string)
	}{
		"log":                    {"-wal", func(path string) { copyFile(t, other+"-wal", path+"-wal") }},
		"journal":                {"-journal", func(path string) { writeJournal(t, path, readPages(t, other), 1, 2) }},
		"journal, without pages": {"-journal", func(path string) { writeJournal(t, path, readPages(t, other)) }},
		"journal of a store":     {"-journal", func(path string) { writeJournal(t, path, readPages(t, store), metaPage, 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			copyFile(t, closed, path)
			test.write(path)
			kept := filepath.Join(t.TempDir(), "kept")
			copyFile(t, path+test.suffix, kept)
			for _, open := range []func() error{
				func() error { _, err := OpenFile(t.Context(), path); return err },
				func() error { _, err := Open(t.Context(), Options{Path: path}); return err },
			} {
				if err := open(); err == nil || !strings.Contains(err.Error(), "of another database") {
					t.Errorf("error = %v, want one about a file of another database", err)
				}
			}
			wantSameContents(t, map[string]string{path: closed, path + test.suffix: kept})
		})
	}
}

// openOther creates the database of another program and empties its write-ahead log.
func openOther(t *testing.T, path string) *conn {
	t.Helper()
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 20 {
		query := fmt.Sprintf("CREATE TABLE %c AS SELECT %d AS x", 'a'+i, i)
		if err := c.run(query); err != nil {
			t.Fatal(err)
		}
	}
	if err := truncateWAL(c); err != nil {
		t.Fatal(err)
	}
	return c
}

func truncateWAL(c *conn) error {
	return c.rows("PRAGMA wal_checkpoint(TRUNCATE)", func([]driver.Value) error { return nil })
}

// A log that has only transactions of Litestream is applied.
func TestOpenWithLogOfLitestream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.run("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := truncateWAL(c); err != nil {
		t.Fatal(err)
	}
	if err := c.run("INSERT INTO _litestream_seq VALUES (1, 1)"); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(snapshot(t, path), "users.db")
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	createUser(t, openTest(t, killed), "berta")
}

// A journal of the store itself is applied: a copy that was being opened, and a database whose journal mode
// was being changed.
func TestOpenWithOwnJournal(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "users.db"), filepath.Join(dir, "backup.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	if err := errors.Join(s.Backup(t.Context(), backup, nil), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, metaPage, err := readMain(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	adopted := filepath.Join(dir, "adopted.db")
	copyFile(t, backup, adopted)
	c, err := connect(t.Context(), address(adopted, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.run("UPDATE meta SET epoch = 'new', copied = 0"), c.close()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		main, before string
		pages        []uint32
	}{
		"copy opened":  {adopted, backup, []uint32{metaPage, 1}},
		"mode changed": {path, path, []uint32{1}},
		"not synced":   {path, path, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			copyFile(t, test.main, path)
			writeJournal(t, path, readPages(t, test.before), test.pages...)
			s := openTest(t, path)
			createUser(t, s, "berta")
			if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
				t.Errorf("Check = %v, %v, want no findings", findings, err)
			}
			if s.epoch == "new" {
				t.Error("epoch = new, want that of a repeated start")
			}
		})
	}
}

// The journal of a move that was killed in any of its transactions is applied.
func TestMoveTargetWithOwnJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	var states [][]byte // after each transaction
	step := func(do func(*Target) error) {
		t.Helper()
		target, err := OpenTarget(t.Context(), path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(do(target), target.Close()); err != nil {
			t.Fatal(err)
		}
		states = append(states, readPages(t, path))
	}
	step(func(*Target) error { return nil })
	step(func(target *Target) error { _, err := target.Begin(t.Context(), "source"); return err })
	step(func(target *Target) error { return target.save("state", make([]byte, 100<<10)) })
	step(func(target *Target) error { return target.Install(t.Context(), move.Meta{Epoch: "e", Position: 7}) })
	step(func(target *Target) error { return target.Complete(t.Context()) })
	for i, before := range states[:len(states)-1] {
		killed := filepath.Join(t.TempDir(), "users.db")
		if err := os.WriteFile(killed, states[i+1], 0o600); err != nil {
			t.Fatal(err)
		}
		pages := make([]uint32, len(before)/testPageBytes)
		for j := range pages {
			pages[j] = uint32(j + 1)
		}
		writeJournal(t, killed, before, pages...)
		target, err := OpenTarget(t.Context(), killed, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("after transaction %d: %v", i+1, err)
		}
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
		if got := readPages(t, killed); len(got) != len(before) || !bytes.Equal(got[testPageBytes:], before[testPageBytes:]) {
			t.Errorf("transaction %d was not rolled back: got %d bytes, want %d", i+1, len(got), len(before))
		}
	}
}

const testPageBytes = 4096

func readPages(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// writeJournal writes a journal beside a database, with numbered pages of another state or database.
func writeJournal(t *testing.T, path string, from []byte, pages ...uint32) {
	t.Helper()
	const sector, nonce = 512, 42
	var b bytes.Buffer
	b.WriteString(journalMagic)
	for _, n := range []int{len(pages), nonce, len(from) / testPageBytes, sector, testPageBytes} {
		_ = binary.Write(&b, binary.BigEndian, uint32(n))
	}
	b.Write(make([]byte, sector-b.Len()))
	for _, n := range pages {
		page := from[(n-1)*testPageBytes : n*testPageBytes]
		_ = binary.Write(&b, binary.BigEndian, n)
		b.Write(page)
		_ = binary.Write(&b, binary.BigEndian, journalChecksum(nonce, page))
	}
	if err := os.WriteFile(path+"-journal", b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
