package main_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// backedUp is a directory with a store after a kill, and an older backup.
type backedUp struct {
	program
	store, backup string
	old, new      []int64 // users of the backup and of the store
	epoch         string
}

func makeBackup(ctx context.Context, t *testing.T) *backedUp {
	t.Helper()
	b := &backedUp{program: program{dir: t.TempDir()}}
	b.store, b.backup = filepath.Join(b.dir, databaseFile), filepath.Join(t.TempDir(), "backup.db")
	run := b.start(t)
	client := run.client(t, 1<<20)
	importUsers(t, client, 200)
	b.old = userIDs(t, client)
	b.mustRun(ctx, t, "backup", b.backup)
	importUsers(t, client, 100)
	b.new = userIDs(t, client)
	b.epoch = epochOf(ctx, t, run)
	run.kill()
	return b
}

func (p program) mustRun(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.run(ctx, t, args...)
	if err != nil {
		t.Fatalf("userd %v: %v\n%s", args, err, out)
	}
	return out
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// After a backup was copied over a killed store, the write-ahead log does not match: all
// commands fail without modifying files, and userd restore repairs it.
func TestBackupCopiedOverKilledStore(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	copyTo(t, b.backup, b.store)
	log, err := os.ReadFile(b.store + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"check"}, {"backup", filepath.Join(b.dir, "other.db")}} {
		out := b.mustFail(ctx, t, args...)
		if !hasAll(out, []string{databaseFile + "-wal is the write-ahead log of another database", "userd restore", "move the log away"}) {
			t.Errorf("userd %v: output does not describe the mismatch:\n%s", args, out)
		}
	}
	if after, err := os.ReadFile(b.store + "-wal"); err != nil || !slices.Equal(after, log) {
		t.Errorf("WAL was modified, %v", err)
	}
	if out := b.mustFail(ctx, t, "restore", b.backup); !hasAll(out, []string{"exists", "--force"}) {
		t.Errorf("restore over an existing store: %s", out)
	}
	out := b.mustRun(ctx, t, "restore", "--force", b.backup)
	if !hasAll(out, []string{"restored " + b.backup, "renamed " + b.store + "-wal to"}) {
		t.Errorf("restore printed %q", out)
	}
	b.mustServe(ctx, t, b.old)
	mustHaveModes(t, b.dir, databaseFile)
}

// mustServe starts the program and checks its users and that the epoch has changed.
func (b *backedUp) mustServe(ctx context.Context, t *testing.T, want []int64) {
	t.Helper()
	run := b.start(t)
	defer run.kill()
	if got := userIDs(t, run.client(t, 1<<20)); !slices.Equal(got, want) {
		t.Fatalf("got %d users, want %d", len(got), len(want))
	}
	if epoch := epochOf(ctx, t, run); (epoch == b.epoch) != (len(want) == len(b.new)) {
		t.Errorf("epoch = %s with %d users, before the restore %s with %d", epoch, len(want), b.epoch, len(b.new))
	}
}

// The replaced store is kept with its log.
func TestRestoreKeepsTheReplacedStore(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	b.mustRun(ctx, t, "restore", "--force", b.backup)
	b.mustServe(ctx, t, b.old)
	kept, err := filepath.Glob(b.store + ".replaced-*Z")
	if err != nil || len(kept) != 1 {
		t.Fatalf("replaced databases = %v, %v, want one", kept, err)
	}
	b.mustRun(ctx, t, "check", "--store", "sqlite:"+kept[0])
	again := *b
	again.dir = filepath.Join(t.TempDir(), "again")
	if err := errors.Join(os.Mkdir(again.dir, 0o700), os.Rename(kept[0], filepath.Join(again.dir, databaseFile)),
		os.Rename(kept[0]+"-wal", filepath.Join(again.dir, databaseFile+"-wal"))); err != nil {
		t.Fatal(err)
	}
	again.mustServe(ctx, t, b.new)
}

// Invalid backups are rejected, and the store is not modified.
func TestRestoreInvalidBackup(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	dir := t.TempDir()
	whole, err := os.ReadFile(b.backup)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	changed := func(name, statement string) string {
		t.Helper()
		path := file(name, whole)
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := filepath.Join(dir, "foreign.db")
	lockDatabase(ctx, t, foreign)() // creates no table and no file
	damaged := slices.Clone(whole)
	copy(damaged[len(damaged)/2:], strings.Repeat("damage", 2000))
	for path, want := range map[string]string{
		file("empty.db", nil):                        "empty",
		file("text.db", []byte("this is a text")):    "not a SQLite database",
		file("truncated.db", whole[:len(whole)/2]):   "damaged",
		file("truncated-2.db", whole[:len(whole)-1]): "damaged",
		file("damaged.db", damaged):                  "damaged",
		changed("newer.db", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"): "newer",
		changed("foreign-2.db", "PRAGMA application_id = 7"):                                         "another program",
		changed("gap.db", "DELETE FROM log WHERE position = 3"):                                      "gap",
		filepath.Join(dir, "missing.db"):                                                             "no such file",
		dir:                                                                                          "directory",
		b.store:                                                                                      "same file",
	} {
		before := fingerprint(t, b.dir)
		out := b.mustFail(ctx, t, "restore", "--force", path)
		if !hasAll(out, []string{path, want}) {
			t.Errorf("restore %s printed %q, want %q", filepath.Base(path), out, want)
		}
		if after := fingerprint(t, b.dir); after != before {
			t.Errorf("restore %s modified the directory:\n%s\nbefore:\n%s", filepath.Base(path), after, before)
		}
	}
	run := b.start(t)
	out := b.mustFail(ctx, t, "restore", "--force", b.backup)
	if !hasAll(out, []string{"locked by another process (pid " + strconv.Itoa(run.cmd.Process.Pid) + ")"}) {
		t.Errorf("restore while a server runs: %s", out)
	}
	if got := userIDs(t, run.client(t, 1<<20)); len(got) != len(b.new) {
		t.Errorf("got %d users, want %d", len(got), len(b.new))
	}
}

// fingerprint lists the files of a directory with sizes and times.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	for _, name := range namesIn(t, dir) {
		if strings.HasSuffix(name, "-shm") {
			continue // the WAL index is recreated at each open
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, name, strconv.FormatInt(info.Size(), 10), info.ModTime().String())
	}
	return strings.Join(lines, " ")
}

// Exactly one of several concurrent restores to a path succeeds.
func TestConcurrentRestores(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(b.store + suffix); err != nil {
			t.Fatal(err)
		}
	}
	var all errgroup.Group
	results := make([]error, 4)
	for i := range results {
		all.Go(func() error {
			_, results[i] = b.run(ctx, t, "restore", b.backup)
			return nil
		})
	}
	_ = all.Wait() // errors are in results
	restored := 0
	for _, err := range results {
		if err == nil {
			restored++
		}
	}
	if restored != 1 {
		t.Errorf("%d restores succeeded, want 1: %v", restored, results)
	}
	b.mustServe(ctx, t, b.old)
	if names := namesIn(t, b.dir); slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, ".partial") }) {
		t.Errorf("files left: %v", names)
	}
}

// A restore that is killed at any modifying system call leaves the old store, the restored
// one, or a mismatch that is reported. It can be repeated.
func TestKilledRestore(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	original := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		copyTo(t, b.store+suffix, filepath.Join(original, databaseFile+suffix))
	}
	outcomes := map[string]int{}
	calls := []string{"link", "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "fsync", "fchmod", "openat"}
	for n, call := range slices.Repeat(calls, 4) {
		if n >= len(calls) && len(outcomes) == 3 {
			break // strace counts the calls of each thread, so a repetition may kill at another one
		}
		for when, killed := 1, true; killed; when++ {
			if call == "openat" {
				when += 20 // most calls only read
			}
			run := *b
			run.dir = t.TempDir()
			run.store = filepath.Join(run.dir, databaseFile)
			for _, suffix := range []string{"", "-wal"} {
				copyTo(t, filepath.Join(original, databaseFile+suffix), run.store+suffix)
			}
			traced := run.program
			traced.wrap = []string{
				requireStrace(t), "-f", "-o", "/dev/null", "-e", "inject=" + call + ":signal=SIGKILL:when=" + strconv.Itoa(when),
			}
			_, err := traced.run(ctx, t, "restore", "--force", b.backup)
			killed = err != nil
			outcomes[run.afterKill(ctx, t)]++
		}
	}
	t.Logf("outcomes: %v", outcomes)
	for _, want := range []string{"old", "refused", "restored"} {
		if outcomes[want] == 0 {
			t.Errorf("no kill had outcome %q: %v", want, outcomes)
		}
	}
}

// afterKill returns the outcome of a killed restore, and repeats it if it was incomplete.
func (b *backedUp) afterKill(ctx context.Context, t *testing.T) string {
	t.Helper()
	out, err := b.run(ctx, t, "check")
	if err != nil {
		if !hasAll(out, []string{"userd restore"}) {
			t.Fatalf("store is unusable after a killed restore:\n%s", out)
		}
		b.mustRun(ctx, t, "restore", "--force", b.backup)
		b.mustServe(ctx, t, b.old)
		return "refused"
	}
	run := b.start(t)
	got := userIDs(t, run.client(t, 1<<20))
	run.kill()
	switch {
	case slices.Equal(got, b.new):
		return "old"
	case slices.Equal(got, b.old):
		return "restored"
	}
	t.Fatalf("%d users after a killed restore, want %d or %d", len(got), len(b.new), len(b.old))
	return ""
}

// On a read-only file system check, backup and restore from it work; serve reports the error.
func TestReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a bind mount needs root")
	}
	ctx := within(t, hangTimeout)
	b := makeBackup(ctx, t)
	run := b.start(t)
	run.terminate(t)
	frozen := t.TempDir()
	for _, args := range [][]string{{"--bind", b.dir, frozen}, {"-o", "remount,bind,ro", frozen}} {
		if out, err := exec.CommandContext(ctx, "mount", args...).CombinedOutput(); err != nil {
			t.Fatalf("mount %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", frozen).CombinedOutput(); err != nil { //nolint:noctx // the test's context has ended
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	store := "sqlite:" + filepath.Join(frozen, databaseFile)
	b.mustRun(ctx, t, "check", "--store", store)
	b.mustRun(ctx, t, "backup", filepath.Join(b.dir, "copy.db"), "--store", store)
	again := *b
	again.dir = t.TempDir()
	again.mustRun(ctx, t, "restore", filepath.Join(frozen, databaseFile))
	started := again.start(t)
	if got := userIDs(t, started.client(t, 1<<20)); !slices.Equal(got, b.new) {
		t.Errorf("got %d users, want %d", len(got), len(b.new))
	}
	for _, args := range [][]string{{"--listen", "127.0.0.1:0", "--admin-listen", ""}, {"restore", "--force", b.backup}} {
		if out := b.mustFail(ctx, t, append(args, "--store", store)...); !hasAll(out, []string{"read-only file system"}) {
			t.Errorf("userd %v printed %s", args, out)
		}
	}
}
