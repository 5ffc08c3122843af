package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
)

const (
	// patience is how long the tests of hostile callers wait for anything.
	patience = 90 * time.Second
	// courtesy is how long a well-behaved caller may wait for an answer.
	courtesy = 10 * time.Second
	// leastCalls is how many calls a second a well-behaved caller must get answered
	// during an attack. Without one it is thousands; the test may have to share the
	// machine.
	leastCalls = 2
)

// target is a program under attack, with a caller who does it no harm.
type target struct {
	*process

	admin  string
	client userv1connect.UserServiceClient
	id     int64 // of a user
	// dialed are the attackers' connections.
	dialed []net.Conn
	// What the program has at rest.
	goroutines  int
	heap        int64
	connections int64
}

var operatorsPattern = regexp.MustCompile(`listening for operators" address=([0-9.:]+)`)

// newTarget starts the program and lets it come to rest.
func newTarget(t *testing.T, flags ...string) *target {
	t.Helper()
	return program{flags: flags}.target(t)
}

// newSecureTarget is newTarget with TLS.
func newSecureTarget(t *testing.T, flags ...string) *target {
	t.Helper()
	authority := servertest.NewAuthority(t)
	cert, key := authority.Server(t).Write(t, t.TempDir())
	return program{
		flags: append([]string{"--tls-cert", cert, "--tls-key", key}, flags...), trust: authority.Trust(),
	}.target(t)
}

// overBoth runs a test without and with TLS.
func overBoth(t *testing.T, test func(t *testing.T, start func(t *testing.T, flags ...string) *target)) {
	t.Helper()
	for name, start := range map[string]func(*testing.T, ...string) *target{"h2c": newTarget, "TLS": newSecureTarget} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

func (p program) target(t *testing.T) *target {
	t.Helper()
	p.dir, p.flags = t.TempDir(), append([]string{"--admin-listen", "127.0.0.1:0"}, p.flags...)
	x := &target{process: p.start(t)}
	await(t, "the operators' port", func() bool {
		found := operatorsPattern.FindStringSubmatch(x.output.String())
		if found != nil {
			x.admin = found[1]
		}
		return found != nil
	})
	// Without authentication an address is a caller: this one is not the attacker.
	x.from = net.IPv4(127, 0, 0, 3)
	x.client = x.process.client(t, 1<<20)
	x.from = nil
	created, err := x.client.CreateUser(t.Context(), newUser("victim", 0))
	if err != nil {
		t.Fatal(err)
	}
	x.id = created.GetUser().GetUserId()
	for range 20 { // so that what is made once is there
		x.get(t)
	}
	x.atRest(t)
	return x
}

// atRest takes what the program has now for what it has at rest.
func (x *target) atRest(t *testing.T) {
	t.Helper()
	x.goroutines, x.heap, x.connections = x.goroutinesNow(t), x.heapNow(t), x.metric(t, "userd_connections")
}

// await asks until the answer is yes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	end := time.Now().Add(patience)
	for !done() {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		<-ticker.C
	}
}

// get makes a well-behaved call, and reports whether it went well.
func (x *target) get(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), courtesy)
	defer cancel()
	_, err := x.client.GetUser(ctx, &userv1.GetUserRequest{UserId: x.id})
	if err != nil {
		t.Errorf("a well-behaved caller: %v", err)
	}
	return err == nil
}

// ask asks the operators' port.
func (x *target) ask(t *testing.T, path string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+x.admin+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func number(t *testing.T, text []byte, pattern string) int64 {
	t.Helper()
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %.300s", pattern, text)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

func (x *target) goroutinesNow(t *testing.T) int {
	t.Helper()
	return int(number(t, x.ask(t, "/debug/pprof/goroutine?debug=1"), `total (\d+)`))
}

// heapNow is what is in use once the garbage is gone.
func (x *target) heapNow(t *testing.T) int64 {
	t.Helper()
	return number(t, x.ask(t, "/debug/pprof/heap?debug=1&gc=1"), `# HeapAlloc = (\d+)`)
}

func (x *target) metric(t *testing.T, name string) int64 {
	t.Helper()
	return number(t, x.ask(t, "/metrics"), `(?m)^`+regexp.QuoteMeta(name)+` (\S+)$`)
}

// sum adds up what a metric says for all its labels.
func sum(t *testing.T, metrics []byte, name string) (total int64) {
	t.Helper()
	for _, line := range regexp.MustCompile(`(?m)^`+name+`\{.*$`).FindAll(metrics, -1) {
		total += number(t, line, `\} (\S+)$`)
	}
	return total
}

// callsNow is how many calls go on, streams among them.
func (x *target) callsNow(t *testing.T) int64 {
	t.Helper()
	metrics := x.ask(t, "/metrics")
	return sum(t, metrics, "grpc_server_started_total") - sum(t, metrics, "grpc_server_handled_total") +
		sum(t, metrics, "userd_open_streams")
}

// peakReset forgets the most memory that the process has held, and peak tells it.
func (x *target) peakReset(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", x.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

func (x *target) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return number(t, text, `VmHWM:\s+(\d+) kB`) << 10
}

// withstands runs the attack while a well-behaved caller goes on calling over another
// connection, none of whose calls may fail or take long, and then waits until nothing of
// the attack is left: first while the attackers hold on to their connections, neither
// calls nor goroutines nor memory, and when they have let go no connections.
func (x *target) withstands(t *testing.T, attack func(t *testing.T)) {
	t.Helper()
	var stop atomic.Bool
	var calling sync.WaitGroup
	calls := 0
	began := time.Now()
	calling.Go(func() {
		for !stop.Load() && x.get(t) {
			calls++
		}
	})
	func() {
		defer calling.Wait()
		defer stop.Store(true) // however the attack ends
		attack(t)
	}()
	if took := time.Since(began); float64(calls) < max(1, leastCalls*took.Seconds()) {
		t.Errorf("a well-behaved caller got %d answers in %v", calls, took)
	}
	x.rests(t)
	x.letGo(t)
}

// rests waits until the program does what it did before, and no more.
func (x *target) rests(t *testing.T) {
	t.Helper()
	var calls int64
	var goroutines int
	var heap int64
	defer func() {
		if t.Failed() {
			t.Logf("%d calls; %d goroutines, at rest %d; %d bytes in use, at rest %d\n%s",
				calls, goroutines, x.goroutines, heap, x.heap, x.output)
		}
	}()
	const few, little = 8, 10 << 20
	await(t, "the calls' end", func() bool {
		calls = x.callsNow(t)
		return calls == 0
	})
	await(t, "the handlers' end", func() bool {
		goroutines = x.goroutinesNow(t)
		return goroutines <= x.goroutines+few
	})
	await(t, "the memory back", func() bool {
		heap = x.heapNow(t)
		return heap <= x.heap+little
	})
}

// letGo closes the attackers' connections and waits until the program has noticed.
func (x *target) letGo(t *testing.T) {
	t.Helper()
	for _, conn := range x.dialed {
		_ = conn.Close() // the program may have done so
	}
	x.dialed = nil
	await(t, "the connections' end", func() bool { return x.metric(t, "userd_connections") <= x.connections })
}
