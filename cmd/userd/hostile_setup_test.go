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
	// waitTimeout is the timeout of await and of attack connections.
	waitTimeout = 90 * time.Second
	// callTimeout is the timeout of calls of the well-behaved client.
	callTimeout = 10 * time.Second
	// minCallRate is the minimum rate of the well-behaved client during an attack, per second.
	minCallRate = 2
)

// target is a program under attack, with a well-behaved client.
type target struct {
	*process

	admin  string
	client userv1connect.UserServiceClient
	id     int64 // of a user
	// dialed are the connections of the attack.
	dialed  []net.Conn
	clients []*http.Client // of sendPart
	// Baseline of the idle program.
	goroutines  int
	heap        int64
	connections int64
}

var adminPattern = regexp.MustCompile(`admin server listening" addr=([0-9.:]+)`)

// newTarget starts the program and records the baseline.
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

// overBoth runs a test with h2c and with TLS.
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
	await(t, "the admin listener", func() bool {
		found := adminPattern.FindStringSubmatch(x.output.String())
		if found != nil {
			x.admin = found[1]
		}
		return found != nil
	})
	// Without authentication the caller is the address, so the client has its own.
	x.from = net.IPv4(127, 0, 0, 3)
	x.client = x.process.client(t, 1<<20)
	x.from = nil
	created, err := x.client.CreateUser(t.Context(), newUser("victim", 0))
	if err != nil {
		t.Fatal(err)
	}
	x.id = created.GetUser().GetUserId()
	for range 20 { // warm up
		x.get(t)
	}
	x.atRest(t)
	return x
}

// atRest records the baseline.
func (x *target) atRest(t *testing.T) {
	t.Helper()
	x.goroutines, x.heap, x.connections = x.goroutinesNow(t), x.heapNow(t), x.metric(t, "userd_connections")
}

// await polls until done returns true.
func await(t *testing.T, condition string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	end := time.Now().Add(waitTimeout)
	for !done() {
		if time.Now().After(end) {
			t.Fatalf("timeout waiting for %s", condition)
		}
		<-ticker.C
	}
}

// get makes a well-behaved call and reports whether it succeeded.
func (x *target) get(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	_, err := x.client.GetUser(ctx, &userv1.GetUserRequest{UserId: x.id})
	if err != nil {
		t.Errorf("well-behaved client: %v", err)
	}
	return err == nil
}

// ask makes a GET request to the admin listener.
func (x *target) ask(t *testing.T, path string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+x.admin+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func number(t *testing.T, text []byte, pattern string) int64 {
	t.Helper()
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no match of %s in %.300s", pattern, text)
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

// heapNow returns the live heap after a garbage collection.
func (x *target) heapNow(t *testing.T) int64 {
	t.Helper()
	return number(t, x.ask(t, "/debug/pprof/heap?debug=1&gc=1"), `# HeapAlloc = (\d+)`)
}

func (x *target) metric(t *testing.T, name string) int64 {
	t.Helper()
	return number(t, x.ask(t, "/metrics"), `(?m)^`+regexp.QuoteMeta(name)+` (\S+)$`)
}

// sum adds up a metric over all labels.
func sum(t *testing.T, metrics []byte, name string) (total int64) {
	t.Helper()
	for _, line := range regexp.MustCompile(`(?m)^`+name+`\{.*$`).FindAll(metrics, -1) {
		total += number(t, line, `\} (\S+)$`)
	}
	return total
}

// callsNow returns the number of calls and streams in flight.
func (x *target) callsNow(t *testing.T) int64 {
	t.Helper()
	metrics := x.ask(t, "/metrics")
	return sum(t, metrics, "grpc_server_started_total") - sum(t, metrics, "grpc_server_handled_total") +
		sum(t, metrics, "userd_open_streams")
}

// peakReset resets the peak resident set size that peak returns.
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

// withstands runs the attack while a well-behaved client makes calls, which must succeed. It
// then checks that calls, goroutines and memory return to the baseline while the attack
// connections are open, and the number of connections after they are closed.
func (x *target) withstands(t *testing.T, attack func(t *testing.T)) {
	t.Helper()
	var stop atomic.Bool
	var calling sync.WaitGroup
	calls := 0
	start := time.Now()
	calling.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for !stop.Load() && x.get(t) {
			calls++
			<-pace.C
		}
	})
	func() {
		defer calling.Wait()
		defer stop.Store(true) // also after t.Fatal
		attack(t)
	}()
	if took := time.Since(start); float64(calls) < max(1, minCallRate*took.Seconds()) {
		t.Errorf("well-behaved client made %d calls in %v, want at least 2 per second", calls, took)
	}
	x.awaitIdle(t)
	x.disconnectAll(t)
}

// awaitIdle waits until calls, goroutines and memory are at the baseline.
func (x *target) awaitIdle(t *testing.T) {
	t.Helper()
	var calls int64
	var goroutines int
	var heap int64
	defer func() {
		if t.Failed() {
			t.Logf("%d calls; %d goroutines, baseline %d; heap %d bytes, baseline %d\n%s",
				calls, goroutines, x.goroutines, heap, x.heap, x.output)
		}
	}()
	const few, little = 8, 10 << 20
	await(t, "calls to end", func() bool {
		calls = x.callsNow(t)
		return calls == 0
	})
	await(t, "goroutines to end", func() bool {
		for _, client := range x.clients { // whose requests may still be ending
			client.CloseIdleConnections()
		}
		goroutines = x.goroutinesNow(t)
		return goroutines <= x.goroutines+few
	})
	await(t, "memory to be released", func() bool {
		heap = x.heapNow(t)
		return heap <= x.heap+little
	})
}

// disconnectAll closes the attack connections and waits until the program has closed them.
func (x *target) disconnectAll(t *testing.T) {
	t.Helper()
	for _, conn := range x.dialed {
		_ = conn.Close() // may be closed already
	}
	x.dialed, x.clients = nil, nil
	await(t, "connections to close", func() bool { return x.metric(t, "userd_connections") <= x.connections })
}
