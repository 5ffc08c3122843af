package main_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	_ "modernc.org/sqlite" // to lock the file from this process

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

const databaseFile = "userservice.db"

// A second process with the same file fails to start, and does not disturb the first.
func TestSecondProcessFails(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	out := s.program.mustFail(ctx, t)
	if !hasAll(out, []string{databaseFile, "locked by another process (pid"}) {
		t.Errorf("output does not name the process with the lock:\n%s", out)
	}
	s.mustCreate(ctx, t)
	s.mustSurvive(ctx, t)
}

// While another process holds SQLite's write lock, writes fail with a retryable error.
func TestLockedDatabase(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	unlock := lockDatabase(ctx, t, filepath.Join(s.program.dir, databaseFile))
	start := time.Now()
	for _, err := range s.createUntilError(ctx) {
		mustBe(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
	}
	if took := time.Since(start); took > 20*time.Second { // a lock timeout of 5 s for each of the 8 callers
		t.Errorf("concurrent creates failed after %v, want the waiting ones to fail together", took)
	}
	s.mustRead(ctx, t)
	s.awaitNotServing(ctx, t, writes, "writes: ")
	unlock()
	s.awaitServing(ctx, t, writes)
	s.mustCreate(ctx, t)
	s.mustSurvive(ctx, t)
}

func lockDatabase(ctx context.Context, t *testing.T, path string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // nothing written
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}
}

// A file with a damaged header is reported at start.
func TestDamagedHeader(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	for name, damage := range map[string]struct {
		from, to int64
		says     []string
	}{
		"the mark of the format": {0, 16, []string{databaseFile, "file is not a SQLite database"}},
		"the header behind it":   {16, 100, []string{databaseFile, "not a SQLite database"}},
		"the first page":         {100, 4096, []string{databaseFile, "the database is damaged; restore a backup"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startFailureTest(ctx, t, t.TempDir())
			s.process.terminate(t)
			overwrite(t, filepath.Join(s.program.dir, databaseFile), damage.from, damage.to)
			for _, args := range [][]string{nil, {"check"}} {
				if out := s.program.mustFail(ctx, t, args...); !hasAll(out, damage.says) {
					t.Errorf("userd %v: output does not contain %q:\n%s", args, damage.says, out)
				}
			}
		})
	}
}

// overwrite overwrites a range of a file with garbage.
func overwrite(t *testing.T, path string, from, to int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(strings.Repeat("\xa5", int(to-from))), from)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// damagedPages starts a program with a damaged range in its database file.
func damagedPages(ctx context.Context, t *testing.T, where func(file []byte) (from, to int)) *failureTest {
	t.Helper()
	s := startFailureTest(ctx, t, t.TempDir())
	for range 500 {
		s.mustCreate(ctx, t)
	}
	s.process.terminate(t)
	path := filepath.Join(s.program.dir, databaseFile)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	from, to := where(file)
	overwrite(t, path, int64(from), int64(to))
	s.restart(t)
	return s
}

// usersLeaf finds a leaf page of the users table.
func usersLeaf(file []byte) (from, to int) {
	for page := range slices.Chunk(file, 4096) {
		if page[0] == 0x0d && bytes.Contains(page, []byte("@example.org")) && !bytes.Contains(page, []byte("user.created")) {
			return from, from + len(page)
		}
		from += len(page)
	}
	return 0, 0
}

// A store with a damaged file is not ready and read-only, whether the damage is found at
// start or later.
func TestDamagedStoreIsNotReady(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := damagedPages(ctx, t, usersLeaf)
	s.mustBeDamaged(ctx, t)
	s.process.terminate(t)

	s = startFailureTest(ctx, t, t.TempDir())
	for range 500 {
		s.mustCreate(ctx, t)
	}
	s.process.terminate(t)
	s.restart(t) // with an empty page cache
	whole := s.watch(ctx, "")
	whole.await(ctx, t, grpchealth.StatusServing)
	path := filepath.Join(s.program.dir, databaseFile)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	from, to := usersLeaf(file)
	overwrite(t, path, int64(from), int64(to))
	for _, id := range s.acked { // some are on the damaged page
		_, _ = s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
	}
	whole.await(ctx, t, grpchealth.StatusNotServing)
	s.process.output.await(t, "integrity check found damage")
	s.mustBeDamaged(ctx, t)
}

func (s *failureTest) mustBeDamaged(ctx context.Context, t *testing.T) {
	t.Helper()
	eventually(ctx, t, func(ctx context.Context) error {
		status, text := s.readyz(ctx, t)
		if status != http.StatusServiceUnavailable || !hasAll(text, []string{"reads: the database is damaged; restore a backup", "writes: "}) {
			return fmt.Errorf("/readyz = %d, %q, want a damaged database", status, text)
		}
		return nil
	})
	s.mustCheck(ctx, t, "", grpchealth.StatusNotServing)
	s.mustCheck(ctx, t, writesName, grpchealth.StatusNotServing)
	mustBe(t, s.create(ctx), connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	readable := 0
	for _, id := range s.acked {
		if _, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err == nil {
			readable++
		}
	}
	if readable == 0 || readable == len(s.acked) {
		t.Errorf("%d of %d users could be read, want a part", readable, len(s.acked))
	}
}

// Read errors of the disk are not reported as damage: calls fail with a retryable error and
// succeed once the disk can be read.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	for range 200 {
		s.mustCreate(ctx, t)
	}
	s.process.terminate(t)
	s.restart(t) // with an empty page cache
	path := filepath.Join(s.program.dir, databaseFile)
	tr := inject(t, s.process, "-P", path, "-P", path+"-wal", "-e", "trace=pread64", "-e", "inject=pread64:error=EIO:when=1+")
	for i := range 8 {
		_, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: s.acked[i*25]})
		mustBe(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
	}
	_, err := s.client.UpdateUser(ctx, &userv1.UpdateUserRequest{UserId: s.acked[0], User: &userv1.User{Tags: []string{"x"}}})
	mustBe(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
	s.process.output.await(t, "store reads failing", "database file cannot be read")
	if text := s.process.output.String(); strings.Contains(text, "damaged") {
		t.Errorf("read error reported as damage:\n%s", text)
	}
	tr.detach()
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}

// Only reads of damaged pages fail, with INTERNAL and an incident. The program is not ready,
// and userd check finds the damage.
func TestDamagedPages(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	s := damagedPages(ctx, t, func(file []byte) (from, to int) { return len(file) / 2 &^ 4095, len(file) * 3 / 4 &^ 4095 })
	readable, incident := 0, ""
	for _, id := range s.acked {
		_, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
		switch connect.CodeOf(err) {
		case connect.CodeInternal:
			incident = mustBe(t, err, connect.CodeInternal, "INTERNAL").GetMetadata()["incident"]
			if strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "malformed") {
				t.Fatalf("error reveals internals: %v", err)
			}
		default:
			if err != nil {
				t.Fatalf("GetUser(%d): %v", id, err)
			}
			readable++
		}
	}
	if readable == 0 || incident == "" {
		t.Errorf("%d of %d users could be read, last incident %q", readable, len(s.acked), incident)
	}
	s.process.output.await(t, incident, "the database is damaged; restore a backup")
	s.mustCheck(ctx, t, "", grpchealth.StatusNotServing)
	s.process.terminate(t)
	if out := s.program.mustFail(ctx, t, "check"); !hasAll(out, []string{"SQLite: ", databaseFile + " is damaged"}) {
		t.Errorf("userd check does not report the damage:\n%s", out)
	} else {
		t.Logf("userd check: %.600s", out)
	}
}
