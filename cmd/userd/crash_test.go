package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// crashRun repeatedly kills the server under load. After each restart it checks that all
// acknowledged writes exist and that the log has no gap.
type crashRun struct {
	program program
	kills   int
	callers int
	random  *rand.Rand
	weight  map[string]string // large metadata, which makes commits slow

	mu    sync.Mutex
	acked []int64 // acknowledged users not yet checked
	next  int     // number of the next user

	position int64 // up to which the log was checked
	created  int   // acknowledged creates in total
}

func TestKillLosesNoAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	run := crashRun{program: program{dir: t.TempDir()}, kills: longer(10), callers: 32, random: rand.New(rand.NewPCG(seed, 0))}
	if err := run.run(t); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	t.Logf("%d kills, %d acknowledged creates, %d rows", run.kills, run.created, run.position)
}

// The crash test must detect a server that responds before the commit.
func TestCrashTestDetectsInjectedFault(t *testing.T) {
	t.Parallel()
	run := crashRun{
		program: program{dir: t.TempDir(), fault: "ack-before-commit"}, kills: 150, callers: 32,
		random: rand.New(rand.NewPCG(1, 1)),
	}
	err := run.run(t)
	if err == nil {
		t.Fatal("responses before the commit were not detected")
	}
	t.Logf("found: %v", err)
}

func (r *crashRun) run(t testing.TB) error {
	ctx := within(t, time.Duration(longer(5))*time.Minute)
	r.weight = make(map[string]string)
	for i := range user.MaxMetadata {
		r.weight[fmt.Sprint(i)] = strings.Repeat("x", user.MaxMetadataValue)
	}
	for i := range r.kills {
		p := r.program.start(t)
		if err := r.check(ctx, t, p); err != nil {
			return fmt.Errorf("after kill %d: %w", i, err)
		}
		if err := r.loadAndKill(ctx, t, p, r.random.IntN(300)); err != nil {
			return err
		}
	}
	return r.check(ctx, t, r.program.start(t))
}

// loadAndKill creates users concurrently and kills the server after acks acknowledgments.
func (r *crashRun) loadAndKill(ctx context.Context, t testing.TB, p *process, acks int) error {
	var once sync.Once
	var load errgroup.Group
	for range r.callers {
		load.Go(func() error {
			client := p.client(t, 1<<20)
			for {
				id, err := r.create(ctx, client)
				if err != nil {
					if !broken(err) {
						return fmt.Errorf("create: %w", err)
					}
					return nil // the kill
				}
				r.mu.Lock()
				r.acked = append(r.acked, id)
				enough := len(r.acked) >= acks
				r.mu.Unlock()
				if enough { // kill directly after the last acknowledgment
					once.Do(p.kill)
				}
			}
		})
	}
	return load.Wait()
}

func (r *crashRun) create(ctx context.Context, client userv1connect.UserServiceClient) (int64, error) {
	r.mu.Lock()
	r.next++
	name := fmt.Sprintf("crash-%06d", r.next)
	r.mu.Unlock()
	resp, err := client.CreateUser(ctx, &userv1.CreateUserRequest{
		Username: name, Email: name + "@example.org", Metadata: r.weight,
	})
	return resp.GetUser().GetUserId(), err
}

// check checks all acknowledged users and the new log rows.
func (r *crashRun) check(ctx context.Context, t testing.TB, p *process) error {
	client := p.client(t, 1<<20)
	for at := 0; at < len(r.acked); at += 1000 {
		ids := r.acked[at:min(at+1000, len(r.acked))]
		resp, err := client.BatchGetUsers(ctx, &userv1.BatchGetUsersRequest{UserIds: ids})
		if err != nil {
			return err
		}
		if n := len(resp.GetMissingUserIds()); n > 0 {
			return fmt.Errorf("%d of %d acknowledged users are lost", n, len(ids))
		}
	}
	r.created += len(r.acked)
	r.acked = r.acked[:0]
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{
		AfterActivityId: r.position, ReplayOnly: true,
	})
	if err != nil {
		return err
	}
	for stream.Receive() {
		if got := stream.Msg().GetActivityId(); got != r.position+1 {
			return fmt.Errorf("log position %d after %d", got, r.position)
		}
		r.position++
	}
	return stream.Err()
}
