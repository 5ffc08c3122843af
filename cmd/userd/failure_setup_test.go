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

// The tests in the files failure_*_test.go make the world of the program fail: its
// disk, its file, its own code. What they hold it to is the same each time: writes are
// refused with their reason, reads go on, health says so and takes it back by itself
// where that is possible, and nothing acknowledged is lost.

// The names of the health service.
const (
	readsName  = "user.v1.UserService"
	writesName = "user.v1.UserService.Write"
)

// troubled is a running program whose world is about to fail, and what it has
// acknowledged so far.
type troubled struct {
	program program
	process *process
	client  userv1connect.UserServiceClient
	health  *grpchealth.Client
	admin   string // address of its admin port

	mu      sync.Mutex
	next    int
	acked   []int64  // users whose creation was acknowledged
	refused []string // names whose creation was refused for certain
}

// startTroubled starts the program in a folder and lets it acknowledge some users.
func startTroubled(ctx context.Context, t *testing.T, dir string) *troubled {
	t.Helper()
	s := &troubled{admin: adminAddress()}
	s.program = program{dir: dir, flags: []string{"--admin-listen", s.admin}}
	s.restart(t)
	for range 20 {
		s.mustCreate(ctx, t)
	}
	return s
}

// adminAddress returns an address that no other process of the test uses: the
// loopback interface has sixteen million hosts.
func adminAddress() string {
	var host [3]byte
	_, _ = rand.Read(host[:]) // it cannot fail
	return fmt.Sprintf("127.%d.%d.%d:2112", 1+host[0]%254, host[1], 1+host[2]%254)
}

func (s *troubled) restart(t *testing.T) {
	t.Helper()
	s.process = s.program.start(t)
	s.client = s.process.client(t, 1<<20)
	http2, closeIdle := newHTTP2(1 << 20)
	t.Cleanup(closeIdle)
	s.health = grpchealth.NewClient(http2, s.process.url(), connect.WithGRPC())
}

// create creates a user and notes it if that was acknowledged.
func (s *troubled) create(ctx context.Context) error {
	s.mu.Lock()
	s.next++
	name := fmt.Sprintf("troubled-%06d", s.next)
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

// unknownText is in the message of an error that does not rule out that the write was stored.
const unknownText = "write is unknown"

func (s *troubled) mustCreate(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := s.create(ctx); err != nil {
		t.Fatalf("create: %v\n%s", err, s.process.output)
	}
}

// createUntilRefused lets several callers create users until each has been refused,
// and returns the refusals.
func (s *troubled) createUntilRefused(ctx context.Context) []error {
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

// mustRead reads every acknowledged user, one by one, and the log to its end, which
// must tell of nobody whose creation was refused.
func (s *troubled) mustRead(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, id := range s.acked {
		if _, err := s.client.GetUser(ctx, &userv1.GetUserRequest{UserId: id}); err != nil {
			t.Fatalf("read user %d: %v\n%s", id, err, s.process.output)
		}
	}
	created, names, err := createdRows(ctx, s.client)
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	for _, name := range s.refused {
		if names[name] {
			t.Fatalf("%s was created, though that was refused", name)
		}
	}
	for _, id := range s.acked {
		if created[id] != 1 {
			t.Fatalf("the log has %d rows of the creation of user %d, which was acknowledged", created[id], id)
		}
	}
}

// createdRows reads the whole log, which must have no hole, and returns how many
// rows tell of the creation of each user, and under which names users were created.
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
			return nil, nil, fmt.Errorf("position %d follows %d", row.GetActivityId(), last)
		}
		last = row.GetActivityId()
		if row.GetAction() == "user.created" {
			created[row.GetUserId()]++
			names[row.GetDetails()["new.username"]] = true
		}
	}
	return created, names, stream.Err()
}

// mustSurvive kills the program, starts it anew in a sound world, and looks for all
// that was acknowledged.
func (s *troubled) mustSurvive(ctx context.Context, t *testing.T) {
	t.Helper()
	s.process.kill()
	s.restart(t)
	s.mustRead(ctx, t)
	s.mustCreate(ctx, t)
}

// healthWatch follows one name of the health service.
type healthWatch struct {
	name   string
	events <-chan grpchealth.WatchEvent
	of     *troubled
}

func (s *troubled) watch(ctx context.Context, name string) *healthWatch {
	return &healthWatch{name, s.health.Watch(ctx, &grpchealth.CheckRequest{Service: name}), s}
}

// await returns once the watch tells of the status; a check must then say the same.
func (w *healthWatch) await(ctx context.Context, t *testing.T, want grpchealth.Status) {
	t.Helper()
	for event := range w.events {
		if event.Err != nil {
			t.Fatalf("the watch of %s ended: %v", w.name, event.Err)
		}
		if event.Response.Status == want {
			w.of.mustCheck(ctx, t, w.name, want)
			return
		}
	}
	t.Fatalf("the watch of %s ended before it told of %v\n%s", w.name, want, w.of.process.output)
}

func (s *troubled) mustCheck(ctx context.Context, t *testing.T, name string, want grpchealth.Status) {
	t.Helper()
	got, err := s.health.Check(ctx, &grpchealth.CheckRequest{Service: name})
	if err != nil || got.Status != want {
		t.Fatalf("health of %q: got %+v, %v, want %v\n%s", name, got, err, want, s.process.output)
	}
}

// awaitRefusing returns once health says that writes are not served. Reads are, and
// /readyz must say so, and why writes are not.
func (s *troubled) awaitRefusing(ctx context.Context, t *testing.T, writes *healthWatch, why string) {
	t.Helper()
	writes.await(ctx, t, grpchealth.StatusNotServing)
	s.mustCheck(ctx, t, readsName, grpchealth.StatusServing)
	s.mustCheck(ctx, t, "", grpchealth.StatusServing)
	status, text := s.readyz(ctx, t)
	if status != http.StatusOK || !strings.Contains(text, "writes: ") || !strings.Contains(text, why) {
		t.Fatalf("/readyz: got %d, %q, want it to say that writes are not served: %q", status, text, why)
	}
}

// awaitServing returns once health says that writes are served again.
func (s *troubled) awaitServing(ctx context.Context, t *testing.T, writes *healthWatch) {
	t.Helper()
	writes.await(ctx, t, grpchealth.StatusServing)
	if status, text := s.readyz(ctx, t); status != http.StatusOK || text != "ready\n" {
		t.Fatalf("/readyz: got %d, %q", status, text)
	}
}

func (s *troubled) readyz(ctx context.Context, t *testing.T) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// mustBe fails unless the error is an answer of the service with the code and reason.
func mustBe(t *testing.T, err error, code connect.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	info := infoOf(err)
	if connect.CodeOf(err) != code || info.GetReason() != reason {
		t.Fatalf("got %v (%s), want %v (%s)", err, info.GetReason(), code, reason)
	}
	return info
}

// infoOf returns what the service says of an error; nil if it did not come from it.
func infoOf(err error) *errdetails.ErrorInfo {
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return nil
	}
	for _, detail := range answer.Details() {
		if value, err := detail.Value(); err == nil {
			if info, ok := value.(*errdetails.ErrorInfo); ok {
				return info
			}
		}
	}
	return nil
}

// mustFail runs the program, which must end by itself with status 1, and returns what
// it printed.
func (p program) mustFail(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	if len(args) == 0 {
		args = []string{"--listen", "127.0.0.1:0", "--admin-listen", ""}
	}
	out, err := p.run(ctx, t, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("userd %v: got %v, want status 1\n%s", args, err, out)
	}
	return out
}

// run runs the program to its end.
func (p program) run(ctx context.Context, t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	argv := slices.Concat(p.wrap, []string{build(t, "")}, args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.dir
	cmd.Env = os.Environ()
	said, err := cmd.CombinedOutput()
	return string(said), err
}

// eventually tries again and again, as a caller who waits would.
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
			t.Fatalf("to the end: %v", err)
		}
	}
}
