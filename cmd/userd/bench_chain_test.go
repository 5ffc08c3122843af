package main_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/sqlite"
)

// bareVariable makes the test binary serve the bare handlers in a separate process, so that
// its CPU time can be measured.
const bareVariable = "USERD_BENCH_BARE"

const (
	// The servers take turns of chainCalls calls, chainRounds times, so that other load of the
	// machine affects all alike.
	chainRounds = 20
	chainCalls  = 5000
)

// BenchmarkChain compares the CPU time of GetUser for userd with defaults and with all features
// (tokens, limits, metrics, logs, exported traces of 1 % and of all calls) with the bare
// handlers on net/http. It reports the median CPU time of the turns, and the median ratio to
// the bare handlers.
func BenchmarkChain(b *testing.B) {
	traces := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer traces.Close()
	names := []string{"bare", "started", "all-on", "all-traced"}
	turns := []func() time.Duration{
		getUserTurn(b, startBare(b)),
		getUserTurn(b, program{dir: b.TempDir()}.start(b)),
		getUserTurn(b, startAllOn(b, traces.URL, "0.01")),
		getUserTurn(b, startAllOn(b, traces.URL, "1")),
	}
	for b.Loop() {
		taken := make([][]float64, len(turns))
		ratios := make([][]float64, len(turns))
		for round := range 1 + chainRounds {
			for i, turn := range turns {
				each := float64(turn().Nanoseconds()) / chainCalls / 1e3
				if round == 0 {
					continue // warm-up
				}
				taken[i] = append(taken[i], each)
				ratios[i] = append(ratios[i], each/taken[0][round-1])
			}
		}
		for i, name := range names {
			b.ReportMetric(median(taken[i]), name+"-µs/call")
			if i > 0 {
				b.ReportMetric(median(ratios[i]), name+"/bare")
			}
		}
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// startAllOn starts the program with all features and a trace sampling ratio.
func startAllOn(b *testing.B, traces, sampled string) *process {
	p := program{dir: b.TempDir()}
	token, flags := issueToken(b, p.dir)
	p.flags = slices.Concat(flags, []string{"--max-requests-per-second", "1000000"})
	p.env = []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + traces,
		"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + sampled,
	}
	run := p.start(b)
	run.token = token
	return run
}

// getUserTurn returns a function that calls GetUser with 64 callers on 8 connections and returns
// the CPU time of the process.
func getUserTurn(b *testing.B, p *process) func() time.Duration {
	const callers = 64
	clients := connectedClients(b, p, callers)
	resp, err := clients[0].CreateUser(b.Context(), newUser("chain", 0))
	if err != nil {
		b.Fatal(err)
	}
	req := &userv1.GetUserRequest{UserId: resp.GetUser().GetUserId()}
	return func() time.Duration {
		before := runTime(b, p)
		err := share(callers, chainCalls, func(caller, _ int) error {
			_, err := clients[caller%len(clients)].GetUser(b.Context(), req)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		return runTime(b, p) - before
	}
}

// runTime returns the CPU time of the threads of a process in nanoseconds, from
// /proc/PID/task/*/schedstat. It does not include threads that have exited.
func runTime(b *testing.B, p *process) (all time.Duration) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		var ran time.Duration
		if _, err := fmt.Sscan(string(text), &ran); err != nil {
			b.Fatal(err)
		}
		all += ran
	}
	return all
}

var (
	tokenPattern = regexp.MustCompile(`Bearer ([A-Za-z0-9_.-]+)`)
	flagPattern  = regexp.MustCompile(`(--jwt-[a-z]+)[ =]'?([^ '\n\\]+)`)
)

// issueToken runs userd token and returns the token and the server flags.
func issueToken(b testing.TB, dir string) (token string, flags []string) {
	cmd := exec.CommandContext(b.Context(), build(b, ""), "token", "--dir", dir)
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range flagPattern.FindAllStringSubmatch(string(out), -1) {
		flags = append(flags, m[1], m[2])
	}
	m := tokenPattern.FindStringSubmatch(string(out))
	if m == nil || len(flags) == 0 {
		b.Fatalf("no token or flags in the output of userd token:\n%s", out)
	}
	return m[1], flags
}

// startBare starts the bare handlers.
func startBare(b *testing.B) *process {
	binary, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	return launch(b, []string{binary}, b.TempDir(), []string{bareVariable + "=1"})
}

// serveBare serves the handlers with net/http and the store only.
func serveBare() error {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(".", "userservice.db")})
	if err != nil {
		return err
	}
	f, err := feed.Open(ctx, store)
	if err != nil {
		return err
	}
	rpcs, err := service.New(store, f, service.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(rpcs, connect.WithCompressMinBytes(1024)))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: &protocols} // no limits, on purpose
	return server.Serve(listener)
}
