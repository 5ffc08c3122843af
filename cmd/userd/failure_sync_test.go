package main_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
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
	ctx := within(t, hangTimeout)
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
			ctx := within(t, hangTimeout)
			s := startFailureTest(ctx, t, t.TempDir())
			writes := s.watch(ctx, writesName)
			s.awaitServing(ctx, t, writes)
			if fault.file != "-wal" {
				s.prepareLog(ctx, t)
			}
			tr := inject(t, s.process, "-P", filepath.Join(s.program.dir, databaseFile+fault.file),
				"-e", "trace=pwrite64,ftruncate,fallocate", "-e", "inject="+fault.inject)
			if fault.reason == "" {
				if err := s.fillLog(ctx, 10); err != nil {
					t.Fatal(err)
				}
				s.process.output.await(t, "WAL checkpoint failed")
			} else if err := s.fillLog(ctx, 10); err == nil || infoOf(err).GetReason() != fault.reason {
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
	ctx := within(t, hangTimeout)
	s := startFailureTest(ctx, t, t.TempDir())
	s.prepareLog(ctx, t)
	inject(t, s.process, "-P", filepath.Join(s.program.dir, databaseFile), "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	err := s.fillLog(ctx, 20)
	mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	s.process.output.await(t, "store is read-only until restart", "checkpoint")
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}

// fillLog writes users and batches of rows until a write fails.
func (s *failureTest) fillLog(ctx context.Context, batches int) error {
	for range 5 {
		if err := s.create(ctx); err != nil {
			return err
		}
	}
	for range batches {
		if err := writeRows(ctx, s.client, s.acked[0], 100); err != nil {
			return err
		}
	}
	return nil
}

// prepareLog writes rows until the write-ahead log has nearly the 16 MiB after which it is checkpointed and its index grows.
// It is called before inject, because strace stops the program at each system call.
func (s *failureTest) prepareLog(ctx context.Context, t *testing.T) {
	t.Helper()
	for size := int64(0); size < 14<<20; {
		if err := writeRows(ctx, s.client, s.acked[0], 200); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(s.program.dir, databaseFile+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		size = info.Size()
	}
}

// While the disk is slow, writes end at their deadlines, reads are not affected, and health
// reports writes as not serving.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
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
