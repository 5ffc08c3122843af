// Package servertest runs the whole server within a test: the real store in a folder
// of the test's own, the real handlers and interceptors, on a port of the loopback
// interface, with a client for each protocol.
//
// When the test ends everything is closed, in good order, and the test fails if a
// goroutine is left.
package servertest

import (
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

// Server is a running server and what its test needs of it.
type Server struct {
	t       testing.TB
	options options
	http1   *http.Client
	http2   *http.Client

	mu    sync.Mutex // guards what Restart replaces
	addr  string
	admin string
	store user.Store
	stop  func() error
}

type options struct {
	config   []func(*server.Config)
	wrap     []func(user.Store) user.Store
	log      slog.Handler
	clock    func() time.Time
	tracing  *telemetry.Tracing
	listen   func() (net.Listener, error)
	path     string
	parallel bool
	services []server.Service
}

// Option changes how the server is set up.
type Option func(*options)

// Config changes the configuration, which otherwise is that of userd without flags.
func Config(change func(*server.Config)) Option {
	return func(o *options) { o.config = append(o.config, change) }
}

// Store puts something between the server and its store, such as a fault.
func Store(wrap func(user.Store) user.Store) Option {
	return func(o *options) { o.wrap = append(o.wrap, wrap) }
}

// Log sends the server's log to the handler in place of the test's own output.
func Log(handler slog.Handler) Option { return func(o *options) { o.log = handler } }

// Clock sets the clock of the housekeeping.
func Clock(clock func() time.Time) Option { return func(o *options) { o.clock = clock } }

// Tracing makes spans, which otherwise nobody does. It lasts for one start.
func Tracing(tracing *telemetry.Tracing) Option {
	return func(o *options) { o.tracing = tracing }
}

// Admin gives the server a port for operators, which otherwise it has not.
func Admin() Option {
	return Config(func(c *server.Config) { c.AdminListen = "127.0.0.1:0" })
}

// Listen gives the server its listeners, one a start, in place of a port of the
// loopback interface. Its addresses must be such that TCP can dial them.
func Listen(listen func() (net.Listener, error)) Option {
	return func(o *options) { o.listen = listen }
}

// Path names the file of the store. It is for tests that look into it.
func Path(path string) Option { return func(o *options) { o.path = path } }

// Services mounts further services beside the server's own.
func Services(services ...server.Service) Option {
	return func(o *options) { o.services = append(o.services, services...) }
}

// Parallel is for tests that run beside others, whose goroutines cannot be told from
// this one's: it leaves out the check that none is left.
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
			verifyNoneLeft(t, others)
		}
	})
	return s
}

// verifyNoneLeft fails the test if goroutines are left beside the others. Those of
// net/http end a little after their connections have; on a busy machine that may
// take longer than goleak itself waits.
func verifyNoneLeft(t testing.TB, others goleak.Option) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for {
		err := goleak.Find(others)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("goroutines are left: %v", err)
			return
		}
	}
}

func (s *Server) start() {
	s.t.Helper()
	ctx := context.Background()
	log := slog.New(telemetry.Plain(s.options.log))
	metrics := telemetry.NewMetrics(telemetry.Build{Version: "test"})
	store, storage, err := server.OpenStore(ctx, "sqlite:"+s.options.path, false, log, metrics)
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
	config.AllowHost = []string{"userd.test"} // as the clients call it
	config.ShutdownTimeout = 5 * time.Second
	for _, change := range s.options.config {
		change(&config)
	}
	parts := server.Parts{
		Store: store, Storage: storage, Logger: log, Metrics: metrics, Tracing: s.options.tracing, Clock: s.options.clock,
		Services: s.options.services,
	}
	if s.options.listen != nil {
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
	s.addr, s.store = running.Addr().String(), store
	if admin := running.AdminAddr(); admin != nil {
		s.admin = admin.String()
	}
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
}

// Stop stops the server in good order and returns when nothing of it is left. A
// server that has stopped stays so; the error of the stop fails the test.
func (s *Server) Stop() {
	s.t.Helper()
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if err := stop(); err != nil {
		s.t.Errorf("stop the server: %v", err)
	}
}

// Restart stops the server and starts it again over the same store. It gets another
// port; the clients find it.
func (s *Server) Restart() {
	s.t.Helper()
	s.closeIdle()
	s.Stop()
	s.start()
}

// Addr is where the server listens at present.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// AdminURL is the base of the addresses for operators, see Admin.
func (s *Server) AdminURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.admin
}

// URL is the base of the server's addresses at present.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Store is the server's store at present.
func (s *Server) Store() user.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store
}

// HTTP returns a client for plain requests, over HTTP/1.1 or HTTP/2. Its requests to
// any host go to the server.
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
		Protocols: &protocols,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, s.Addr())
		},
	}}
}

func (s *Server) closeIdle() {
	s.http1.CloseIdleConnections()
	s.http2.CloseIdleConnections()
}

// Protocol is a way to call the service.
type Protocol struct {
	Name    string
	HTTP2   bool
	Options []connect.ClientOption
}

// Protocols are all ways to call the service that one client covers.
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

// Client returns a client for the protocol. It goes on working after a Restart.
func (s *Server) Client(p Protocol) userv1connect.UserServiceClient {
	return userv1connect.NewUserServiceClient(s.HTTP(p.HTTP2), "http://userd.test", p.Options...)
}

// GRPC returns a client over gRPC, by which every kind of stream works.
func (s *Server) GRPC() userv1connect.UserServiceClient {
	return s.Client(Protocol{HTTP2: true, Options: []connect.ClientOption{connect.WithGRPC()}})
}

// Each runs a part of the test for each protocol, with its client.
func (s *Server) Each(t *testing.T, part func(*testing.T, userv1connect.UserServiceClient, Protocol)) {
	t.Helper()
	for _, p := range Protocols() {
		t.Run(p.Name, func(t *testing.T) { part(t, s.Client(p), p) })
	}
}
