package main_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/store/faulty"
)

// Concurrent reads and writes of a user are linearizable, although the nodes are killed meanwhile. The same check finds a
// read from a cache that is not invalidated.
func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	node := func(t *testing.T) []program { return []program{{dir: t.TempDir()}} }
	for name, test := range map[string]struct {
		nodes func(*testing.T) []program
		want  porcupine.CheckResult
	}{
		"a node with SQLite":        {node, porcupine.Ok},
		"two nodes with PostgreSQL": {newPostgresNodes, porcupine.Ok},
		"planted: stale reads": {func(t *testing.T) []program {
			return []program{{dir: t.TempDir(), fault: faulty.StaleRead}}
		}, porcupine.Illegal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runHistory(t, test.nodes(t))
			result := porcupine.CheckOperationsTimeout(userModel, h.operations, time.Minute)
			if result != test.want {
				t.Errorf("history of %d operations = %s, want %s", len(h.operations), result, test.want)
			}
			t.Logf("%d operations, %d with unknown outcome: %s", len(h.operations), h.unknown, result)
		})
	}
}

const (
	historyUsers   = 4
	historyClients = 3 // of a user
	historyCalls   = 120
	historyKills   = 4
)

// history records the calls of clients to nodes that are killed.
type history struct {
	programs []program
	start    time.Time
	done     atomic.Int64
	emails   atomic.Int64

	mu         sync.Mutex
	nodes      []*process
	clients    []userv1connect.UserServiceClient
	restarted  chan struct{} // closed at the next restart
	operations []porcupine.Operation
	unknown    int
}

func runHistory(t *testing.T, programs []program) *history {
	t.Helper()
	ctx := within(t, hangTimeout)
	h := &history{programs: programs, start: time.Now(), restarted: make(chan struct{})}
	for _, p := range programs {
		node := p.start(t)
		h.nodes, h.clients = append(h.nodes, node), append(h.clients, node.client(t, 1<<20))
	}
	var clients sync.WaitGroup
	for u := range historyUsers {
		s := &subject{history: h, number: u, created: make(chan struct{})}
		for range historyClients {
			clients.Go(func() {
				for range historyCalls {
					if err := s.call(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	finished := make(chan struct{})
	go func() { clients.Wait(); close(finished) }()
	h.kill(ctx, t, finished)
	<-finished
	return h
}

// kill kills the nodes in turn while the clients call them, and starts them again.
func (h *history) kill(ctx context.Context, t *testing.T, finished <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for kill := range historyKills {
		for h.done.Load() < int64((kill+1)*historyUsers*historyClients*historyCalls/(historyKills+1)) {
			select {
			case <-finished:
				return
			case <-ctx.Done():
				t.Error(context.Cause(ctx))
				return
			case <-tick.C:
			}
		}
		i := kill % len(h.programs)
		h.nodes[i].kill()
		node := h.programs[i].start(t)
		client := node.client(t, 1<<20)
		h.mu.Lock()
		h.nodes[i], h.clients[i] = node, client
		close(h.restarted)
		h.restarted = make(chan struct{})
		h.mu.Unlock()
	}
}

// subject is a user that clients read and write.
type subject struct {
	*history

	number  int
	created chan struct{} // closed when id is known

	mu  sync.Mutex
	id  int64
	own string // etag that a client has seen last
	at  int64  // its version
}

// call makes a random call and records it.
func (s *subject) call(ctx context.Context) error {
	kinds := []string{"get", "get", "get", "update", "update", "status", "delete", "undelete"}
	c := userCall{user: s.number, kind: kinds[rand.IntN(len(kinds))]}
	c.email = fmt.Sprintf("mail%d@example.org", s.emails.Add(1))
	c.status = []userv1.UserStatus{userv1.UserStatus_USER_STATUS_ACTIVE, userv1.UserStatus_USER_STATUS_INACTIVE}[rand.IntN(2)]
	s.mu.Lock()
	id, etag := s.id, ""
	if c.kind == "update" && rand.IntN(2) == 0 {
		etag, c.version = s.own, s.at
	}
	s.mu.Unlock()
	if id == 0 {
		c.kind = "create"
	}
	s.history.mu.Lock()
	client, restarted := s.clients[rand.IntN(len(s.clients))], s.restarted
	s.history.mu.Unlock()
	called := time.Since(s.start)
	u, err := s.send(ctx, client, c, id, etag)
	op := porcupine.Operation{Input: c, Call: int64(called), Return: int64(time.Since(s.start))}
	result := userResult{}
	switch {
	case err == nil:
		result.state = userState{exists: true, version: u.GetVersion(), email: u.GetEmail(), status: u.GetStatus(), deleted: u.GetDeletedAt() != nil}
		s.saw(u)
	case broken(err):
		result.unknown, op.Return = true, math.MaxInt64 // a read, or it may take effect at any later time
	default:
		if result.reason = infoOf(err).GetReason(); result.reason == "" {
			return fmt.Errorf("%s: %w", c.kind, err)
		}
	}
	op.Output = result
	s.done.Add(1)
	s.record(op)
	if result.unknown {
		select { // calls to a node that is down are of no use
		case <-restarted:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	if id == 0 && result.reason != "" { // another client has created the user
		select {
		case <-s.created:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// record adds an operation.
func (h *history) record(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, op)
	if op.Return == math.MaxInt64 {
		h.unknown++
	}
}

// saw records the id of the user and its version.
func (s *subject) saw(u *userv1.User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == 0 {
		s.id = u.GetUserId()
		close(s.created)
	}
	if u.GetEtag() != "" {
		s.own, s.at = u.GetEtag(), u.GetVersion()
	}
}

// send sends a call. A create is repeated with its request id until its outcome is known.
func (s *subject) send(ctx context.Context, client userv1connect.UserServiceClient, c userCall, id int64, etag string) (*userv1.User, error) {
	switch c.kind {
	case "create":
		req := &userv1.CreateUserRequest{Username: fmt.Sprint("user", s.number), Email: c.email, RequestId: uuid.NewString()}
		for {
			resp, err := client.CreateUser(ctx, req)
			if err == nil || !broken(err) || ctx.Err() != nil {
				return resp.GetUser(), err
			}
			s.history.mu.Lock()
			client = s.clients[rand.IntN(len(s.clients))]
			s.history.mu.Unlock()
		}
	case "get":
		resp, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
		return resp.GetUser(), err
	case "update":
		resp, err := client.UpdateUser(ctx, &userv1.UpdateUserRequest{
			UserId: id, Etag: etag, User: &userv1.User{Email: c.email}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"email"}},
		})
		return resp.GetUser(), err
	case "status":
		resp, err := client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: c.status})
		return &userv1.User{UserId: id, Status: resp.GetStatusUpdate().GetStatus()}, err
	case "delete":
		resp, err := client.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: id})
		return resp.GetUser(), err
	default:
		resp, err := client.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: id})
		return resp.GetUser(), err
	}
}
