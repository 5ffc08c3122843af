package main_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// smallDisk is a tmpfs of a few megabytes.
type smallDisk struct{ dir string }

func newSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m", "userd-test", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("mount tmpfs (needs root on Linux): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return smallDisk{dir}
}

func (d smallDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fill fills the disk with a filler file.
func (d smallDisk) fill(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// free truncates the filler file by some bytes.
func (d smallDisk) free(t *testing.T, bytes int64) {
	t.Helper()
	info, err := os.Stat(d.filler())
	if err == nil {
		err = os.Truncate(d.filler(), max(0, info.Size()-bytes))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// On a full disk writes fail with STORE_FULL, reads succeed. Writes recover once there is space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	disk := newSmallDisk(t)
	s := startFailureTest(ctx, t, disk.dir)
	writes := s.watch(ctx, writesName)
	s.awaitServing(ctx, t, writes)
	reads := s.watch(ctx, readsName)
	reads.await(ctx, t, grpchealth.StatusServing)
	live, err := s.client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{FromHead: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		disk.fill(t)
		for _, err := range s.createUntilError(ctx) {
			mustBe(t, err, connect.CodeResourceExhausted, "STORE_FULL")
		}
		s.awaitNotServing(ctx, t, writes, "disk of the store is full")
		s.mustRead(ctx, t)
		disk.free(t, 512<<10)
		s.awaitServing(ctx, t, writes)
		s.mustCreate(ctx, t)
	}
	for i := 20; i < len(s.acked); i++ {
		if !live.Receive() || live.Msg().GetUserId() != s.acked[i] && i == len(s.acked)-1 {
			t.Fatalf("live stream: message %v, error %v", live.Msg(), live.Err())
		}
	}
	select {
	case event := <-reads.events:
		t.Errorf("health watch of reads: %+v, want no change", event)
	default:
	}
	s.mustSurvive(ctx, t)
}

// On a full disk the program shuts down gracefully. It starts on a full disk and serves reads if
// SQLite can create the WAL index, and writes once there is space.
func TestRestartOnFullDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	disk := newSmallDisk(t)
	s := startFailureTest(ctx, t, disk.dir)
	disk.fill(t)
	s.createUntilError(ctx)
	s.process.terminate(t)
	if s.process.err != nil {
		t.Errorf("exit status: %v\n%s", s.process.err, s.process.output)
	}
	disk.fill(t)
	s.restart(t)
	writes := s.watch(ctx, writesName)
	s.awaitNotServing(ctx, t, writes, "disk of the store is full")
	s.mustRead(ctx, t)
	disk.free(t, 4<<20)
	s.awaitServing(ctx, t, writes)
	s.mustSurvive(ctx, t)

	s.process.terminate(t)
	disk.fill(t)
	if out := s.program.mustFail(ctx, t); !strings.Contains(out, "disk of the store is full") {
		t.Errorf("output does not contain the disk-full error:\n%s", out)
	}
	disk.free(t, 4<<20)
	s.mustSurvive(ctx, t)
}
