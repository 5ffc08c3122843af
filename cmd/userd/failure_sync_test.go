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

// tracer changes what system calls of a running program do.
type tracer struct {
	cmd   *exec.Cmd
	ended chan struct{}
	once  sync.Once
}

// inject attaches to every thread of the program, those to come included. A fault of
// the sync must name fsync beside fdatasync: SQLite asks for the latter, but the driver
// calls the former, and strace says nothing of a call that never comes.
func inject(t *testing.T, p *process, args ...string) *tracer {
	t.Helper()
	args = append([]string{"-f", "-o", "/dev/null", "-p", strconv.Itoa(p.cmd.Process.Pid)}, args...)
	tr := &tracer{cmd: exec.Command(requireStrace(t), args...), ended: make(chan struct{})} //nolint:noctx // detach ends it
	pipe, err := tr.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached, said := make(chan struct{}), &output{}
	attach := sync.OnceFunc(func() { close(attached) })
	go func() {
		defer close(tr.ended)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			said.add(lines.Text())
			if strings.Contains(lines.Text(), "attached") {
				attach()
			}
		}
		_ = tr.cmd.Wait() // it ends by a signal
	}()
	t.Cleanup(tr.detach)
	select {
	case <-attached:
	case <-tr.ended:
		t.Fatalf("this test must be allowed to trace the program (run it as root): %s", said)
	}
	return tr
}

// detach lets the system calls do what they always do. strace may wait for ever for a
// thread of a program that is ending; without it the thread is let go as well.
func (tr *tracer) detach() {
	tr.once.Do(func() {
		_ = tr.cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-tr.ended:
		case <-time.After(5 * time.Second):
			_ = tr.cmd.Process.Kill() // it may have ended
		}
	})
	<-tr.ended
}

// After a failed sync nobody knows what is on disk, even if the next one succeeds: the
// program writes nothing more until it is started anew, and goes on reading.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startTroubled(ctx, t, t.TempDir())
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	tr := inject(t, s.process, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	// Those whose sync it was are in the write-ahead log, which a start anew may find
	// whole: they must not hear that they were refused. The others were.
	unknown := 0
	for _, err := range s.createUntilRefused(ctx) {
		if strings.Contains(err.Error(), unknownText) {
			mustBe(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
			unknown++
		} else {
			mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
		}
	}
	if unknown == 0 {
		t.Error("no client got the error for a write with an unknown outcome")
	}
	s.awaitRefusing(ctx, t, writes, "a sync to disk failed")
	s.mustRead(ctx, t)
	tr.detach()
	for _, err := range s.createUntilRefused(ctx) { // syncs succeed again, which means nothing
		mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	}
	s.mustRead(ctx, t)
	s.process.output.await(t, "the store takes no more writes")
	s.mustSurvive(ctx, t)
}

// What fails before the commit can be in the log, or fails for want of room, passes
// without a restart, and what was refused is never seen.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ file, inject, reason string }{
		"a quota that is used up":   {"-wal", "pwrite64:error=EDQUOT:when=1+", "STORE_UNAVAILABLE"},
		"a disk that cannot write":  {"-wal", "pwrite64:error=EIO:when=1+", "STORE_UNAVAILABLE"},
		"one write that fails":      {"-wal", "pwrite64:error=EIO:when=4", "STORE_UNAVAILABLE"},
		"a disk made read only":     {"-wal", "pwrite64:error=EROFS:when=1+", "STORE_UNAVAILABLE"},
		"no room for the log":       {"-wal", "pwrite64:error=ENOSPC:when=1+", "STORE_FULL"},
		"no room for its index":     {"-shm", "pwrite64,ftruncate,fallocate:error=ENOSPC:when=1+", "STORE_UNAVAILABLE"},
		"a database not written to": {"", "pwrite64:error=EIO:when=1+", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			s := startTroubled(ctx, t, t.TempDir())
			writes := s.watch(ctx, writesName)
			s.awaitServing(ctx, t, writes)
			tr := inject(t, s.process, "-P", filepath.Join(s.program.dir, databaseFile+fault.file),
				"-e", "trace=pwrite64,ftruncate,fallocate", "-e", "inject="+fault.inject)
			if fault.reason == "" {
				if err := s.fillLog(ctx, 2500); err != nil {
					t.Fatal(err)
				}
				s.process.output.await(t, "the write-ahead log cannot be copied")
			} else if err := s.fillLog(ctx, 2500); err == nil || infoOf(err).GetReason() != fault.reason {
				t.Fatalf("got %v (%s), want %s", err, infoOf(err).GetReason(), fault.reason)
			}
			_ = s.create(ctx) // if it is refused, the log must not have it in the end
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

// The sync may fail while the write-ahead log is copied into the database, too.
func TestFailedSyncOfCheckpoint(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startTroubled(ctx, t, t.TempDir())
	inject(t, s.process, "-P", s.program.dir+"/userservice.db", "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	err := s.fillLog(ctx, 20_000)
	mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	s.process.output.await(t, "the store takes no more writes", "checkpoint")
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}

// fillLog writes rows until a write fails; a few thousand are enough for a checkpoint.
func (s *troubled) fillLog(ctx context.Context, rows int) error {
	note := strings.Repeat("x", 1000)
	details := map[string]string{"a": note, "b": note, "c": note}
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

// While the disk is slow, whoever has a deadline hears of it in time, reads do not
// notice, and health says that writes are not served until the disk is itself again.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startTroubled(ctx, t, t.TempDir())
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	tr := inject(t, s.process, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=20000000")
	for range 3 {
		hasty, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if err := s.create(hasty); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("a write with a deadline: got %v", err)
		}
		cancel()
		hasty, cancel = context.WithTimeout(ctx, 5*time.Second) // not 20: tracing alone takes its time
		s.mustRead(hasty, t)
		cancel()
	}
	s.awaitRefusing(ctx, t, writes, "no answer within")
	mustBe(t, s.create(ctx), connect.CodeUnavailable, "OVERLOADED") // at once: none shall wait in memory
	s.mustRead(ctx, t)
	tr.detach()
	s.awaitServing(ctx, t, writes)
	s.mustCreate(ctx, t)
	s.mustSurvive(ctx, t)
}
