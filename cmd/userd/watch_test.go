package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// watchRun changes, deletes and purges users at random while mirrors stall, disconnect and resume and the
// server restarts. At each synced message and at the end, the copy of each mirror must be the matching
// users at that position, as computed from the log.
type watchRun struct {
	program  program
	start    int   // number of users at the start
	changes  int64 // minimum number of changes to write
	restarts int
	writers  int
	seed     uint64

	restarted

	users idList
}

// idList are the ids of created users.
type idList struct {
	mu  sync.Mutex
	ids []int64
}

func (l *idList) add(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = append(l.ids, id)
}

func (l *idList) any(random *rand.Rand) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[random.IntN(len(l.ids))]
}

// endUser is the prefix of the names of the last users created. Every filter of the test matches them. There
// are several, because a planted fault may lose one.
const (
	endUser  = "a-end"
	endUsers = 8
)

func TestMirrorsEqualTheStore(t *testing.T) {
	t.Parallel()
	run := watchRun{
		program: program{dir: t.TempDir()}, start: 1000, changes: int64(longer(2500)),
		restarts: 3, writers: 4, seed: uint64(time.Now().UnixNano()),
	}
	t.Logf("seed %d", run.seed)
	if err := run.run(t); err != nil {
		t.Fatalf("seed %d: %v\n%s", run.seed, err, run.process().output)
	}
}

func TestMirrorTestDetectsInjectedFaults(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"lose-change", "hide-change", "lose-purges", "stale-change"} {
		t.Run(fault, func(t *testing.T) {
			const tries = 6
			for seed := range uint64(tries) {
				run := watchRun{
					program: program{dir: t.TempDir(), fault: fault}, start: 200, changes: 800,
					restarts: 1, writers: 2, seed: seed,
				}
				err := run.run(t)
				if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
					t.Fatal(err)
				}
				if err != nil {
					t.Logf("found in run %d: %v", seed+1, err)
					return
				}
			}
			t.Fatalf("injected fault was not detected in %d runs", tries)
		})
	}
}

func (r *watchRun) run(t testing.TB) error {
	ctx := within(t, time.Duration(longer(5))*time.Minute)
	r.begin(r.program.start(t))
	if err := r.create(ctx, r.process().client(t, 1<<20), r.start, rand.New(rand.NewPCG(r.seed, 1))); err != nil {
		return err
	}
	all, working := errgroup.WithContext(ctx)
	mirrors := newMirrors(r)
	for i, m := range mirrors {
		all.Go(func() error {
			if err := m.read(working, t); err != nil {
				return fmt.Errorf("mirror %d (filter %q) at position %d: %w", i, m.filter, m.position, err)
			}
			return nil
		})
	}
	all.Go(func() error { return r.writeAll(working, t) })
	if err := all.Wait(); err != nil {
		return err
	}
	log, err := readDirectory(ctx, r.process().client(t, 1<<20))
	if err != nil {
		return err
	}
	for i, m := range mirrors {
		if err := m.compare(log); err != nil {
			return fmt.Errorf("mirror %d (filter %q, deleted %t): %w", i, m.filter, m.deleted, err)
		}
		t.Logf("mirror %d (filter %q, deleted %t): %d streams, %d synced, %d users", i, m.filter, m.deleted, m.streams, len(m.synced), len(m.copy))
	}
	return nil
}

// writeAll runs the writers, restarts the server concurrently, and creates the last users.
func (r *watchRun) writeAll(ctx context.Context, t testing.TB) error {
	writers, writing := errgroup.WithContext(ctx)
	for i := range r.writers {
		writers.Go(func() error { return r.write(writing, t, rand.New(rand.NewPCG(r.seed, uint64(2+i)))) })
	}
	writers.Go(func() error { return r.restartAll(writing, t, r.program, r.restarts, r.changes) })
	if err := writers.Wait(); err != nil {
		return err
	}
	r.finished.Store(true)
	r.signal()
	client := r.process().client(t, 1<<20)
	for i := range endUsers {
		name := fmt.Sprint(endUser, i)
		if _, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"}); err != nil {
			return err
		}
	}
	return nil
}

func (r *watchRun) write(ctx context.Context, t testing.TB, random *rand.Rand) error {
	p := r.process()
	client := p.client(t, 1<<20)
	for r.written.Load() < r.changes {
		err := r.change(ctx, client, random)
		if err != nil && !broken(err) {
			return fmt.Errorf("write: %w", err)
		}
		if err != nil {
			if p, err = r.after(ctx, p); err != nil {
				return err
			}
			client = p.client(t, 1<<20)
			continue
		}
		r.written.Add(1)
		r.signal()
	}
	return nil
}

// change makes a random call. The user may have been deleted or purged.
func (r *watchRun) change(ctx context.Context, client userv1connect.UserServiceClient, random *rand.Rand) error {
	id := r.users.any(random)
	var err error
	switch random.IntN(12) {
	case 0:
		return r.create(ctx, client, 1+random.IntN(20), random)
	case 1:
		_, err = client.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id})
		if err == nil && random.IntN(2) == 0 {
			_, err = client.PurgeUser(ctx, &userv1.PurgeUserRequest{UserId: id})
		}
	case 2:
		err = record(ctx, client, id, "test.noted", "x")
	case 3, 4, 5:
		_, err = client.UpdateUser(ctx, &userv1.UpdateUserRequest{UserId: id, User: &userv1.User{Username: randomName(random)}})
	default:
		_, err = client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus(1 + random.IntN(3))})
	}
	switch connect.CodeOf(err) { //nolint:exhaustive // others are bugs
	case connect.CodeFailedPrecondition, connect.CodeNotFound:
		return nil // deleted or purged
	}
	return err
}

func (r *watchRun) create(ctx context.Context, client userv1connect.UserServiceClient, n int, random *rand.Rand) error {
	for n > 0 {
		req := &userv1.CreateUsersRequest{}
		for range min(n, 500) {
			name := randomName(random)
			req.Requests = append(req.Requests, &userv1.CreateUserRequest{Username: name, Email: name + "@example.org"})
		}
		n -= len(req.GetRequests())
		res, err := client.CreateUsers(ctx, req)
		if err != nil {
			return err
		}
		for _, result := range res.GetResults() {
			r.users.add(result.GetUser().GetUserId())
		}
	}
	return nil
}

// randomName returns a name that starts with a or b.
func randomName(random *rand.Rand) string {
	return fmt.Sprintf("%c-%016x", "ab"[random.IntN(2)], random.Uint64())
}

// A change that all mirrors read at once ends none of them for lack of memory.
func TestManyMirrorsReadOneChange(t *testing.T) {
	const mirrors = 500
	p := program{dir: t.TempDir(), flags: []string{"--memory-limit", "256MiB"}}.start(t)
	client := p.client(t, 1<<20)
	created, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, hangTimeout)
	received := make(chan error, mirrors)
	for range mirrors {
		if err := mirrorChanges(ctx, client, received); err != nil {
			t.Fatal(err)
		}
	}
	id := created.GetUser().GetUserId()
	if _, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: userv1.UserStatus_USER_STATUS_INACTIVE}); err != nil {
		t.Fatal(err)
	}
	for range mirrors {
		select {
		case err := <-received:
			if err != nil {
				t.Fatal(err)
			}
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}
