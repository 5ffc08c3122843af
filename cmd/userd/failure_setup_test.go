package main_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// The tests in failure_*_test.go inject failures of the disk, the database file and the code.
// Writes must then fail with a reason, reads succeed, health report the failure and recover
// where possible, and acknowledged writes survive.

// Names of the health service.
const (
	readsName  = "user.v1.UserService"
	writesName = "user.v1.UserService.Write"
)

// failureTest is a running program for failure injection, with the writes it has acknowledged.
type failureTest struct {
	program program
	process *process
	client  userv1connect.UserServiceClient
	health  *grpchealth.Client
	admin   string // address of the admin listener

	mu      sync.Mutex
	next    int
	acked   []int64  // acknowledged users
	refused []string // names of users that were certainly not created
}

// startFailureTest starts the program in dir and creates some users.
func startFailureTest(ctx context.Context, t *testing.T, dir string) *failureTest {
	t.Helper()
	s := &failureTest{admin: adminAddress()}
	s.program = program{dir: dir, flags: []string{"--admin-listen", s.admin}}
	s.restart(t)
	for range 20 {
		s.mustCreate(ctx, t)
	}
	return s
}

// adminAddress returns a random address in 127.0.0.0/8, so that tests do not collide.
func adminAddress() string {
	var host [3]byte
	_, _ = rand.Read(host[:]) // never fails
	return fmt.Sprintf("127.%d.%d.%d:2112", 1+host[0]%254, host[1], 1+host[2]%254)
}

func (s *failureTest) restart(t *testing.T) {
	t.Helper()
	s.process = s.program.start(t)
	s.client = s.process.client(t, 1<<20)
	http2, closeIdle := newHTTP2(1 << 20)
	t.Cleanup(closeIdle)
	s.health = grpchealth.NewClient(http2, s.process.url(), connect.WithGRPC())
}

// create creates a user and records the result.
func (s *failureTest) create(ctx context.Context) error {
	s.mu.Lock()
	s.next++
	name := fmt.Sprintf("failure-%06d", s.next)
	s.mu.Unlock()
	resp, err := s.client.CreateUser(ctx, &userv1.CreateUserRequest{
		Username: name, Email: name + "@example.org", Metadata: map[string]string{"padding": strings.Repeat("x", 1000)},
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.acked = append(s.acked, resp.GetUser().GetUserId())
	case infoOf(err) != nil && !strings.Contains(err.Error(), unknownText):
		s.refused = append(s.refused, name)
	}
	return err
}

// unknownText is a part of the message for a write with an unknown outcome.
const unknownText = "write is unknown"

func (s *failureTest) mustCreate(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := s.create(ctx); err != nil {
		t.Fatalf("create user: %v\n%s", err, s.process.output)
	}
}

// createUntilError creates users concurrently until each goroutine gets an error, and
// returns the errors.
func (s *failureTest) createUntilError(ctx context.Context) []error {
	const callers = 8
	refusals := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for refusals[i] == nil {
				refusals[i] = s.create(ctx)
			}
		})
	}
	all.Wait()
	return refusals
}

// mustRead reads all acknowledged users and the log, which must contain them and none of the
// refused ones.
func (s *failureTest) mustRead(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range s.acked {
		if _, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
			t.Fatalf("get user %d: %v\n%s", id, err, s.process.output)
		}
	}
	created, names, err := createdRows(ctx, s.client)
	if err != nil {
		t.Fatalf("read log: %v", err)
	}
	for _, name := range s.refused {
		if names[name] {
			t.Fatalf("create %s failed but took effect", name)
		}
	}
	for _, id := range s.acked {
		if created[id] != 1 {
			t.Fatalf("log has %d rows of the creation of user %d, want 1", created[id], id)
		}
	}
}

// createdRows reads the whole log, which must have no gap. It returns the number of
// user.created rows by user and the names of created users.
func createdRows(ctx context.Context, client userv1connect.UserServiceClient) (created map[int64]int, names map[string]bool, err error) {
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	if err != nil {
		return nil, nil, err
	}
	created, names = make(map[int64]int), make(map[string]bool)
	last := int64(0)
	for stream.Receive() {
		row := stream.Msg()
		if row.GetActivityId() != last+1 {
			return nil, nil, fmt.Errorf("log position %d after %d", row.GetActivityId(), last)
		}
		last = row.GetActivityId()
		if row.GetAction() == "user.created" {
			created[row.GetUserId()]++
			names[row.GetDetails()["new.username"]] = true
		}
	}
	return created, names, stream.Err()
}

// mustSurvive kills the program, restarts it without failures, and checks all acknowledged
// writes.
func (s *failureTest) mustSurvive(ctx context.Context, t *testing.T) {
	t.Helper()
	s.process.kill()
	s.restart(t)
	s.mustRead(ctx, t)
	s.mustCreate(ctx, t)
}

// healthWatch is a Watch stream of a health service name.
type healthWatch struct {
	name   string
	events <-chan grpchealth.WatchEvent
	of     *failureTest
}

func (s *failureTest) watch(ctx context.Context, name string) *healthWatch {
	return &healthWatch{name, s.health.Watch(ctx, &grpchealth.CheckRequest{Service: name}), s}
}

// await waits for a status on the watch, and checks that Check returns the same.
func (w *healthWatch) await(ctx context.Context, t *testing.T, want grpchealth.Status) {
	t.Helper()
	for event := range w.events {
		if event.Err != nil {
			t.Fatalf("health watch of %s failed: %v", w.name, event.Err)
		}
		if event.Response.Status == want {
			w.of.mustCheck(ctx, t, w.name, want)
			return
		}
	}
	t.Fatalf("health watch of %s ended before status %v\n%s", w.name, want, w.of.process.output)
}

func (s *failureTest) mustCheck(ctx context.Context, t *testing.T, name string, want grpchealth.Status) {
	t.Helper()
	got, err := s.health.Check(ctx, &grpchealth.CheckRequest{Service: name})
	if err != nil || got.Status != want {
		t.Fatalf("health check of %q = %+v, %v, want %v\n%s", name, got, err, want, s.process.output)
	}
}

// awaitNotServing waits until writes are not serving. Reads must be serving, and /readyz must
// contain the reason.
func (s *failureTest) awaitNotServing(ctx context.Context, t *testing.T, writes *healthWatch, why string) {
	t.Helper()
	writes.await(ctx, t, grpchealth.StatusNotServing)
	s.mustCheck(ctx, t, readsName, grpchealth.StatusServing)
	s.mustCheck(ctx, t, "", grpchealth.StatusServing)
	status, text := s.readyz(ctx, t)
	if status != http.StatusOK || !strings.Contains(text, "writes: ") || !strings.Contains(text, why) {
		t.Fatalf("/readyz = %d, %q, want a write failure with %q", status, text, why)
	}
}

// awaitServing waits until writes are serving.
func (s *failureTest) awaitServing(ctx context.Context, t *testing.T, writes *healthWatch) {
	t.Helper()
	writes.await(ctx, t, grpchealth.StatusServing)
	if status, text := s.readyz(ctx, t); status != http.StatusOK || text != "ready\n" {
		t.Fatalf("/readyz = %d, %q, want ready", status, text)
	}
}

func (s *failureTest) readyz(ctx context.Context, t *testing.T) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// mustBe fails the test unless err is an error of the service with the code and reason.
func mustBe(t *testing.T, err error, code connect.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	info := infoOf(err)
	if connect.CodeOf(err) != code || info.GetReason() != reason {
		t.Fatalf("error = %v (%s), want %v (%s)", err, info.GetReason(), code, reason)
	}
	return info
}

// infoOf returns the ErrorInfo detail of err, or nil.
func infoOf(err error) *errdetails.ErrorInfo {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return nil
	}
	for _, detail := range failure.Details() {
		if value, err := detail.Value(); err == nil {
			if info, ok := value.(*errdetails.ErrorInfo); ok {
				return info
			}
		}
	}
	return nil
}

// mustFail runs the program, which must exit with status 1, and returns its output.
func (p program) mustFail(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	if len(args) == 0 {
		args = []string{"--listen", "127.0.0.1:0", "--admin-listen", ""}
	}
	out, err := p.run(ctx, t, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("userd %v: error %v, want exit status 1\n%s", args, err, out)
	}
	return out
}

// run runs the program until it exits.
func (p program) run(ctx context.Context, t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	argv := slices.Concat(p.wrap, []string{build(t, "")}, args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.dir
	cmd.Env = os.Environ()
	printed, err := cmd.CombinedOutput()
	return string(printed), err
}

// eventually retries until try succeeds.
func eventually(ctx context.Context, t *testing.T, try func(context.Context) error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("timeout, last error: %v", err)
		}
	}
}
