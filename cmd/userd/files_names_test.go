package main_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// alias creates a second path of the store in folder.
type alias func(t *testing.T, store, folder string) (name string)

func symlink(t *testing.T, store, folder string) string {
	t.Helper()
	name := filepath.Join(folder, "symlink.db")
	if err := os.Symlink(store, name); err != nil {
		t.Fatal(err)
	}
	return name
}

func symlinkedFolder(t *testing.T, store, folder string) string {
	t.Helper()
	name := filepath.Join(folder, "folder")
	if err := os.Symlink(filepath.Dir(store), name); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(name, filepath.Base(store))
}

func hardLink(t *testing.T, store, folder string) string {
	t.Helper()
	name := filepath.Join(folder, "link.db")
	if err := os.Link(store, name); err != nil {
		t.Fatal(err)
	}
	return name
}

func bindMount(t *testing.T, store, folder string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a bind mount needs root")
	}
	name := filepath.Join(folder, "mounted.db")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "--bind", store, name).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", name).CombinedOutput(); err != nil { //nolint:noctx // the test's context has ended
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return name
}

// A second process fails to open the store through any path, and creates no files beside it.
func TestSecondProcessFailsByAnyPath(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	for name, newAlias := range map[string]alias{
		"symbolic link": symlink, "symbolic link to the folder": symlinkedFolder, "hard link": hardLink, "bind mount": bindMount,
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			other := newAlias(t, filepath.Join(s.program.dir, databaseFile), folder)
			out := program{dir: folder}.mustFail(ctx, t, "--store", "sqlite:"+other, "--listen", "127.0.0.1:0", "--admin-listen", "")
			if !hasAll(out, []string{"locked by another process"}) {
				t.Errorf("output does not contain the lock error:\n%s", out)
			}
			if files := namesIn(t, folder); len(files) != 1 {
				t.Errorf("files beside the alias: %v, want the alias only", files)
			}
			s.mustCreate(ctx, t)
		})
	}
	s.mustSurvive(ctx, t)
}

// A store opened through a symbolic link is the store of the link target.
func TestSymbolicLink(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	s.process.kill()
	own := s.program
	s.program.flags = append(s.program.flags, "--store", "sqlite:"+symlink(t, filepath.Join(s.program.dir, databaseFile), t.TempDir()))
	s.restart(t)
	s.mustRead(ctx, t)
	s.mustCreate(ctx, t)
	s.process.kill()
	s.program = own
	s.restart(t)
	s.mustRead(ctx, t)
}

func namesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Files that are not stores are rejected and not modified.
func TestForeignFilesAreNotModified(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	dir := t.TempDir()
	text := []byte("root:x:0:0:root:/root:/bin/bash\n")
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "passwd"), text, 0o644),
		os.Symlink("passwd", filepath.Join(dir, "symlink")),
		os.Symlink("passwd", filepath.Join(dir, "symlink.lock")),
		os.Symlink("nothing", filepath.Join(dir, "dangling")),
		os.Mkdir(filepath.Join(dir, "folder"), 0o700),
		exec.CommandContext(ctx, "mkfifo", filepath.Join(dir, "fifo")).Run(),
	); err != nil {
		t.Fatal(err)
	}
	before := namesIn(t, dir)
	for name, want := range map[string]string{
		"passwd": "not a SQLite database", "symlink": "not a SQLite database", "dangling": "which does not exist",
		"folder": "directory", "fifo": "not a regular file", "missing/users.db": "does not exist",
	} {
		for _, args := range [][]string{{"--listen", "127.0.0.1:0", "--admin-listen", ""}, {"check"}} {
			out := program{dir: dir}.mustFail(ctx, t, append(args, "--store", "sqlite:"+name)...)
			if !hasAll(out, []string{name}) || args[0] != "check" && !hasAll(out, []string{want}) {
				t.Errorf("userd %v --store sqlite:%s printed %q, want %q", args, name, out, want)
			}
		}
	}
	if after := namesIn(t, dir); len(after) != len(before) {
		t.Errorf("files = %v, want %v", after, before)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "passwd")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("passwd = %q, %v, want it unchanged", got, err)
	}
}

// Files are created with mode 0600 regardless of the umask. Open restricts the mode of files
// that others can access.
func TestFileModes(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	for _, umask := range []string{"0", "022", "0277"} {
		t.Run(umask, func(t *testing.T) {
			dir := t.TempDir()
			loose := program{dir: dir, wrap: []string{"sh", "-c", "umask " + umask + `; exec "$0" "$@"`}}
			run := loose.start(t)
			if _, err := run.client(t, 1<<20).CreateUser(ctx, newUser("mode", 1)); err != nil {
				t.Fatal(err)
			}
			if out, err := loose.run(ctx, t, "backup", "backup.db"); err != nil {
				t.Fatalf("userd backup: %v\n%s", err, out)
			}
			mustHaveModes(t, dir, databaseFile, databaseFile+"-wal", databaseFile+"-shm", "backup.db")
			run.kill()
			for _, name := range namesIn(t, dir) {
				if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			run = loose.start(t)
			run.output.await(t, "mode changed", databaseFile)
			mustHaveModes(t, dir, databaseFile, databaseFile+"-wal", databaseFile+"-shm")
		})
	}
}

func mustHaveModes(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != fs.FileMode(0o600) {
			t.Errorf("mode of %s = %v, want -rw-------", name, got)
		}
	}
}
