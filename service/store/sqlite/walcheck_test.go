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

// snapshot copies the files of an open store, as a kill would leave them.
func snapshot(t *testing.T, path string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, path+suffix, filepath.Join(dir, "users.db"+suffix))
	}
	return dir
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
	err := s.queue.Do(t.Context(), func(w *writer) error {
		w.checkpointed = -1 << 40 // forces a checkpoint after this job
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(t.Context()); err != nil { // resets the WAL
		t.Fatal(err)
	}
}

// Open fails if the write-ahead log belongs to another database or to another state of this
// one. The error says how to proceed, and no file is modified.
func TestOpenWithForeignWAL(t *testing.T) {
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
	mustWait(t, s.Submit(t.Context(), batch))
	checkpointNow(t, s)
	late := snapshot(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(t.TempDir(), "users.db")
	copyFile(t, path, closed)
	reopened := openTest(t, path)
	createUser(t, reopened, "carla")
	next := snapshot(t, path)
	branch := openTest(t, closed)
	createUser(t, branch, "doris")
	branched := snapshot(t, closed)
	other := filepath.Join(t.TempDir(), "users.db")
	foreign := openTest(t, other)
	createUser(t, foreign, "anna")
	foreignDir := snapshot(t, other)

	short := filepath.Join(t.TempDir(), "users.db") // an interrupted checkpoint
	copyFile(t, filepath.Join(late, "users.db"), short)
	if info, err := os.Stat(short); err != nil || os.Truncate(short, info.Size()-4096) != nil {
		t.Fatal(err)
	}

	database := func(dir string) string { return filepath.Join(dir, "users.db") }
	for name, files := range map[string]struct {
		main, log string
		matches   bool
	}{
		"own log":                     {database(early), database(early), true},
		"own log, later":              {database(late), database(late), true},
		"own log, reopened":           {database(next), database(next), true},
		"backup":                      {backup, database(late), false},
		"backup, log of its source":   {backup, database(early), false},
		"other store":                 {database(foreignDir), database(late), false},
		"earlier state":               {database(early), database(late), false},
		"later state":                 {database(late), database(early), false},
		"earlier session":             {database(early), database(next), false},
		"later session":               {database(next), database(late), false},
		"diverged copy":               {database(branched), database(next), false},
		"empty file":                  {os.DevNull, database(late), false},
		"truncated file, foreign log": {short, database(foreignDir), false},
	} {
		t.Run(name, func(t *testing.T) {
			path := database(t.TempDir())
			copyFile(t, files.main, path)
			copyFile(t, files.log+"-wal", path+"-wal")
			s, err := Open(t.Context(), Options{Path: path})
			if files.matches {
				if err != nil {
					t.Fatal(err)
				}
				if findings, err := s.Check(t.Context(), nil); err != nil || len(findings) > 0 {
					t.Errorf("Check = %v, %v, want no findings", findings, err)
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
				t.Errorf("Open = %v, want an error about the write-ahead log", err)
			}
			if _, err := OpenFile(t.Context(), path); err == nil {
				t.Error("OpenFile succeeded, want an error")
			}
			wantSameContents(t, map[string]string{path: files.main, path + "-wal": files.log + "-wal"})
		})
	}
}

func wantSameContents(t *testing.T, files map[string]string) {
	t.Helper()
	for got, want := range files {
		a, err := os.ReadFile(got)
		b, err2 := os.ReadFile(want)
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s was modified: %d bytes, want %d; errors %v, %v", filepath.Base(got), len(a), len(b), err, err2)
		}
	}
}

// After a kill, Open through a hard link fails, because the write-ahead log is beside the
// original path. Open of the original path succeeds.
func TestOpenHardLinkWithoutWAL(t *testing.T) {
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
		t.Fatalf("Open(hard link) = %v, want an error with %s", err, killed)
	}
	s := openTest(t, killed)
	if _, err := s.Get(t.Context(), u.ID); err != nil {
		t.Errorf("Get error = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, link)
}

// A store that was not closed gets a new epoch if its write-ahead log is missing or empty: acknowledged writes may
// be lost.
func TestOpenWithoutWALAfterKill(t *testing.T) {
	for name, test := range map[string]struct {
		log  func(path string) error
		lost bool
	}{
		"kept":    {func(string) error { return nil }, false},
		"removed": {os.Remove, true},
		"emptied": {func(path string) error { return os.Truncate(path, 0) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			killed := openTest(t, path)
			u := createUser(t, killed, "anna")
			files := snapshot(t, path)
			if err := killed.Close(); err != nil {
				t.Fatal(err)
			}
			for _, suffix := range []string{"", "-wal"} {
				copyFile(t, filepath.Join(files, "users.db"+suffix), path+suffix)
			}
			if err := test.log(path + "-wal"); err != nil {
				t.Fatal(err)
			}
			s := openTest(t, path)
			if _, err := s.Get(t.Context(), u.ID); (err != nil) != test.lost {
				t.Errorf("Get error = %v, want an error: %v", err, test.lost)
			}
			if (s.epoch != killed.epoch) != test.lost || s.epoch == "" {
				t.Errorf("epoch = %q, was %q, want a new one: %v", s.epoch, killed.epoch, test.lost)
			}
			epoch := s.epoch
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if again := openTest(t, path); again.epoch != epoch {
				t.Errorf("epoch after a restart = %q, want %q", again.epoch, epoch)
			}
		})
	}
}

// relocate sets the location of a killed store to path.
func relocate(t *testing.T, path string) {
	t.Helper()
	c, err := connect(t.Context(), address(path, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // keep the log
		copyFile(t, path+"-wal", path+"-saved")
		if err := c.close(); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path+"-saved", path+"-wal"); err != nil {
			t.Error(err)
		}
	}()
	if err := c.run("UPDATE meta SET place = ?, commits = commits + 1", locationOf(path)); err != nil {
		t.Fatal(err)
	}
}

// A store of schema version 1 can be opened after a kill.
func TestOpenVersion1AfterKill(t *testing.T) {
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

func TestParseMetaPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	for _, n := range []int64{0, 1, 2, 127, 128, 1 << 14, 1 << 22, 1 << 30, 1 << 40, 1 << 62, -1, -200, -1 << 40} {
		err := s.queue.Do(t.Context(), func(w *writer) error {
			return w.conn.run("UPDATE meta SET session = ?, commits = ?, position = 0", n, n)
		})
		if err != nil {
			t.Fatal(err)
		}
		dir := snapshot(t, path)
		_, page, err := readMain(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		log, err := readWAL(filepath.Join(dir, "users.db-wal"), page)
		if err != nil || len(log.metaRows) == 0 {
			t.Fatalf("readWAL = %+v, %v", log, err)
		}
		last := log.metaRows[len(log.metaRows)-1]
		if last.epoch != s.epoch || last.session != n || last.commits != n+1 || last.place != locationOf(path) || !last.hasSession {
			t.Errorf("meta row after commits = %d: %+v", n, last)
		}
	}
}

// parseMetaPage must not panic.
func FuzzMetaPage(f *testing.F) {
	f.Add([]byte{0x0d, 0, 0, 0, 1, 0, 0, 0, 0, 10, 3, 1, 2, 1, 5})
	f.Fuzz(func(_ *testing.T, page []byte) { parseMetaPage(page) })
}

// If a reader blocks the checkpoint in Open, later checks of the file session still succeed.
func TestOpenWhileReaderBlocksCheckpoint(t *testing.T) {
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

// A write-ahead log that lacks transactions which the WAL index of a killed process has, gets the store a new epoch. Commands fail.
func TestOpenWithShortWAL(t *testing.T) {
	const size = walFrameHeader + 4096
	path := filepath.Join(t.TempDir(), "users.db")
	killed := openTest(t, path)
	createUser(t, killed, "anna")
	older, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	createUser(t, killed, "berta")
	first := t.TempDir()
	keep := func(dir string) (wal []byte) {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			copyFile(t, path+suffix, filepath.Join(dir, "users.db"+suffix))
		}
		if wal, err = os.ReadFile(path + "-wal"); err != nil {
			t.Fatal(err)
		}
		return wal
	}
	newest := keep(first)
	err = killed.queue.Do(t.Context(), func(w *writer) error {
		w.checkpointed = -1 << 40 // forces a checkpoint after this job
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before := keep(t.TempDir())
	createUser(t, killed, "carla") // starts the log again
	second := t.TempDir()
	keep(second)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(newest)
	end := walHeaderSize + (len(newest)-walHeaderSize)/size*size
	damaged[end-1]++
	for name, test := range map[string]struct {
		dir   string
		log   []byte
		short bool
	}{
		"newest":             {first, newest, false},
		"older":              {first, older, true},
		"damaged":            {first, damaged, true},
		"before the restart": {second, before, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users.db")
			for _, suffix := range []string{"", "-shm"} {
				copyFile(t, filepath.Join(test.dir, "users.db"+suffix), path+suffix)
			}
			if err := os.WriteFile(path+"-wal", test.log, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenFile(t.Context(), path)
			if errors.Is(err, errShortWAL) != test.short {
				t.Errorf("OpenFile = %v, want that the log is short: %v", err, test.short)
			}
			s := openTest(t, path)
			if (s.epoch != killed.epoch) != test.short || s.epoch == "" {
				t.Errorf("epoch = %q, was %q, want a new one: %v", s.epoch, killed.epoch, test.short)
			}
			createUser(t, s, "doris")
			epoch := s.epoch
			next := snapshot(t, path)
			if again := openTest(t, filepath.Join(next, "users.db")); again.epoch != epoch {
				t.Errorf("epoch after another kill = %q, want %q", again.epoch, epoch)
			}
		})
	}
}
