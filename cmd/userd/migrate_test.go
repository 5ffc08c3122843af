package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// A client goes on as if nothing had happened while the store of its server is moved to PostgreSQL and back, by commands that
// are killed and repeated: its stream has no gap, its mirror is right, and a repeated request has the same result.
func TestMigrate(t *testing.T) {
	t.Parallel()
	users := 6_000
	if *long {
		users = 25_000
	}
	ctx := within(t, 6*time.Minute)
	dir := t.TempDir()
	stores := []string{
		"sqlite:" + filepath.Join(dir, "userservice.db"), pgtest.Database(t), "sqlite:" + filepath.Join(dir, "back.db"),
	}
	run := program{dir: dir}.start(t)
	importUsers(t, run.client(t, 1<<20), users)
	var current atomic.Pointer[process]
	current.Store(run)
	c, err := client.New([]string{"http://127.0.0.1:1"}, client.WithDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, current.Load().addr)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	request := &userv1.CreateUserRequest{Username: "ann", Email: "ann@example.org", RequestId: uuid.NewString()}
	ann, err := c.CreateUser(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	mirror := c.Mirror(ctx, client.MirrorOptions{})
	defer mirror.Close()
	rows := make(chan int64, 1<<14)
	go func() {
		defer close(rows)
		for row, err := range c.Activities(ctx, &userv1.StreamUserActivitiesRequest{}) {
			if err != nil {
				return
			}
			rows <- row.GetActivityId()
		}
	}()
	last, epoch, interrupted := int64(0), epochOf(ctx, t, run), 0
	receive := func(upTo int64) {
		t.Helper()
		for last < upTo {
			position, open := <-rows
			if !open || position != last+1 {
				t.Fatalf("the stream has position %d after %d; it is open: %t", position, last, open)
			}
			last = position
		}
	}
	receive(ann.GetLastActivityId())
	for i, to := range stores[1:] {
		if out, err := migrate(ctx, t, stores[i], to); err == nil || !strings.Contains(out, "database is locked") && !strings.Contains(out, "in use by a node") {
			t.Fatalf("migrate while the server runs: %v\n%s", err, out)
		}
		if i == 0 {
			run.kill() // it leaves a write-ahead log
		} else {
			run.terminate(t)
		}
		kills := migrateWithKills(ctx, t, stores[i], to)
		interrupted += kills
		run = program{dir: t.TempDir(), flags: []string{"--store", to}}.start(t)
		current.Store(run)
		direct := run.client(t, 1<<20) // c may not know yet that the node is back
		again, err := direct.CreateUser(ctx, request)
		if err != nil || !proto.Equal(again.GetUser(), ann) {
			t.Fatalf("the repeated request = %v, %v, want %v", again, err, ann)
		}
		name := fmt.Sprint("user ", i)
		created, err := direct.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: fmt.Sprintf("user%d@example.org", i)})
		next := created.GetUser()
		if err != nil || next.GetLastActivityId() != last+1 {
			t.Fatalf("the next position = %d, %v, want %d", next.GetLastActivityId(), err, last+1)
		}
		receive(last + 1)
		if err := mirror.WaitFor(ctx, last); err != nil {
			t.Fatal(err)
		}
		if copied, ok := mirror.Get(next.GetUserId()); !ok || copied.GetUsername() != name || mirror.Len() != users+2+i {
			t.Errorf("the mirror has %d users, among them %v, want %d and %s", mirror.Len(), copied, users+2+i, name)
		}
		if got := epochOf(ctx, t, run); got != epoch {
			t.Errorf("epoch = %s, want %s", got, epoch)
		}
		t.Logf("moved to %s with %d kills of an incomplete move", to, kills)
	}
	if interrupted == 0 { // on a loaded machine, all kills of one move may come before it begins
		t.Error("no kill interrupted a move")
	}
}

// migrateWithKills repeats the command until it succeeds, and kills it before. It returns how often the target was
// incomplete then.
func migrateWithKills(ctx context.Context, t *testing.T, from, to string) (incomplete int) {
	t.Helper()
	for timeout := 100 * time.Millisecond; ; timeout += timeout / 4 {
		limited, cancel := context.WithTimeout(ctx, timeout) // its end kills the process
		out, err := migrate(limited, t, from, to)
		killed := limited.Err() != nil
		cancel()
		if err == nil || strings.Contains(out, "not empty") { // it was killed when the move was complete
			return incomplete
		}
		if !killed {
			t.Fatalf("migrate: %v\n%s", err, out)
		}
		check, err := exec.CommandContext(ctx, build(t, ""), "check", "--store", to).CombinedOutput()
		if strings.Contains(string(check), "incomplete") {
			incomplete++
		} else if err == nil && !strings.Contains(string(check), "intact") {
			t.Fatalf("check of the target: %s", check)
		}
	}
}

// migrate runs userd migrate.
func migrate(ctx context.Context, t *testing.T, from, to string) (out string, err error) {
	t.Helper()
	printed, err := exec.CommandContext(ctx, build(t, ""), "migrate", "--from", from, "--to", to).CombinedOutput()
	return string(printed), err
}

// Commands that are not for a store say what to do instead.
func TestStoreCommandsRefused(t *testing.T) {
	t.Parallel()
	const database = "postgres://user:secret@localhost/users"
	for want, args := range map[string][]string{
		"pg_dump":                         {"backup", "copy.db", "--store", database},
		"UPDATE meta SET epoch = ''":      {"restore", "copy.db", "--store", database},
		"--to: must differ from --from":   {"migrate", "--from", database, "--to", database},
		"expected sqlite:PATH":            {"migrate", "--from", "x", "--to", database},
		"store missing.db does not exist": {"migrate", "--from", "sqlite:missing.db", "--to", database},
	} {
		cmd := exec.CommandContext(t.Context(), build(t, ""), args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "secret") {
			t.Errorf("userd %s: %v\n%s\nwant an error with %q, without the password", strings.Join(args, " "), err, out, want)
		}
	}
}

// A store is not moved to itself by another name.
func TestMigrateToItself(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
	p := program{dir: t.TempDir()}
	p.start(t).terminate(t)
	if err := os.Symlink(databaseFile, filepath.Join(p.dir, "link.db")); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"./" + databaseFile, "link.db"} {
		out, err := p.run(ctx, t, "migrate", "--from", "sqlite:"+databaseFile, "--to", "sqlite:"+to)
		if err == nil || !strings.Contains(out, "must differ from --from") {
			t.Errorf("migrate to %s: %v, printed %q, want an error that it must differ", to, err, out)
		}
	}
}
