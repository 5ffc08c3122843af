//go:build deploy

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// The flags of compose.yaml are those of the program, and the nodes in nginx.conf and in dependencies are services.
func TestComposeFile(t *testing.T) {
	text, err := os.ReadFile(deployFolder + "compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Image       string
			Command     []string
			Environment map[string]string
			DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
			Volumes     []string
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	help := command(t, ".", build(t, ""), "serve", "--help")
	for name, service := range file.Services {
		for _, flag := range service.Command {
			if flag, _, _ = strings.Cut(flag, "="); !strings.Contains(help, " "+flag+"=") {
				t.Errorf("%s: %s is no flag of userd", name, flag)
			}
		}
		for needed := range service.DependsOn {
			if _, ok := file.Services[needed]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, needed)
			}
		}
		for _, volume := range service.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			if _, ok := file.Volumes[from]; !ok && !strings.HasPrefix(from, "./") {
				t.Errorf("%s: there is no volume %s", name, from)
			}
		}
	}
	for _, node := range regexp.MustCompile(`server ([a-z0-9-]+):8080`).FindAllStringSubmatch(composeNginx(t), -1) {
		if service, ok := file.Services[node[1]]; !ok || service.Environment["USERD_STORE"] == "" {
			t.Errorf("nginx.conf: %s is no service with a store", node[1])
		}
	}
}

func composeNginx(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(deployFolder + "compose/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// composed is two nodes with a PostgreSQL database behind nginx, as deploy/compose starts them.
type composed struct {
	url      string
	trust    *tls.Config
	programs []program
	nodes    []*process
}

func startComposed(t *testing.T) *composed {
	t.Helper()
	authority, port := servertest.NewAuthority(t), freePort(t)
	c := &composed{url: "https://127.0.0.1:" + port, trust: authority.Trust()}
	cert, key := authority.Server(t).Write(t, t.TempDir())
	pairs := []string{"listen 443", "listen 127.0.0.1:" + port, "/etc/nginx/tls/userd.crt", cert, "/etc/nginx/tls/userd.key", key}
	database := pgtest.Database(t)
	for i := range 2 {
		address := "127.0.0.1:" + freePort(t)
		p := program{dir: t.TempDir(), flags: []string{"--listen", address, "--store", database, "--trusted-proxy", "127.0.0.1", "--log-level", "debug"}}
		c.programs, c.nodes = append(c.programs, p), append(c.nodes, p.start(t))
		pairs = append(pairs, fmt.Sprintf("userd-%d:8080", i+1), address)
	}
	startNginx(t, port, strings.NewReplacer(pairs...).Replace(composeNginx(t)))
	return c
}

func (c *composed) http(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: c.trust.Clone(), MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// All protocols pass nginx, and streams are not buffered.
func TestComposeProtocols(t *testing.T) {
	c := startComposed(t)
	ctx := within(t, time.Minute)
	for i, options := range [][]client.Option{
		nil,
		{client.WithProtocol(client.GRPCWeb)},
		{client.WithProtocol(client.GRPCWeb), client.WithHTTP1()},
		{client.WithProtocol(client.Connect)},
		{client.WithProtocol(client.Connect), client.WithHTTP1()},
	} {
		users, err := client.New([]string{c.url}, append(options, client.WithTLS(c.trust))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = users.Close() })
		u, err := users.CreateUser(ctx, &userv1.CreateUserRequest{Username: fmt.Sprint("user ", i), Email: fmt.Sprintf("user%d@example.org", i)})
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		for row, err := range users.Activities(ctx, &userv1.StreamUserActivitiesRequest{UserId: u.GetUserId()}) {
			if err != nil || row.GetAction() != "user.created" {
				t.Errorf("client %d: row %v, %v, want user.created", i, row, err)
			}
			break
		}
		if i == 0 {
			session := users.OpenStatusSession(ctx, nil)
			if update, err := session.Set(ctx, u.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE); err != nil || update.GetUserId() != u.GetUserId() {
				t.Errorf("status session: %v, %v", update, err)
			}
			if err := session.Close(); err != nil {
				t.Errorf("status session: %v", err)
			}
		}
		for accept, want := range map[string]string{"application/json": `{"activities":[`, "text/event-stream": "retry: ", "application/x-ndjson": `{"activityId":`} {
			if got := c.firstLine(ctx, t, fmt.Sprintf("/api/v1/users/%d/activities", u.GetUserId()), accept); !strings.HasPrefix(got, want) {
				t.Errorf("activities as %s start with %q, want %q", accept, got, want)
			}
		}
	}
}

// firstLine returns the first line of a response that may go on.
func (c *composed) firstLine(ctx context.Context, t *testing.T, path, accept string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := c.http(t, false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil && err != io.EOF { //nolint:errorlint // returned as it is
		t.Fatal(err)
	}
	return line
}

// restart starts a node that has ended, and waits until nginx uses it again.
func (c *composed) restart(t *testing.T, node int) {
	t.Helper()
	c.nodes[node] = c.programs[node].start(t)
	c.awaitUse(t, node)
}

// awaitUse waits until nginx uses a node in both upstreams: after a failed connection it does not for a second.
func (c *composed) awaitUse(t *testing.T, node int) {
	t.Helper()
	for _, protocol := range []string{"protocol=grpc ", "protocol=rest "} {
		c.nodes[node].output.await(t, "UserService/CreateUser", protocol)
	}
}

// failedCall is a unary call that failed.
type failedCall struct {
	kind  string
	start time.Time
	err   error
}

// A node that drains fails no unary call. One that is killed fails those that it had begun, at most.
func TestComposeNodesEnd(t *testing.T) {
	c := startComposed(t)
	ctx := within(t, hangTimeout)
	load := c.startLoad(ctx, t)
	for i := range c.nodes {
		c.awaitUse(t, i)
	}
	for i, node := range c.nodes {
		node.terminate(t)
		load.await(ctx, t, 400)
		for _, failed := range load.takeFailed() {
			t.Errorf("drain of node %d: %s: %v", i+1, failed.kind, failed.err)
		}
		c.restart(t, i)
	}
	for i, node := range c.nodes {
		node.kill()
		killed := time.Now()
		load.await(ctx, t, 400)
		failed := load.takeFailed()
		t.Logf("kill of node %d: %d of %d calls in flight failed", i+1, len(failed), load.workers)
		if len(failed) > load.workers {
			t.Errorf("kill of node %d: %d calls failed, want at most %d, those in flight", i+1, len(failed), load.workers)
		}
		for _, call := range failed {
			if call.start.After(killed) {
				t.Errorf("kill of node %d: %s failed, which started %v after it: %v", i+1, call.kind, call.start.Sub(killed), call.err)
			}
		}
		c.restart(t, i)
	}
	load.stop()
}

// workersEach is the number of concurrent calls over each protocol.
const workersEach = 4

// unaryLoad is clients that make unary calls.
type unaryLoad struct {
	workers int
	calls   atomic.Int64
	made    chan struct{}
	stop    func()

	mu     sync.Mutex
	failed []failedCall
}

func (c *composed) startLoad(ctx context.Context, t *testing.T) *unaryLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	l := &unaryLoad{made: make(chan struct{}, 1), stop: func() {
		cancel()
		running.Wait()
	}}
	t.Cleanup(l.stop)
	users := map[string]userv1connect.UserServiceClient{
		"gRPC":     userv1connect.NewUserServiceClient(c.http(t, true), c.url, connect.WithGRPC()),
		"gRPC-Web": userv1connect.NewUserServiceClient(c.http(t, false), c.url, connect.WithGRPCWeb()),
		"Connect":  userv1connect.NewUserServiceClient(c.http(t, false), c.url, connect.WithProtoJSON()),
	}
	rest := c.http(t, false)
	for kind, rpc := range users {
		for worker := range workersEach {
			id := int64(0)
			l.run(ctx, &running, kind, func(i int) error {
				if i%2 == 1 && id != 0 {
					_, err := rpc.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
					return err
				}
				name := fmt.Sprintf("%s %d %d", kind, worker, i)
				created, err := rpc.CreateUser(ctx, &userv1.CreateUserRequest{Username: name, Email: strings.ReplaceAll(name, " ", "-") + "@example.org"})
				id = created.GetUser().GetUserId()
				return err
			})
		}
	}
	for worker := range workersEach {
		l.run(ctx, &running, "REST", func(i int) error {
			return post(ctx, rest, c.url+"/api/v1/users", fmt.Sprintf(`{"username":"rest %d %d","email":"rest-%[1]d-%[2]d@example.org"}`, worker, i))
		})
	}
	return l
}

func post(ctx context.Context, client *http.Client, url, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(text))
	}
	return err
}

// run starts a worker.
func (l *unaryLoad) run(ctx context.Context, running *sync.WaitGroup, kind string, call func(i int) error) {
	l.workers++
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			start := time.Now()
			err := call(i)
			if err != nil && ctx.Err() == nil {
				l.mu.Lock()
				l.failed = append(l.failed, failedCall{kind, start, err})
				l.mu.Unlock()
			}
			l.calls.Add(1)
			select {
			case l.made <- struct{}{}:
			default:
			}
		}
	})
}

// await waits for a number of calls.
func (l *unaryLoad) await(ctx context.Context, t *testing.T, n int64) {
	t.Helper()
	for end := l.calls.Load() + n; l.calls.Load() < end; {
		select {
		case <-l.made:
		case <-ctx.Done():
			t.Fatalf("%d calls are missing: %v", end-l.calls.Load(), context.Cause(ctx))
		}
	}
}

// takeFailed returns the failed calls since the last time.
func (l *unaryLoad) takeFailed() []failedCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := slices.Clone(l.failed)
	l.failed = nil
	return failed
}
