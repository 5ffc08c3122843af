package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
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
)

// The tests of this package run the real program as a process of its own: what is
// promised of a kill, a restart or a sync to disk cannot be shown within one.

// binaries builds each variant of the program once, into a folder of the test run.
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
	code := m.Run()
	if binaries.dir != "" {
		if err := os.RemoveAll(binaries.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// build returns the path of the program, built with the tags.
func build(t testing.TB, tags string) string {
	t.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if path := binaries.built[tags]; path != "" {
		return path
	}
	if binaries.dir == "" {
		// Not the test's own folder: the program outlives the test that built it.
		dir, err := os.MkdirTemp("", "userd-test-") //nolint:usetesting // see above
		if err != nil {
			t.Fatal(err)
		}
		binaries.dir, binaries.built = dir, make(map[string]string)
	}
	path := filepath.Join(binaries.dir, "userd-"+tags)
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, ".").CombinedOutput() //nolint:noctx // it ends by itself
	if err != nil {
		t.Fatalf("build userd with tags %q: %v\n%s", tags, err, out)
	}
	binaries.built[tags] = path
	return path
}

// program says how to run userd.
type program struct {
	dir   string      // its working folder, where its store is
	fault string      // a planted fault, which needs the build tag faults; empty: none
	wrap  []string    // a command in front of it, such as strace
	flags []string    // further flags
	env   []string    // further variables of its environment
	trust *tls.Config // of its clients; nil: it serves without TLS
}

// process is a running userd.
type process struct {
	cmd    *exec.Cmd
	addr   string
	token  string      // that its clients send; empty: none
	trust  *tls.Config // of its clients; nil: it serves without TLS
	from   net.IP      // address of its clients; nil: any
	output *output
	exited chan struct{}
	err    error // of Wait; valid once exited is closed
}

// start runs the program on a free port and returns once it serves.
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

// launch runs a program in the folder and returns once it has said where it serves.
func launch(t testing.TB, argv []string, dir string, env []string) *process {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it is ended by signals, which is what is tested
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	// A group of its own, so that what runs in front of it ends with it.
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
		t.Fatalf("userd ended at once: %v\n%s", run.err, out)
	case <-time.After(time.Minute):
		t.Fatalf("userd does not say where it listens:\n%s", out)
	}
	return run
}

var addressPattern = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// follow keeps what the process prints, finds the address in it, and waits for its
// end.
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

// kill ends the process at once, as a power cut would end it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
	<-p.exited
}

// terminate asks the process to stop and waits until it has.
func (p *process) terminate(t testing.TB) {
	t.Helper()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		t.Fatalf("userd does not stop:\n%s", p.output)
	}
}

// client returns a gRPC client of its own connection; window bounds what the
// connection buffers for a reader that does not read, in bytes.
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
		http2.Transport.(*http.Transport).DialContext = dialer.DialContext //nolint:errcheck // newTransport makes no other
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

// newHTTP2 returns a client that speaks HTTP/2 without TLS.
func newHTTP2(window int) (client *http.Client, closeIdle func()) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return newTransport(window, &http.Transport{Protocols: protocols})
}

// newSecureHTTP2 returns a client that speaks HTTP/2 with TLS.
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

// output keeps what a process printed.
type output struct {
	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed at the next line; nil: nobody waits for one
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

// await returns once a line is printed, or was, that has all the parts.
func (o *output) await(t testing.TB, parts ...string) {
	t.Helper()
	late := time.After(time.Minute)
	for seen := 0; ; {
		o.mu.Lock()
		for ; seen < len(o.lines); seen++ {
			if hasAll(o.lines[seen], parts) {
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
		case <-late:
			t.Fatalf("no line with %q was printed:\n%s", parts, o)
		}
	}
}

func hasAll(line string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
}

// String gives the last lines.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines[max(0, len(o.lines)-40):], "\n")
}

// all gives every line.
func (o *output) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines, "\n")
}

// broken reports whether an error may come of the server being killed or stopped:
// anything else is a fault of the server's.
func broken(err error) bool {
	switch connect.CodeOf(err) { //nolint:exhaustive // all others are faults
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

// within returns a context that fails the harness rather than hang it.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, fmt.Errorf("not done after %s", d))
	t.Cleanup(cancel)
	return ctx
}
