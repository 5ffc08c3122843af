package sqlite

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

// snapshot copies the files of a running store, as a kill at this moment would leave them.
func snapshot(t *testing.T, path string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, path+suffix, filepath.Join(folder, "users.db"+suffix))
	}
	return folder
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checkpointNow(t *testing.T, s *Store) {
	t.Helper()
	createUser(t, s, "checkpoint")
	err := s.do(t.Context(), func(w *writer) error {
		w.checkpointed = -1 << 40 // it is carried out behind this
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(t.Context()); err != nil { // begins the log anew
		t.Fatal(err)
	}
}

// A database is refused beside the write-ahead log of another database and of another
// state of itself, in words that say what to do, and neither file is changed.
func TestForeignWriteAheadLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	early := snapshot(t, path)
	backup := filepath.Join(dir, "backup.db")
	if err := s.Backup(t.Context(), backup, nil); err != nil {
		t.Fatal(err)
	}
	var batch user.Batch
	for i := range 100 {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
	}
	mustEnd(t, s.Submit(t.Context(), batch))
	checkpointNow(t, s)
	late := snapshot(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(t.TempDir(), "users.db")
	copyFile(t, path, closed)
	again := openTest(t, path)
	createUser(t, again, "carla")
	next := snapshot(t, path)
	branch := openTest(t, closed)
	createUser(t, branch, "doris")
	branched := snapshot(t, closed)
	other := filepath.Join(t.TempDir(), "users.db")
	stranger := openTest(t, other)
	createUser(t, stranger, "anna")
	strange := snapshot(t, other)

	short := filepath.Join(t.TempDir(), "users.db") // a checkpoint was interrupted
	copyFile(t, filepath.Join(late, "users.db"), short)
	if info, err := os.Stat(short); err != nil || os.Truncate(short, info.Size()-4096) != nil {
		t.Fatal(err)
	}

	database := func(folder string) string { return filepath.Join(folder, "users.db") }
	for name, pair := range map[string]struct {
		main, log string
		fits      bool
	}{
		"its own":                      {database(early), database(early), true},
		"its own, later":               {database(late), database(late), true},
		"its own, opened again":        {database(next), database(next), true},
		"a backup":                     {backup, database(late), false},
		"a backup, log it was made of": {backup, database(early), false},
		"another store":                {database(strange), database(late), false},
		"an earlier state":             {database(early), database(late), false},
		"a later state":                {database(late), database(early), false},
		"a session before":             {database(early), database(next), false},
		"a session later":              {database(next), database(late), false},
		"a copy that went another way": {database(branched), database(next), false},
		"an empty file":                {os.DevNull, database(late), false},
		"a short file, another's log":  {short, database(strange), false},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := database(folder)
			copyFile(t, pair.main, path)
			copyFile(t, pair.log+"-wal", path+"-wal")
			s, err := Open(t.Context(), Options{Path: path})
			if pair.fits {
				if err != nil {
					t.Fatal(err)
				}
				if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
					t.Errorf("Check() = %v, %v, want nothing", findings, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "write-ahead log") || !strings.Contains(err.Error(), "move the log away") {
				t.Errorf("Open() = %v, want a refusal that says what to do", err)
			}
			if _, err := OpenFile(t.Context(), path); err == nil {
				t.Error("OpenFile() = nil, want a refusal")
			}
			mustBeCopies(t, map[string]string{path: pair.main, path + "-wal": pair.log + "-wal"})
		})
	}
}

func mustBeCopies(t *testing.T, files map[string]string) {
	t.Helper()
	for got, want := range files {
		a, err := os.ReadFile(got)
		b, err2 := os.ReadFile(want)
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not as it was before: %d and %d bytes, %v, %v", filepath.Base(got), len(a), len(b), err, err2)
		}
	}
}

// A store that was killed is not opened by another name, beside which its log is not;
// by its own name it has everything.
func TestDatabaseWithoutItsLog(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users.db")
	running := openTest(t, path)
	u := createUser(t, running, "anna")
	killed := filepath.Join(snapshot(t, path), "users.db")
	relocate(t, killed)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Link(killed, link); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Path: link})
	if err == nil || !strings.Contains(err.Error(), "was in use as "+killed) {
		t.Fatalf("Open(hard link) = %v, want a refusal that names %s", err, killed)
	}
	s := openTest(t, killed)
	if _, err := s.Get(t.Context(), u.ID); err != nil {
		t.Errorf("Get() = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, link) // it was closed in good order
}

// relocate makes of a killed store one that was in use where it lies.
func relocate(t *testing.T, path string) {
	t.Helper()
	c, err := connect(t.Context(), address(path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // as a kill would leave it: with its log
		copyFile(t, path+"-wal", path+"-kept")
		if err := c.close(); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path+"-kept", path+"-wal"); err != nil {
			t.Error(err)
		}
	}()
	if err := c.run("UPDATE meta SET place = ?, commits = commits + 1", placeOf(path)); err != nil {
		t.Fatal(err)
	}
}

// What the first release left is opened, also where it was killed.
func TestPairingBeginsWithAStoreOfVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeVersion1(t, path)
	c, err := connect(t.Context(), dsn(path, readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.run("UPDATE meta SET probes = probes + 1"); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(snapshot(t, path), "users.db")
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, killed)
	createUser(t, s, "berta")
}

// TestMetaPage compares what is parsed of the page with what SQLite reads, for values
// of every width.
func TestMetaPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	for _, n := range []int64{0, 1, 2, 127, 128, 1 << 14, 1 << 22, 1 << 30, 1 << 40, 1 << 62, -1, -200, -1 << 40} {
		err := s.do(t.Context(), func(w *writer) error {
			return w.conn.run("UPDATE meta SET session = ?, commits = ?, position = 0", n, n)
		})
		if err != nil {
			t.Fatal(err)
		}
		folder := snapshot(t, path)
		_, page, err := readMain(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		log, err := readWAL(filepath.Join(folder, "users.db-wal"), page)
		if err != nil || len(log.metas) == 0 {
			t.Fatalf("readWAL() = %+v, %v", log, err)
		}
		last := log.metas[len(log.metas)-1]
		if last.epoch != s.epoch || last.session != n || last.commits != n+1 || last.place != placeOf(path) || !last.paired {
			t.Errorf("after commits = %d: got %+v", n, last)
		}
	}
}

// Damaged pages and logs are read to an end, whatever is in them.
func FuzzMetaPage(f *testing.F) {
	f.Add([]byte{0x0d, 0, 0, 0, 1, 0, 0, 0, 0, 10, 3, 1, 2, 1, 5})
	f.Fuzz(func(_ *testing.T, page []byte) { parseMetaPage(page) })
}

// A reader that holds up the checkpoint at open does not make the store take its own
// file for another one later.
func TestOpenBesideAReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	killed := filepath.Join(snapshot(t, path), "users.db")
	c, err := connect(t.Context(), readOnlyDSN(killed))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.run("BEGIN"); err != nil {
		t.Fatal(err)
	}
	if err := c.rows("SELECT count(*) FROM users", func([]driver.Value) error { return nil }); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, killed)
	createUser(t, s, "berta")
	if err := errors.Join(c.run("ROLLBACK"), c.close()); err != nil {
		t.Fatal(err)
	}
	checkpointNow(t, s)
	createUser(t, s, "carla")
}
