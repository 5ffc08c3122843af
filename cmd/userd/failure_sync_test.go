package main_test

import (
	"bufio"
	"context"
	"os/exec"
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

// inject attaches to every thread of the program, those to come included.
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

// detach lets the system calls do what they always do.
func (tr *tracer) detach() {
	tr.once.Do(func() { _ = tr.cmd.Process.Signal(syscall.SIGINT) })
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
	readOnly := func(refusals []error) {
		t.Helper()
		for _, err := range refusals {
			mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
		}
	}
	readOnly(s.createUntilRefused(ctx))
	s.awaitRefusing(ctx, t, writes, "since a sync to disk failed")
	s.mustRead(ctx, t)
	tr.detach()
	readOnly(s.createUntilRefused(ctx)) // syncs succeed again, which means nothing
	s.mustRead(ctx, t)
	s.process.output.await(t, "the store takes no more writes")
	s.mustSurvive(ctx, t)
}

// The sync may fail while the write-ahead log is copied into the database, too.
func TestFailedSyncOfCheckpoint(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	s := startTroubled(ctx, t, t.TempDir())
	inject(t, s.process, "-P", s.program.dir+"/userservice.db", "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:error=EIO:when=1+")
	err := s.fillLog(ctx)
	mustBe(t, err, connect.CodeFailedPrecondition, "STORE_READ_ONLY")
	s.process.output.await(t, "the store takes no more writes", "checkpoint")
	s.mustRead(ctx, t)
	s.mustSurvive(ctx, t)
}

// fillLog writes many rows, enough for several checkpoints, until a write fails.
func (s *troubled) fillLog(ctx context.Context) error {
	note := strings.Repeat("x", 1000)
	details := map[string]string{"a": note, "b": note, "c": note}
	for range 20_000 {
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
	s.mustRead(ctx, t)
	tr.detach()
	s.awaitServing(ctx, t, writes)
	s.mustCreate(ctx, t)
	s.mustSurvive(ctx, t)
}
