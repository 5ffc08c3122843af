package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// stuckStore never finds a user.
type stuckStore struct{ user.Store }

func (stuckStore) Get(ctx context.Context, _ int64) (*user.User, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// --max-call-duration ends a call over all protocols, even if the deadline of the client is later.
func TestMaxCallDuration(t *testing.T) {
	synctest.Test(t, testMaxCallDuration)
}

func testMaxCallDuration(t *testing.T) {
	s := servertest.Start(t, servertest.Parallel(), servertest.Memory(),
		servertest.Store(func(store user.Store) user.Store { return stuckStore{store} }))
	for _, p := range servertest.Protocols() {
		for name, deadline := range map[string]time.Duration{"no deadline": 0, "a later deadline": time.Hour} {
			ctx, cancel := context.WithCancel(t.Context())
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(t.Context(), deadline)
			}
			late := time.AfterFunc(5*time.Minute, cancel) // ends a failing test
			began := time.Now()
			_, err := s.Client(p).GetUser(ctx, &userv1.GetUserRequest{UserId: 1})
			late.Stop()
			cancel()
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded || err.Error() != "deadline_exceeded: deadline exceeded" {
				t.Errorf("%s, %s: GetUser = %v, want DEADLINE_EXCEEDED", p.Name, name, err)
			}
			if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
				t.Errorf("%s, %s: GetUser took %v, want a minute", p.Name, name, took)
			}
		}
	}
	status, _, body := ask(t, s, http.MethodGet, "/api/v1/users/1", nil, "")
	if status != http.StatusGatewayTimeout || !strings.Contains(body, "deadline exceeded") {
		t.Errorf("REST: got %d %s", status, body)
	}
}
