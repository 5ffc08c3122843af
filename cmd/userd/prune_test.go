package main_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

const (
	prunedUsers = 100
	prunedRows  = 12_000 // with those of the users
)

// writeOldLog writes a store with rows that are two days old.
func writeOldLog(t *testing.T, path string) {
	t.Helper()
	old := time.Now().Add(-48 * time.Hour)
	store, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: path, Logger: slog.New(slog.DiscardHandler), Clock: clock.FromWallClock(func() time.Time { return old }),
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for len(ids) < prunedRows {
		var batch user.Batch
		for i := range prunedUsers {
			var op user.Op
			if len(ids) == 0 {
				if op, err = user.NewCreate(user.User{Username: fmt.Sprintf("old-%d", i), Email: fmt.Sprintf("old-%d@example.org", i)}); err != nil {
					t.Fatal(err)
				}
			} else {
				op = &user.Record{ID: ids[i], Action: "app.seen"}
			}
			batch.Changes = append(batch.Changes, user.Change{Op: op})
		}
		results, err := user.Apply(t.Context(), store, batch)
		if err != nil {
			t.Fatal(err)
		}
		for i := range results {
			ids = append(ids, results[i].User.ID)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// Kills while the log is pruned lose no acknowledged write and leave no gap, and the store remains intact.
func TestKillWhileLogIsPruned(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	seed := uint64(time.Now().UnixNano())
	dir := t.TempDir()
	writeOldLog(t, filepath.Join(dir, databaseFile))
	run := crashRun{
		program: program{dir: dir, flags: []string{"--log-retention", "24h", "--trust-clock"}},
		kills:   6, callers: 4, random: rand.New(rand.NewPCG(seed, 0)), position: prunedRows,
	}
	partly := 0
	for i := range run.kills {
		p := run.program.start(t)
		if err := run.check(ctx, t, p); err != nil {
			t.Fatalf("seed %d: after kill %d: %v", seed, i, err)
		}
		if first := firstOfLog(ctx, t, p); first > 1 && first <= prunedRows {
			partly++
		}
		if err := run.loadAndKill(ctx, t, p, run.random.IntN(30)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d of %d starts found a log that was pruned partly", partly, run.kills)
	p := run.program.start(t)
	eventually(ctx, t, func(ctx context.Context) error {
		if first := firstOfLog(ctx, t, p); first != prunedRows+1 {
			return fmt.Errorf("oldest row %d, want %d", first, prunedRows+1)
		}
		return nil
	})
	if err := run.check(ctx, t, p); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	users, err := p.client(t, 1<<20).ListUsers(ctx, &userv1.ListUsersRequest{Filter: `username = "old-*"`, PageSize: 1000})
	if err != nil || len(users.GetUsers()) != prunedUsers {
		t.Errorf("%d users after pruning, %v, want %d", len(users.GetUsers()), err, prunedUsers)
	}
	run.program.mustRun(ctx, t, "backup", "pruned.db")
	for _, store := range []string{databaseFile, "pruned.db"} {
		run.program.mustRun(ctx, t, "check", "--store", "sqlite:"+store)
	}
	run.program.mustRun(ctx, t, "restore", "--store", "sqlite:restored.db", "pruned.db")
	run.program.flags = append(run.program.flags, "--store", "sqlite:restored.db")
	if first := firstOfLog(ctx, t, run.program.start(t)); first != prunedRows+1 {
		t.Errorf("oldest row of the restored store = %d, want %d", first, prunedRows+1)
	}
}

// firstOfLog reads the log from the oldest row and checks that it has no gap.
func firstOfLog(ctx context.Context, t *testing.T, p *process) (first int64) {
	t.Helper()
	stream, err := p.client(t, 1<<20).StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true, Progress: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }() // it has ended
	last := int64(0)
	for stream.Receive() {
		switch row := stream.Msg(); {
		case row.GetAction() == "" && first == 0:
			first = row.GetActivityId() + 1
		case row.GetAction() == "":
		case first == 0:
			first = row.GetActivityId()
		case row.GetActivityId() != last+1:
			t.Errorf("log position %d after %d", row.GetActivityId(), last)
		}
		last = stream.Msg().GetActivityId()
	}
	if failure := new(connect.Error); errors.As(stream.Err(), &failure) && reasonOf(failure) != string(user.PositionOutOfRange) { // not overtaken
		t.Fatal(failure)
	}
	return first
}
