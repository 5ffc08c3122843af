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

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/sqlite"
)

// bareVariable makes the test's own binary serve the bare handlers, as a process
// whose processor time can be told from the callers'.
const bareVariable = "USERD_BENCH_BARE"

// BenchmarkChain compares a GetUser on the program with everything switched on (tokens,
// limits, metrics, sampled traces that are sent off, logs) with the bare handlers on
// net/http. Its figure is the processor time of the serving process.
func BenchmarkChain(b *testing.B) {
	traces := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer traces.Close()
	b.Run("bare", func(b *testing.B) {
		benchGetUser(b, startBare(b))
	})
	b.Run("userd", func(b *testing.B) {
		benchGetUser(b, program{dir: b.TempDir()}.start(b))
	})
	b.Run("userd-all-on", func(b *testing.B) {
		p := program{dir: b.TempDir()}
		token, flags := issueToken(b, p.dir)
		p.flags = slices.Concat(flags, []string{"--max-requests-per-second", "1000000"})
		p.env = []string{
			"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + traces.URL,
			"OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
		}
		run := p.start(b)
		run.token = token
		benchGetUser(b, run)
	})
}

func benchGetUser(b *testing.B, p *process) {
	client := connected(b, p)
	resp, err := client.CreateUser(b.Context(), newUser("chain", 0))
	if err != nil {
		b.Fatal(err)
	}
	spread(b, p, 64, func(ctx context.Context, client userv1connect.UserServiceClient, _ int) error {
		_, err := client.GetUser(ctx, &userv1.GetUserRequest{UserId: resp.GetUser().GetUserId()})
		return err
	})
}

var (
	tokenPattern = regexp.MustCompile(`Bearer ([A-Za-z0-9_.-]+)`)
	flagPattern  = regexp.MustCompile(`(--jwt-[a-z]+)[ =]'?([^ '\n\\]+)`)
)

// issueToken makes a token by userd token, and reads the flags from what it prints.
func issueToken(b *testing.B, dir string) (token string, flags []string) {
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
		b.Fatalf("userd token printed neither token nor flags:\n%s", out)
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

// serveBare serves the handlers over net/http and the store, and nothing else.
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
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(
		service.New(store, f, service.Options{Logger: slog.New(slog.DiscardHandler)}), connect.WithCompressMinBytes(1024),
	))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: &protocols} // without limits, which is what it is for
	return server.Serve(listener)
}
