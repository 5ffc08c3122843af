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
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// smallDisk is a file system of a few megabytes that the test fills and empties.
type smallDisk struct{ dir string }

func newSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m", "userd-test", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("this test needs a file system that it can fill, and may not mount one (run it as root, on Linux): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return smallDisk{dir}
}

func (d smallDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fill writes until there is no room left.
func (d smallDisk) fill(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // what matters is that there is no room
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// makeRoom takes some of the filler away.
func (d smallDisk) makeRoom(t *testing.T, bytes int64) {
	t.Helper()
	info, err := os.Stat(d.filler())
	if err == nil {
		err = os.Truncate(d.filler(), max(0, info.Size()-bytes))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A disk that is full refuses writes, and nothing else. Room is all it needs.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	disk := newSmallDisk(t)
	s := startTroubled(ctx, t, disk.dir)
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
		for _, err := range s.createUntilRefused(ctx) {
			mustBe(t, err, connect.CodeResourceExhausted, "STORE_FULL")
		}
		s.awaitRefusing(ctx, t, writes, "disk of the store is full")
		s.mustRead(ctx, t)
		disk.makeRoom(t, 512<<10)
		s.awaitServing(ctx, t, writes)
		s.mustCreate(ctx, t)
	}
	for seen := 20; seen < len(s.acked); seen++ { // it has gone on all the time
		if !live.Receive() || live.Msg().GetUserId() != s.acked[seen] && seen == len(s.acked)-1 {
			t.Fatalf("the live stream: %v, %v", live.Msg(), live.Err())
		}
	}
	select {
	case event := <-reads.events:
		t.Errorf("the watch of reads told of %+v", event)
	default: // they were served all the time
	}
	s.mustSurvive(ctx, t)
}

// A program that stops while its disk is full stops in good order and loses nothing. On
// a full disk it starts to read, if the disk has what SQLite needs for that, and to
// write once there is room.
func TestStopAndStartOnFullDisk(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	disk := newSmallDisk(t)
	s := startTroubled(ctx, t, disk.dir)
	disk.fill(t)
	s.createUntilRefused(ctx)
	s.process.terminate(t)
	if s.process.err != nil {
		t.Errorf("ended with %v\n%s", s.process.err, s.process.output)
	}
	disk.fill(t)
	s.restart(t)
	writes := s.watch(ctx, writesName)
	s.awaitRefusing(ctx, t, writes, "disk of the store is full")
	s.mustRead(ctx, t)
	disk.makeRoom(t, 4<<20)
	s.awaitServing(ctx, t, writes)
	s.mustSurvive(ctx, t)

	s.process.terminate(t)
	disk.fill(t)
	if out := s.program.mustFail(ctx, t); !strings.Contains(out, "disk of the store is full") {
		t.Errorf("does not say that the disk is full:\n%s", out)
	}
	disk.makeRoom(t, 4<<20)
	s.mustSurvive(ctx, t)
}
