package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/store/pgtest"
)

// The tests of this package run userd as a separate process, since they test kills, restarts
// and syncs to disk.

// binaries holds the variants of the program, each built once in a directory of the test run.
var binaries struct {
	sync.Mutex
	dir   string
	built map[string]string
}

func TestMain(m *testing.M) {
	if os.Getenv(bareVariable) != "" {
		fmt.Fprintln(os.Stderr, serveBare())
		os.Exit(1)
	}
	if os.Getenv(siegeVariable) != "" {
		if err := runAttack(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := pgtest.Run(m)
	if binaries.dir != "" {
		if err := os.RemoveAll(binaries.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// build returns the path of the program built with the tags.
func build(t testing.TB, tags string) string {
	t.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if path := binaries.built[tags]; path != "" {
		return path
	}
	if binaries.dir == "" {
		// Not t.TempDir: the binary is used by other tests as well.
		dir, err := os.MkdirTemp("", "userd-test-") //nolint:usetesting // see above
		if err != nil {
			t.Fatal(err)
		}
		binaries.dir, binaries.built = dir, make(map[string]string)
	}
	path := filepath.Join(binaries.dir, "userd-"+tags)
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, ".").CombinedOutput() //nolint:noctx // not canceled
	if err != nil {
		t.Fatalf("build userd with tags %q: %v\n%s", tags, err, out)
	}
	binaries.built[tags] = path
	return path
}

// program configures a userd process.
type program struct {
	dir   string      // working directory, with the store
	fault string      // injected fault, needs the build tag faults; "": none
	wrap  []string    // command prefix, such as strace
	flags []string    // additional flags
	env   []string    // additional environment variables
	trust *tls.Config // TLS configuration of clients; nil: no TLS
}

// process is a running userd.
type process struct {
	cmd    *exec.Cmd
	addr   string
	token  string      // bearer token of clients; "": none
	trust  *tls.Config // TLS configuration of clients; nil: no TLS
	from   net.IP      // local address of clients; nil: any
	output *output
	exited chan struct{}
	err    error // from Wait; valid after exited is closed
}

// start starts the program on a free port and returns when it serves.
func (p program) start(t testing.TB) *process {
	t.Helper()
	tags := ""
	if p.fault != "" {
		tags = "faults"
	}
	own := []string{build(t, tags), "--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "text"}
	run := launch(t, slices.Concat(p.wrap, own, p.flags), p.dir, append(p.env, "USERD_FAULT="+p.fault))
	run.trust = p.trust
	return run
}

// launch starts a command and returns when it has printed its address.
func launch(t testing.TB, argv []string, dir string, env []string) *process {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // stopped by signals
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	// A process group, so that signals also reach a wrapping command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &output{}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	run := &process{cmd: cmd, output: out, exited: make(chan struct{})}
	address := make(chan string, 1)
	go run.follow(pipe, address)
	t.Cleanup(run.kill)
	select {
	case run.addr = <-address:
	case <-run.exited:
		t.Fatalf("userd exited at start: %v\n%s", run.err, out)
	case <-time.After(hangTimeout):
		t.Fatalf("userd did not print its address:\n%s", out)
	}
	return run
}

var addressPattern = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// follow collects the output of the process, sends the first address in it, and waits for
// the process to exit.
func (p *process) follow(pipe io.Reader, address chan<- string) {
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	found := false
	for lines.Scan() {
		p.output.add(lines.Text())
		if at := addressPattern.FindString(lines.Text()); at != "" && !found && !strings.HasSuffix(at, ":0") {
			found = true
			address <- at
		}
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

// kill sends SIGKILL and waits.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have exited
	<-p.exited
}

// terminate sends SIGTERM and waits.
func (p *process) terminate(t testing.TB) {
	t.Helper()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(hangTimeout):
		t.Fatalf("userd did not exit after SIGTERM:\n%s", p.output)
	}
}

// client returns a gRPC client with its own connection. window is the HTTP/2 flow-control
// window in bytes.
func (p *process) client(t testing.TB, window int) userv1connect.UserServiceClient {
	client, closeIdle := p.newClient(window)
	t.Cleanup(closeIdle)
	return client
}

func (p *process) newClient(window int) (client userv1connect.UserServiceClient, closeIdle func()) {
	http2, closeIdle := newHTTP2(window)
	if p.trust != nil {
		http2, closeIdle = newSecureHTTP2(window, p.trust)
	}
	if p.from != nil {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: p.from}}
		http2.Transport.(*http.Transport).DialContext = dialer.DialContext //nolint:errcheck // see newTransport
	}
	send := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if p.token != "" {
				req.Header().Set("Authorization", "Bearer "+p.token)
			}
			return next(ctx, req)
		}
	})
	return userv1connect.NewUserServiceClient(http2, p.url(), connect.WithGRPC(), connect.WithInterceptors(send)), closeIdle
}

func (p *process) url() string {
	if p.trust != nil {
		return "https://" + p.addr
	}
	return "http://" + p.addr
}

// newHTTP2 returns an h2c client.
func newHTTP2(window int) (client *http.Client, closeIdle func()) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return newTransport(window, &http.Transport{Protocols: protocols})
}

// newSecureHTTP2 returns an HTTP/2 client with TLS.
func newSecureHTTP2(window int, trust *tls.Config) (client *http.Client, closeIdle func()) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return newTransport(window, &http.Transport{Protocols: protocols, TLSClientConfig: trust.Clone()})
}

func newTransport(window int, transport *http.Transport) (client *http.Client, closeIdle func()) {
	transport.HTTP2 = &http.HTTP2Config{
		MaxReceiveBufferPerConnection: max(window, 1<<16), MaxReceiveBufferPerStream: window,
	}
	return &http.Client{Transport: transport}, transport.CloseIdleConnections
}

// output collects the lines that a process prints.
type output struct {
	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed at the next line; nil: no waiters
}

func (o *output) add(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line)
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// await waits for a line that contains all parts.
func (o *output) await(t testing.TB, parts ...string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for checked := 0; ; {
		o.mu.Lock()
		for ; checked < len(o.lines); checked++ {
			if hasAll(o.lines[checked], parts) {
				o.mu.Unlock()
				return
			}
		}
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("timeout waiting for a line with %q:\n%s", parts, o)
		}
	}
}

func hasAll(line string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
}

// String returns the last lines.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines[max(0, len(o.lines)-40):], "\n")
}

// all returns all lines.
func (o *output) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines, "\n")
}

// broken reports whether err can result from killing or stopping the server.
func broken(err error) bool {
	switch connect.CodeOf(err) { //nolint:exhaustive // others are bugs
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		return true
	case connect.CodeUnknown, connect.CodeInternal:
		return transportError(err)
	}
	return false
}

func transportError(err error) bool {
	for _, part := range []string{
		"EOF", "connection", "client conn", "reset", "closed", "broken pipe", "trailers", "GOAWAY", "stream error",
	} {
		if strings.Contains(err.Error(), part) {
			return true
		}
	}
	return false
}

// long is set by make test-long.
var long = flag.Bool("long", false, "make random kills, restarts and changes five times as often")

func longer(n int) int {
	if *long {
		return 5 * n
	}
	return n
}

// hangTimeout ends a test that hangs. On a loaded machine a write may take seconds.
const hangTimeout = 5 * time.Minute

// within returns a context with a timeout.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, fmt.Errorf("timed out after %s", d))
	t.Cleanup(cancel)
	return ctx
}
