package service_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	systemclock "github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
	"github.com/yourorg/userservice/service/validate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a service over its own store and a fake clock.
type rig struct {
	*service.Service

	store user.Store
	feed  *feed.Feed
	clock *clock

	memory *budget.Reservation // of the requests of client; nil: none
}

var started = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newRig returns a rig. change may modify the options.
func newRig(t testing.TB, change ...func(*service.Options)) *rig {
	t.Helper()
	c := &clock{now: started}
	store, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: filepath.Join(t.TempDir(), "users.db"), Clock: systemclock.FromWallClock(c.Now), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return newRigOver(t, store, c, change...)
}

func newRigOver(t testing.TB, store user.Store, c *clock, change ...func(*service.Options)) *rig {
	t.Helper()
	f, err := feed.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigOverFeed(t, store, f, change...)
	r.clock = c
	return r
}

func newRigOverFeed(t testing.TB, store user.Store, f *feed.Feed, change ...func(*service.Options)) *rig {
	t.Helper()
	opts := service.Options{Logger: slog.New(slog.DiscardHandler), Validator: newValidator(t)}
	for _, set := range change {
		set(&opts)
	}
	served, err := service.New(store, f, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{Service: served, store: store, feed: f}
}

var compileRules = sync.OnceValues(func() (*validate.Validator, error) {
	return validate.New(userv1.File_user_v1_user_service_proto)
})

func newValidator(t testing.TB) *validate.Validator {
	t.Helper()
	v, err := compileRules()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// client serves the rig over HTTP/2.
func (r *rig) client(t testing.TB) userv1connect.UserServiceClient {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(r.Service, connect.WithInterceptors(
		intercept.NewErrors(slog.New(slog.DiscardHandler)),
	)))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx := budget.NewContext(req.Context(), r.memory)
		mux.ServeHTTP(w, req.WithContext(auth.WithCaller(ctx, auth.FullAccess())))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return userv1connect.NewUserServiceClient(server.Client(), server.URL, connect.WithGRPC())
}

// create creates a user.
func (r *rig) create(t testing.TB, username string, change ...func(*userv1.CreateUserRequest)) *userv1.User {
	t.Helper()
	req := &userv1.CreateUserRequest{Username: username, Email: username + "@example.org"}
	for _, set := range change {
		set(req)
	}
	res, err := r.CreateUser(t.Context(), req)
	if err != nil {
		t.Fatalf("create %s: %v", username, err)
	}
	return res.GetUser()
}

// as returns a context with the subject as its caller.
func as(ctx context.Context, subject string) context.Context {
	return auth.WithCaller(ctx, auth.Caller{Subject: subject})
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// wantInvalid checks for an INVALID_FIELD error on exactly the fields, in order.
func wantInvalid(t testing.TB, err error, fields ...string) user.Error {
	t.Helper()
	e, ok := user.AsError(err)
	if !ok || e.Reason != user.InvalidField {
		t.Fatalf("error = %v, want INVALID_FIELD", err)
	}
	if len(e.Violations) != len(fields) {
		t.Fatalf("violations = %+v, want fields %q", e.Violations, fields)
	}
	for i, v := range e.Violations {
		if v.Field != fields[i] || v.Message == "" {
			t.Errorf("violations[%d] = %+v, want field %s", i, v, fields[i])
		}
	}
	return *e
}

func wantReason(t testing.TB, err error, reason user.Reason) user.Error {
	t.Helper()
	e, ok := user.AsError(err)
	if !ok || e.Reason != reason {
		t.Fatalf("error = %v, want %s", err, reason)
	}
	return *e
}
