package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// frameStore records the number of stack frames of the last call.
type frameStore struct {
	user.Store

	frames atomic.Int64
}

func (s *frameStore) record() {
	var frames [256]uintptr
	s.frames.Store(int64(runtime.Callers(2, frames[:])))
}

func (s *frameStore) Get(ctx context.Context, id int64) (*user.User, error) {
	s.record()
	return s.Store.Get(ctx, id)
}

func (s *frameStore) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	s.record()
	return s.Store.Submit(ctx, batch)
}

// BenchmarkUnary measures a call of an authenticated caller on the complete server. The allocations are
// those of client and server; frames is the depth of the stack at the store.
func BenchmarkUnary(b *testing.B) {
	store := &frameStore{}
	g := startGuarded(b, servertest.Store(func(inner user.Store) user.Store {
		store.Store = inner
		return store
	}))
	token := g.token(b, "ada", time.Hour, auth.UsersWrite, auth.UsersRead)
	client := g.grpc(token)
	response, err := client.CreateUser(b.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		b.Fatal(err)
	}
	id := response.GetUser().GetUserId()
	created := 0
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"gRPC GetUser", func() error {
			_, err := client.GetUser(b.Context(), &userv1.GetUserRequest{UserId: id})
			return err
		}},
		{"gRPC CreateUser", func() error {
			created++
			name := fmt.Sprint("user", created)
			_, err := client.CreateUser(b.Context(), &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"})
			return err
		}},
		{"REST GetUser", func() error {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, fmt.Sprintf("%s/api/v1/users/%d", g.URL(), id), http.NoBody)
			if err != nil {
				return err
			}
			response, err := g.as(true, token).Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }() // read only
			_, err = io.Copy(io.Discard, response.Body)
			return err
		}},
	} {
		b.Run(call.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := call.do(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(store.frames.Load()), "frames")
		})
	}
}
