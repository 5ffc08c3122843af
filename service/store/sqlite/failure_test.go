package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// touch writes a log row of a user.
func touch(t *testing.T, s *Store, id int64) error {
	t.Helper()
	_, err := user.ApplyOne(t.Context(), s, user.Change{Op: &user.Record{ID: id, Action: "app.seen"}})
	return err
}

// damage overwrites a leaf page of the users table.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // the test reads the file
	whole, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for page := range slices.Chunk(whole, 4096) { // skips pages of the log
		if page[0] == 0x0d && bytes.Contains(page, []byte("@example.org")) && !bytes.Contains(page, []byte("user.created")) {
			if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, len(page)), at); err != nil {
				t.Fatal(err)
			}
			return
		}
		at += int64(len(page))
	}
	t.Fatal("no leaf page of the users table found")
}

// After a write has met damage, the store is not ready and read-only, also after it is
// reopened. Reads of intact pages succeed.
func TestDamageStopsWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	s := openTest(t, path)
	var batch user.Batch
	for i := range 500 {
		batch.Changes = append(batch.Changes, user.Change{Op: mustCreate(t, fmt.Sprint("user", i))})
	}
	results := mustWait(t, s.Submit(t.Context(), batch))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open := func() *Store {
		t.Helper()
		s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() }) // fails: the file is damaged
		return s
	}
	s = open()
	if err := s.Integrity(); err != nil {
		t.Fatalf("Integrity before the damage = %v, want nil", err)
	}
	damage(t, path)
	for i := 0; s.Integrity() == nil && i < len(results); i++ {
		if err := touch(t, s, results[i].User.ID); err != nil && !user.HasReason(err, user.StoreReadOnly) {
			t.Fatal(err)
		}
	}
	for errors.Is(s.Integrity(), errChecking) {
		runtime.Gosched()
	}
	wantDamaged(t, s, results)
	_ = s.Close() // may fail
	wantDamaged(t, open(), results)
}

func wantDamaged(t *testing.T, s *Store, users []user.Result) {
	t.Helper()
	if err := s.Integrity(); err == nil || !strings.Contains(err.Error(), "the database is damaged; restore a backup") {
		t.Fatalf("Integrity = %v, want damage", err)
	}
	read := 0
	for _, r := range users {
		if err := touch(t, s, r.User.ID); !user.HasReason(err, user.StoreReadOnly) {
			t.Fatalf("write: error = %v, want STORE_READ_ONLY", err)
		}
		if _, err := s.Get(t.Context(), r.User.ID); err == nil {
			read++
		}
	}
	if read == 0 || read == len(users) {
		t.Errorf("%d of %d users could be read, want a part", read, len(users))
	}
	if err := s.Probe(t.Context()); !user.HasReason(err, user.StoreReadOnly) {
		t.Errorf("Probe error = %v, want STORE_READ_ONLY", err)
	}
}

// A file that is copied over an open database keeps the path and the inode. The store
// becomes read-only and not ready.
func TestDatabaseOverwrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	other := openTest(t, filepath.Join(dir, "other.db"))
	for i := range 300 {
		createUser(t, other, fmt.Sprint("other", i))
	}
	backup := filepath.Join(dir, "backup.db")
	if err := other.Backup(t.Context(), backup, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "users.db")
	s, err := Open(t.Context(), Options{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // fails: its file was overwritten
	u := createUser(t, s, "anna")
	content, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // not earlier: closing releases SQLite's locks
	for range 2 {
		if err := touch(t, s, u.ID); !user.HasReason(err, user.StoreReadOnly) {
			t.Fatalf("write: error = %v, want STORE_READ_ONLY", err)
		}
	}
	if err := s.Integrity(); err == nil || !strings.Contains(err.Error(), "overwritten while it was open") {
		t.Errorf("Integrity = %v, want that the file was overwritten", err)
	}
}

// After a page could not be read, writes are reported as failing for some time, also if others succeed.
func TestUnreadablePageProlongsSeries(t *testing.T) {
	t.Parallel()
	var f writeFailures
	f.add(unreadableError{errors.New("input/output error")})
	if got := f.end(); got != 0 || f.page == nil {
		t.Errorf("end() after an unreadable page = %d, page = %v, want 0 and an error", got, f.page)
	}
	f.pageTime = f.pageTime.Add(-pageFailureMemory)
	if got := f.end(); got != 1 || f.page != nil {
		t.Errorf("end() after %v = %d, page = %v, want 1 and nil", pageFailureMemory, got, f.page)
	}
}

// A check that takes longer than readyCheckTimeout does not keep the store from being ready.
func TestLongCheckIsReady(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		start time.Time
		want  error
	}{
		{time.Time{}, nil}, {time.Now(), errChecking}, {time.Now().Add(-readyCheckTimeout), nil},
	} {
		if got := (&integrity{start: test.start}).status(); !errors.Is(got, test.want) {
			t.Errorf("status() of a check started at %v = %v, want %v", test.start, got, test.want)
		}
	}
}

// Damage that SQLite reports is an I/O error if one of the files cannot be read.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	damage := error(disorderError{"users"})
	for name, test := range map[string]struct {
		prepare func(d *disk) error
		err     error
		want    bool
	}{
		"readable":            {func(*disk) error { return nil }, damage, false},
		"readable by path":    {func(d *disk) error { d.db = nil; return nil }, damage, false},
		"database is missing": {func(d *disk) error { d.db = nil; return os.Remove(d.path) }, damage, false},
		"database unreadable": {func(d *disk) error { return d.db.Close() }, damage, true},
		"unreadable by path":  {func(d *disk) error { d.db = nil; return errors.Join(os.Remove(d.path), os.Mkdir(d.path, 0o700)) }, damage, true},
		"log unreadable":      {func(d *disk) error { return os.Mkdir(d.path+"-wal", 0o700) }, damage, true},
		"no damage":           {func(d *disk) error { return d.db.Close() }, errors.New("canceled"), false},
	} {
		path := filepath.Join(t.TempDir(), "users.db")
		db, err := os.Create(path)
		if err == nil {
			_, err = db.WriteString(strings.Repeat("x", 10_000))
		}
		d := disk{path: path, db: db}
		if err := errors.Join(err, test.prepare(&d)); err != nil {
			t.Fatal(err)
		}
		if got := d.diagnose(test.err); isUnreadable(got) != test.want || !test.want && !errors.Is(got, test.err) {
			t.Errorf("%s: diagnose(%v) = %v, want an unreadableError: %t", name, test.err, got, test.want)
		}
		_ = db.Close()
	}
}

// unreadableFrom is a file whose pages from an offset on cannot be read.
type unreadableFrom struct {
	from  int64
	reads int
}

func (f *unreadableFrom) ReadAt(p []byte, at int64) (int, error) {
	if f.reads++; at >= f.from {
		return 0, syscall.EIO
	}
	return len(p), nil
}

// Pages are sampled up to the end of a file, with a bounded number of reads.
func TestSampledPages(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 4096, 4097, 100 * 4096, 1 << 40} {
		readable := &unreadableFrom{from: size}
		if err := samplePages(readable, size); err != nil || readable.reads > samples+1 || readable.reads == 0 {
			t.Errorf("samplePages(%d bytes) = %v with %d reads, want some, at most %d", size, err, readable.reads, samples+1)
		}
		last := size - max(4096, size/samples)
		if err := samplePages(&unreadableFrom{from: last}, size); !errors.Is(err, syscall.EIO) {
			t.Errorf("samplePages(%d bytes, unreadable from %d on) = %v, want EIO", size, last, err)
		}
	}
}

// A series of failures with ever new texts keeps and logs a bounded number of them.
func TestWriteFailuresAreBounded(t *testing.T) {
	t.Parallel()
	var f writeFailures
	const failures = 1000
	isNew := 0
	for i := range failures {
		for range 2 {
			if f.add(fmt.Errorf("page %d is damaged", i)) {
				isNew++
			}
		}
	}
	if isNew != maxDistinctErrors || len(f.logged) != maxDistinctErrors {
		t.Errorf("add reported %d new errors and kept %d, want %d", isNew, len(f.logged), maxDistinctErrors)
	}
	if got := f.end(); got != 2*failures {
		t.Errorf("end() = %d failures, want %d", got, 2*failures)
	}
	if !f.add(errors.New("page 0 is damaged")) {
		t.Error("add of an error in the next series = false, want true")
	}
}
