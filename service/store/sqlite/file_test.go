package sqlite

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestConnectionPragmas(t *testing.T) {
	var stats []CommitStats
	s, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "users.db"), OnCommit: func(c CommitStats) { stats = append(stats, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	createUser(t, s, "anna")
	r, err := read(t.Context(), s.pool, func(r *reader) (*reader, error) { return r, nil })
	if err != nil {
		t.Fatal(err)
	}
	check := func(c *conn) error {
		for name, want := range map[string]driver.Value{"journal_mode": "wal", "synchronous": int64(2), "wal_autocheckpoint": int64(0), "busy_timeout": int64(5000)} {
			err := c.rows("PRAGMA "+name, func(row []driver.Value) error {
				if row[0] != want {
					t.Errorf("%s = %v, want %v", name, row[0], want)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := errors.Join(check(r.conn), s.queue.Do(t.Context(), func(w *writer) error { return check(w.conn) })); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.run("DELETE FROM log"); err == nil {
		t.Error("write on a reader connection succeeded")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(stats) != 1 || stats[0].Changes != 1 || stats[0].Sync <= 0 {
		t.Errorf("OnCommit stats = %+v, want one change", stats)
	}
}

func TestCheckpointBoundsWAL(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	u := createUser(t, s, "anna")
	text := strings.Repeat("x", 1000)
	for range 40 {
		var batch user.Batch
		for range 1000 {
			batch.Changes = append(batch.Changes, user.Change{Op: &user.Record{ID: u.ID, Action: "app.seen", Details: map[string]string{"k": text}}})
		}
		if _, err := user.Apply(t.Context(), s, batch); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if limit := int64(2 * checkpointPages * 4300); info.Size() > limit {
		t.Errorf("WAL size = %d bytes after 40 MB of writes, want at most %d", info.Size(), limit)
	}
}

// A damaged page is reported by Open or by Check.
func TestDamagedFileIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	var batch user.Batch
	for i := range 500 {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, "user"+strings.Repeat("x", i%40)+string(rune('a'+i%26))+string(rune('a'+i/26)))})
	}
	mustWait(t, s.Submit(t.Context(), batch))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for page := range 20 {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := append([]byte(nil), whole...)
		at := (page + 1) * 4096
		copy(damaged[at:at+4096], strings.Repeat("damage", 700))
		copyPath := filepath.Join(t.TempDir(), "damaged.db")
		if err := os.WriteFile(copyPath, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), Options{Path: copyPath})
		if err != nil {
			if !strings.Contains(err.Error(), "damaged") {
				t.Errorf("Open with page %d damaged: error = %v, want damaged", page+2, err)
			}
			continue
		}
		findings, err := s.Check(t.Context(), nil)
		if len(findings) == 0 && (err == nil || !strings.Contains(err.Error(), "damaged")) {
			t.Errorf("Check with page %d damaged = %v, %v, want findings", page+2, findings, err)
		}
		_ = s.Close()
	}
}

// Check and Backup of the file of a killed process do not checkpoint its write-ahead log.
func TestCheckAndBackupDoNotModifyFiles(t *testing.T) {
	dir := t.TempDir()
	running := openTest(t, filepath.Join(dir, "running.db"))
	createUser(t, running, "anna")
	path := filepath.Join(dir, "killed.db") // the files after a kill
	files := map[string][]byte{}
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(filepath.Join(dir, "running.db"+suffix))
		if err == nil {
			err = os.WriteFile(path+suffix, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		files[path+suffix] = content
	}
	f, err := OpenFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if findings, err := f.Check(t.Context(), nil); err != nil || len(findings) > 0 {
		t.Errorf("Check = %v, %v, want no findings", findings, err)
	}
	if err := f.Backup(t.Context(), filepath.Join(dir, "copy.db"), nil); err != nil {
		t.Error(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s was modified, %v: %d bytes, want %d", filepath.Base(name), err, len(got), len(want))
		}
	}
	if copied := openTest(t, filepath.Join(dir, "copy.db")); copied.head.Load().Position != 1 {
		t.Errorf("head of the copy = %+v, want position 1", copied.head.Load())
	}
}

// A backup is not written to the name of a log or journal of its store, which SQLite would delete.
func TestBackupOntoFileOfStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	createUser(t, s, "anna")
	if err := s.Backup(t.Context(), path+"-journal", nil); err == nil {
		t.Error("Backup to the name of the journal succeeded, want an error")
	}
	if _, err := os.Stat(path + "-journal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of the journal = %v, want ErrNotExist", err)
	}
}
