package main_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// A backup taken during writes contains all writes acknowledged before it, has no gap in its
// log and gets a new epoch.
func TestBackupDuringWrites(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	dir, restored := t.TempDir(), t.TempDir()
	run := program{dir: dir}.start(t)
	client := run.client(t, 1<<20)
	importUsers(t, client, 2000)
	before := userIDs(t, client)

	writing, stop := context.WithCancel(ctx)
	var load errgroup.Group
	load.Go(func() error {
		for i := 0; writing.Err() == nil; i++ {
			if _, err := client.CreateUser(ctx, newUser("concurrent", i)); err != nil {
				return err
			}
		}
		return nil
	})
	backup := filepath.Join(restored, "userservice.db")
	for _, args := range [][]string{{"backup", backup}, {"check"}, {"check", "--store", "sqlite:" + backup}} {
		cmd := exec.CommandContext(ctx, build(t, ""), args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("userd %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	stop()
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	copied := program{dir: restored}.start(t)
	found, err := copied.client(t, 1<<20).BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{UserIds: before[:1000]})
	if err != nil || len(found.GetMissingUserIds()) > 0 {
		t.Errorf("%d users are missing in the backup, error %v", len(found.GetMissingUserIds()), err)
	}
	if old, epoch := epochOf(ctx, t, run), epochOf(ctx, t, copied); old == epoch {
		t.Errorf("epoch of the backup = %s, want a new one", epoch)
	}
	again := exec.CommandContext(ctx, build(t, ""), "backup", backup)
	again.Dir = dir
	if out, err := again.CombinedOutput(); err == nil || !strings.Contains(string(out), "exists") {
		t.Errorf("backup to an existing file: error %v\n%s", err, out)
	}
}

func epochOf(ctx context.Context, t testing.TB, p *process) string {
	t.Helper()
	calling, info := connect.NewClientContext(ctx)
	if _, err := p.client(t, 1<<20).ListUsers(calling, &userv1.ListUsersRequest{PageSize: 1}); err != nil {
		t.Fatal(err)
	}
	epoch, _, _ := strings.Cut(info.ResponseHeader().Get("Userd-Position"), ":")
	return epoch
}
