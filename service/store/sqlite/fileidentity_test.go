package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func wantError(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: error = %v, want %q", name, err, want)
	}
}

func TestFileIdentity(t *testing.T) {
	rename := func(path string) error { return os.Rename(path, path+".moved") }
	for name, test := range map[string]struct {
		size  int64
		alter func(path string) error
		want  string
	}{
		"unchanged":      {100, func(string) error { return nil }, ""},
		"grown":          {100, func(path string) error { return os.Truncate(path, 101) }, ""},
		"truncated":      {100, func(path string) error { return os.Truncate(path, 99) }, "was truncated from 100 bytes to 99"},
		"reset":          {journalSizeLimit + 1, func(path string) error { return os.Truncate(path, journalSizeLimit) }, ""},
		"below its size": {journalSizeLimit + 1, func(path string) error { return os.Truncate(path, journalSizeLimit-1) }, "was truncated"},
		"removed":        {100, os.Remove, "was removed"},
		"replaced": {100, func(path string) error {
			if err := rename(path); err != nil {
				return err
			}
			return os.WriteFile(path, make([]byte, 100), 0o600)
		}, "was replaced by another file"},
		"unreadable": {100, func(path string) error {
			if err := rename(path); err != nil {
				return err
			}
			return os.Symlink(path, path)
		}, ""}, // inconclusive
	} {
		path := filepath.Join(t.TempDir(), "users.db")
		for _, name := range []string{path, path + "-wal"} {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(path+"-wal", test.size); err != nil {
			t.Fatal(err)
		}
		files, err := identifyFiles(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := test.alter(path + "-wal"); err != nil {
			t.Fatal(err)
		}
		wantError(t, name, files[1].check(), test.want)
		wantError(t, name+", database", files[0].check(), "")
	}
	path := filepath.Join(t.TempDir(), "users.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := identifyFiles(path)
	wantError(t, "without a log", err, "users.db-wal")
}

// The size that a file must keep is the latest one, and a database never shrinks.
func TestFileIdentityOfGrownFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.db")
	for _, name := range []string{path, path + "-wal"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := identifyFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		size int64
		want string
	}{{journalSizeLimit + 2, ""}, {journalSizeLimit + 1, "was truncated"}} {
		if err := os.Truncate(path, step.size); err != nil {
			t.Fatal(err)
		}
		wantError(t, "database", files[0].check(), step.want)
	}
}

func TestFileSession(t *testing.T) {
	path, main, metaPage := closedStore(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	c, err := connect(t.Context(), fileDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	find := func(from *os.File) fileSession {
		t.Helper()
		s, err := findSession(c, from)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := find(file)
	if s.session != main.session || s.session == 0 {
		t.Fatalf("session = %d, want %d", s.session, main.session)
	}
	wantError(t, "unchanged", s.check(), "")
	for name, from := range map[string]*os.File{
		"shorter file":                  openBytes(t, nil),
		"file without the meta table":   openBytes(t, make([]byte, len(readPages(t, path)))),
		"file of another session of it": openBytes(t, readPages(t, otherSession(t, path))),
	} {
		unknown := find(from)
		if unknown.session != 0 {
			t.Errorf("%s: session = %d, want 0", name, unknown.session)
		}
		wantError(t, name, unknown.check(), "")
	}
	for name, content := range map[string][]byte{
		"other session": readPages(t, otherSession(t, path)), "no meta table": make([]byte, len(readPages(t, path))),
	} {
		if _, err := file.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		wantError(t, name, s.check(), "was overwritten while it was open")
	}
	if err := file.Truncate(int64(metaPage-1) * testPageBytes); err != nil {
		t.Fatal(err)
	}
	wantError(t, "truncated", s.check(), "") // fileIdentity reports it
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	empty, err := connect(t.Context(), dsn(filepath.Join(t.TempDir(), "empty.db"), readerCacheKiB))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := findSession(empty, file); err == nil || found.session != 0 {
		t.Errorf("findSession without a meta table = %d, %v, want 0 and an error", found.session, err)
	}
	if err := empty.close(); err != nil {
		t.Fatal(err)
	}
}

// otherSession returns the path of a copy that was opened once more.
func otherSession(t *testing.T, path string) string {
	t.Helper()
	other := filepath.Join(t.TempDir(), "users.db")
	copyFile(t, path, other)
	if err := openTest(t, other).Close(); err != nil {
		t.Fatal(err)
	}
	return other
}
