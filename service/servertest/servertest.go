// Package servertest runs the complete server in a test: store, handlers and interceptors, on
// a loopback port, with a client for each protocol.
//
// At the end of the test the server is drained, and the test fails if goroutines leak.
package servertest

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

// Server is a running server with its clients.
type Server struct {
	t       testing.TB
	options options
	http1   *http.Client
	http2   *http.Client

	mu    sync.Mutex // protects the fields below, which Restart replaces
	addr  string
	admin string
	store user.Store
	stop  func() error
	local *memoryListener // nil: TCP
}

type options struct {
	config   []func(*server.Config)
	wrap     []func(user.Store) user.Store
	log      slog.Handler
	clock    func() time.Time
	tracing  *telemetry.Tracing
	listen   func() (net.Listener, error)
	path     string
	address  string
	parallel bool
	memory   bool
	services []server.Service
}

// Option configures a Server.
type Option func(*options)

// Config changes the configuration. The default is that of userd without flags.
func Config(change func(*server.Config)) Option {
	return func(o *options) { o.config = append(o.config, change) }
}

// Store wraps the store, for example to inject failures.
func Store(wrap func(user.Store) user.Store) Option {
	return func(o *options) { o.wrap = append(o.wrap, wrap) }
}

// Log sets the log handler. The default writes warnings to the test output.
func Log(handler slog.Handler) Option { return func(o *options) { o.log = handler } }

// Clock sets the clock of housekeeping.
func Clock(clock func() time.Time) Option { return func(o *options) { o.clock = clock } }

// Tracing enables tracing. It cannot be used with Restart.
func Tracing(tracing *telemetry.Tracing) Option {
	return func(o *options) { o.tracing = tracing }
}

// Admin enables the admin listener.
func Admin() Option {
	return Config(func(c *server.Config) { c.AdminListen = "127.0.0.1:0" })
}

// Listen sets the function that creates the listener at each start. Its address must be
// reachable by TCP.
func Listen(listen func() (net.Listener, error)) Option {
	return func(o *options) { o.listen = listen }
}

// Memory serves over in-memory connections, which only the clients of the server can reach. A test may run in a
// bubble of testing/synctest then: timeouts take no time.
func Memory() Option { return func(o *options) { o.memory = true } }

// Address sets the address of the store.
func Address(address string) Option { return func(o *options) { o.address = address } }

// Path sets the path of the database file.
func Path(path string) Option { return func(o *options) { o.path = path } }

// Services mounts additional services.
func Services(services ...server.Service) Option {
	return func(o *options) { o.services = append(o.services, services...) }
}

// Parallel disables the check for leaked goroutines, for parallel tests.
func Parallel() Option { return func(o *options) { o.parallel = true } }

// Start starts a server that runs until the test ends.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{t: t}
	for _, option := range opts {
		option(&s.options)
	}
	if s.options.path == "" {
		s.options.path = filepath.Join(t.TempDir(), "users.db")
	}
	if s.options.log == nil {
		s.options.log = slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})
	}
	others := goleak.IgnoreCurrent()
	s.http1, s.http2 = s.client(false), s.client(true)
	s.start()
	t.Cleanup(func() {
		s.closeIdle()
		s.Stop()
		if !s.options.parallel {
			verifyNoLeaks(t, others)
		}
	})
	return s
}

// verifyNoLeaks fails the test if goroutines other than others are left. It waits longer than
// goleak does, because goroutines of net/http end some time after their connections.
func verifyNoLeaks(t testing.TB, others goleak.Option) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		err := goleak.Find(others)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("leaked goroutines: %v", err)
			return
		}
	}
}

func (s *Server) start() {
	s.t.Helper()
	ctx := context.Background()
	log := slog.New(telemetry.Sanitize(s.options.log))
	metrics := telemetry.NewMetrics(telemetry.Build{Version: "test"})
	store, storage, err := server.OpenStore(ctx, server.StoreOptions{
		Address: cmp.Or(s.options.address, "sqlite:"+s.options.path), Logger: log, Metrics: metrics,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, wrap := range s.options.wrap {
		store = wrap(store)
	}
	config, err := server.Defaults()
	if err != nil {
		s.t.Fatal(err)
	}
	config.Listen, config.AdminListen = "127.0.0.1:0", ""
	config.AllowHost = []string{"userd.test"} // the host that clients use
	config.ShutdownTimeout = 5 * time.Second
	for _, change := range s.options.config {
		change(&config)
	}
	parts := server.Parts{
		Store: store, Storage: storage, Logger: log, Metrics: metrics, Tracing: s.options.tracing, Clock: s.options.clock,
		Services: s.options.services,
	}
	var local *memoryListener
	switch {
	case s.options.memory:
		local = newMemoryListener()
		parts.Listener = local
	case s.options.listen != nil:
		if parts.Listener, err = s.options.listen(); err != nil {
			s.t.Fatal(err)
		}
	}
	running, err := server.New(ctx, config, parts)
	if err != nil {
		_ = store.Close()
		s.t.Fatal(err)
	}
	serving, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- running.Run(serving) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr, s.store, s.local = running.Addr().String(), store, local
	if admin := running.AdminAddr(); admin != nil {
		s.admin = admin.String()
	}
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
}

// Stop drains the server and waits for it. An error of the shutdown fails the test. Further
// calls do nothing.
func (s *Server) Stop() {
	s.t.Helper()
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if err := stop(); err != nil {
		s.t.Errorf("shutdown: %v", err)
	}
}

// Shutdown drains the server, waits for it, and returns the error of the shutdown.
func (s *Server) Shutdown() error {
	s.mu.Lock()
	stop := s.stop
	s.stop = func() error { return nil }
	s.mu.Unlock()
	return stop()
}

// Restart stops the server and starts it again with the same store. The port changes; existing
// clients use the new one.
func (s *Server) Restart() {
	s.t.Helper()
	s.closeIdle()
	s.Stop()
	s.start()
}

// Addr returns the current address of the server.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// AdminURL returns the base URL of the admin listener, see Admin.
func (s *Server) AdminURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.admin
}

// URL returns the current base URL of the server.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Store returns the current store of the server.
func (s *Server) Store() user.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store
}

// HTTP returns an HTTP/1.1 or h2c client that sends all requests to the server, regardless of
// the host.
func (s *Server) HTTP(http2 bool) *http.Client {
	if http2 {
		return s.http2
	}
	return s.http1
}

func (s *Server) client(http2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: &http.Transport{
		Protocols:   &protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx) },
	}}
}

// Dial connects to the server.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	local, addr := s.local, s.addr
	s.mu.Unlock()
	if local != nil {
		return local.dial(ctx)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", addr)
}

func (s *Server) closeIdle() {
	s.http1.CloseIdleConnections()
	s.http2.CloseIdleConnections()
}

// Protocol is a protocol and encoding of RPCs.
type Protocol struct {
	Name    string
	HTTP2   bool
	Options []connect.ClientOption
}

// Protocols returns all protocols that the Connect client supports.
func Protocols() []Protocol {
	json, get := connect.WithProtoJSON(), connect.WithHTTPGet()
	grpc, web := connect.WithGRPC(), connect.WithGRPCWeb()
	return []Protocol{
		{"connect over HTTP/1.1", false, nil},
		{"connect over HTTP/2", true, nil},
		{"connect with JSON", false, []connect.ClientOption{json}},
		{"connect with GET", false, []connect.ClientOption{get}},
		{"connect with GET and JSON", true, []connect.ClientOption{get, json}},
		{"gRPC", true, []connect.ClientOption{grpc}},
		{"gRPC with JSON", true, []connect.ClientOption{grpc, json}},
		{"gRPC-Web over HTTP/1.1", false, []connect.ClientOption{web}},
		{"gRPC-Web over HTTP/2", true, []connect.ClientOption{web}},
	}
}

// Client returns a client for the protocol. It remains usable after Restart.
func (s *Server) Client(p Protocol) userv1connect.UserServiceClient {
	return userv1connect.NewUserServiceClient(s.HTTP(p.HTTP2), "http://userd.test", p.Options...)
}

// GRPC returns a gRPC client, which supports all kinds of streams.
func (s *Server) GRPC() userv1connect.UserServiceClient {
	return s.Client(Protocol{HTTP2: true, Options: []connect.ClientOption{connect.WithGRPC()}})
}

// Each runs a subtest for each protocol.
func (s *Server) Each(t *testing.T, part func(*testing.T, userv1connect.UserServiceClient, Protocol)) {
	t.Helper()
	for _, p := range Protocols() {
		t.Run(p.Name, func(t *testing.T) { part(t, s.Client(p), p) })
	}
}
