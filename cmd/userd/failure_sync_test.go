package main_test

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// tracer injects failures into the system calls of a process with strace.
type tracer struct {
	cmd   *exec.Cmd
	ended chan struct{}
	once  sync.Once
}

// inject attaches strace to the process. Sync failures must name fsync as well as fdatasync:
// SQLite uses fdatasync, but the Go translation calls fsync.
func inject(t *testing.T, p *process, args ...string) *tracer {
	t.Helper()
	args = append([]string{"-f", "-o", "/dev/null", "-p", strconv.Itoa(p.cmd.Process.Pid)}, args...)
	tr := &tracer{cmd: exec.Command(requireStrace(t), args...), ended: make(chan struct{})} //nolint:noctx // detach stops it
	pipe, err := tr.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached, printed := make(chan struct{}), &output{}
	attach := sync.OnceFunc(func() { close(attached) })
	go func() {
		defer close(tr.ended)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			printed.add(lines.Text())
			if strings.Contains(lines.Text(), "attached") {
				attach()
			}
		}
		_ = tr.cmd.Wait() // killed by a signal
	}()
	t.Cleanup(tr.detach)
	select {
	case <-attached:
	case <-tr.ended:
		t.Fatalf("strace did not attach (needs root): %s", printed)
	}
	return tr
}

// detach stops strace. It kills strace after a timeout, because strace can hang on a process
// that is exiting.
func (tr *tracer) detach() {
	tr.once.Do(func() {
		_ = tr.cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-tr.ended:
		case <-time.After(5 * time.Second):
			_ = tr.cmd.Process.Kill()
		}
	})
	<-tr.ended
}

// After a failed sync the store is read-only until a restart, even if later syncs would
// succeed.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startFailureTest(ctx, t, t.TempDir())
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	tr := inject(t, s.process, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	// The outcome of the writes in the failed commit is unknown, since recovery may find them
	// in the write-ahead log. Later writes are rejected.
	unknown := 0
	for _, err := range s.createUntilError(ctx) {
		if strings.Contains(err.Error(), unknownText) {
			mustBe(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
			unknown++
		} else {
			mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
		}
	}
	if unknown == 0 {
		t.Error("no write failed with an unknown outcome")
	}
	s.awaitNotServing(ctx, t, writes, "a sync to disk failed")
	s.mustRead(ctx, t)
	tr.detach()
	for _, err := range s.createUntilError(ctx) { // even though syncs succeed again
		mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	}
	s.mustRead(ctx, t)
	s.process.output.await(t, "store is read-only until restart")
	s.mustSurvive(ctx, t)
}

// Writes that fail before the commit frame is written succeed again without a restart, and
// rejected writes never take effect.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ file, inject, reason string }{
		"quota exceeded":         {"-wal", "pwrite64:error=EDQUOT:when=1+", "STORE_UNAVAILABLE"},
		"all writes fail":        {"-wal", "pwrite64:error=EIO:when=1+", "STORE_UNAVAILABLE"},
		"one write fails":        {"-wal", "pwrite64:error=EIO:when=4", "STORE_UNAVAILABLE"},
		"read-only file system":  {"-wal", "pwrite64:error=EROFS:when=1+", "STORE_UNAVAILABLE"},
		"no space for the WAL":   {"-wal", "pwrite64:error=ENOSPC:when=1+", "STORE_FULL"},
		"no space for WAL index": {"-shm", "pwrite64,ftruncate,fallocate:error=ENOSPC:when=1+", "STORE_UNAVAILABLE"},
		"checkpoint writes fail": {"", "pwrite64:error=EIO:when=1+", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			s := startFailureTest(ctx, t, t.TempDir())
			writes := s.watch(ctx, writesName)
			s.awaitServing(ctx, t, writes)
			tr := inject(t, s.process, "-P", filepath.Join(s.program.dir, databaseFile+fault.file),
				"-e", "trace=pwrite64,ftruncate,fallocate", "-e", "inject="+fault.inject)
			if fault.reason == "" {
				for range 5 { // more than the 16 MiB after which the log is checkpointed
					if err := writeMegabytes(ctx, s.client, s.acked[0]); err != nil {
						t.Fatal(err)
					}
				}
				s.process.output.await(t, "WAL checkpoint failed")
			} else if err := s.fillLog(ctx, 2500); err == nil || infoOf(err).GetReason() != fault.reason {
				t.Fatalf("error = %v (%s), want %s", err, infoOf(err).GetReason(), fault.reason)
			}
			_ = s.create(ctx) // if rejected, it must not be in the log
			tr.detach()
			eventually(ctx, t, s.create)
			s.mustRead(ctx, t)
			s.mustSurvive(ctx, t)
			s.process.terminate(t)
			if out, err := s.program.run(ctx, t, "check"); err != nil {
				t.Errorf("userd check: %v\n%s", err, out)
			}
		})
	}
}

// A failed sync of a checkpoint stops writes, too.
func TestFailedCheckpointSync(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startFailureTest(ctx, t, t.TempDir())
	inject(t, s.process, "-P", s.program.dir+"/userservice.db", "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	err := s.fillLog(ctx, 20_000)
	mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	s.process.output.await(t, "store is read-only until restart", "checkpoint")
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}

// fillLog writes rows until a write fails. A few thousand rows cause a checkpoint.
func (s *failureTest) fillLog(ctx context.Context, rows int) error {
	value := strings.Repeat("x", 1000)
	details := map[string]string{"a": value, "b": value, "c": value}
	for range rows {
		_, err := s.client.RecordUserActivity(ctx, &userv1.RecordUserActivityRequest{
			UserId: s.acked[0], Action: "test.noted", Details: details,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// While the disk is slow, writes end at their deadlines, reads are not affected, and health
// reports writes as not serving.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startFailureTest(ctx, t, t.TempDir())
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	tr := inject(t, s.process, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=20000000")
	for range 3 {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if err := s.create(short); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("create error = %v, want DEADLINE_EXCEEDED", err)
		}
		cancel()
		short, cancel = context.WithTimeout(ctx, 5*time.Second) // strace slows all calls
		s.mustRead(short, t)
		cancel()
	}
	s.awaitNotServing(ctx, t, writes, "probe timed out")
	mustBe(t, s.create(ctx), connect.CodeUnavailable, "OVERLOADED") // fails at once
	s.mustRead(ctx, t)
	tr.detach()
	s.awaitServing(ctx, t, writes)
	s.mustCreate(ctx, t)
	s.mustSurvive(ctx, t)
}
