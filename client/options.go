package client

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Protocol is a wire protocol of RPCs.
type Protocol int

// The protocols. GRPC and bidirectional streams need HTTP/2 from end to end; the others pass HTTP/1.1 proxies.
const (
	GRPC Protocol = iota
	GRPCWeb
	Connect
)

// Balancing is the choice among the healthy nodes.
type Balancing int

const (
	// RoundRobin takes the nodes in turn.
	RoundRobin Balancing = iota
	// LeastLoaded takes the node with the fewest calls and streams of this client.
	LeastLoaded
)

// Option configures a Client.
type Option func(*config)

type config struct {
	protocol     Protocol
	http1        bool
	balancing    Balancing
	connections  int
	keepalive    time.Duration
	pingTimeout  time.Duration
	timeout      time.Duration
	idleTimeout  time.Duration
	retry        RetryPolicy
	breaker      BreakerPolicy
	lookup       time.Duration
	resolver     func(ctx context.Context, host string) ([]string, error)
	gzipBytes    int
	tls          *tls.Config
	tokens       TokenSource
	registerer   prometheus.Registerer
	tracing      trace.TracerProvider
	interceptors []connect.Interceptor
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	logger       *slog.Logger
	random       func() float64
	now          func() time.Time
}

func newConfig(options []Option) *config {
	c := &config{
		connections: 1,
		keepalive:   10 * time.Second,
		pingTimeout: time.Second,
		timeout:     10 * time.Second,
		idleTimeout: 45 * time.Second,
		retry:       RetryPolicy{},
		lookup:      30 * time.Second,
		resolver:    net.DefaultResolver.LookupHost,
		gzipBytes:   1024,
		logger:      slog.New(slog.DiscardHandler),
		random:      rand.Float64,
		now:         time.Now,
	}
	c.dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	for _, option := range options {
		option(c)
	}
	c.retry.Attempts = defaulted(c.retry.Attempts, 3)
	c.retry.Backoff = defaulted(c.retry.Backoff, 100*time.Millisecond)
	c.retry.MaxBackoff = defaulted(c.retry.MaxBackoff, 5*time.Second)
	c.breaker.Failures = defaulted(c.breaker.Failures, 5)
	c.breaker.Open = defaulted(c.breaker.Open, time.Second)
	return c
}

func defaulted[T int | time.Duration](value, fallback T) T {
	if value <= 0 {
		return fallback
	}
	return value
}

// WithProtocol sets the protocol. Default: GRPC.
func WithProtocol(protocol Protocol) Option { return func(c *config) { c.protocol = protocol } }

// WithHTTP1 uses HTTP/1.1 instead of HTTP/2, for proxies without HTTP/2. It needs the protocol Connect or GRPCWeb, and
// SyncUserStatus is not available.
func WithHTTP1() Option { return func(c *config) { c.http1 = true } }

// WithBalancing sets the choice among the nodes. Default: RoundRobin.
func WithBalancing(balancing Balancing) Option { return func(c *config) { c.balancing = balancing } }

// WithConnections sets the maximum number of connections to a node, to which calls and streams are distributed in turn.
// Default: 1, which the calls and streams of the client share; with WithHTTP1: 100, one for each call or stream.
// Calls beyond the stream limit of the server (1,000 on each connection) wait.
func WithConnections(n int) Option { return func(c *config) { c.connections = max(1, n) } }

// WithKeepalive sets the time without received data after which a connection is checked with a ping, and the timeout
// of the response, after which the connection is closed. Default: 10 s and 1 s. The server permits a ping each 5 s. With
// idle 0 nothing is sent, and a connection whose peer is silent is used until the operating system closes it.
func WithKeepalive(idle, timeout time.Duration) Option {
	return func(c *config) { c.keepalive, c.pingTimeout = idle, timeout }
}

// WithTimeout sets the deadline of unary calls whose context has none, including retries. Default: 10 s; 0: none.
func WithTimeout(timeout time.Duration) Option { return func(c *config) { c.timeout = timeout } }

// WithRetry sets the policy of retries and reconnections. Fields with the value 0 keep their defaults.
func WithRetry(policy RetryPolicy) Option { return func(c *config) { c.retry = policy } }

// WithBreaker sets the policy of the circuit breaker of each node. Fields with the value 0 keep their defaults.
func WithBreaker(policy BreakerPolicy) Option { return func(c *config) { c.breaker = policy } }

// WithLookup sets the interval at which the names of dns+http and dns+https targets are looked up again. Default: 30 s.
func WithLookup(interval time.Duration) Option { return func(c *config) { c.lookup = interval } }

// WithGzip sets the size in bytes from which request messages are compressed. Default: 1024; negative: never.
func WithGzip(minBytes int) Option { return func(c *config) { c.gzipBytes = minBytes } }

// WithTLS sets the TLS configuration of https targets, with client certificates if the server requests them, see
// LoadTLS. Default: the authorities of the system.
func WithTLS(settings *tls.Config) Option { return func(c *config) { c.tls = settings } }

// WithTokens sends a bearer token of the source with each call.
func WithTokens(source TokenSource) Option { return func(c *config) { c.tokens = source } }

// WithMetrics registers metrics of calls: grpc_client_started_total, grpc_client_handled_total,
// grpc_client_msg_sent_total, grpc_client_msg_received_total, grpc_client_handling_seconds and
// grpc_client_retries_total. Each attempt is a call.
func WithMetrics(registerer prometheus.Registerer) Option {
	return func(c *config) { c.registerer = registerer }
}

// WithTracing makes a span for each attempt (otelconnect) and sends its context to the server.
func WithTracing(provider trace.TracerProvider) Option {
	return func(c *config) { c.tracing = provider }
}

// WithInterceptors adds interceptors, which are called for each attempt.
func WithInterceptors(interceptors ...connect.Interceptor) Option {
	return func(c *config) { c.interceptors = append(c.interceptors, interceptors...) }
}

// WithDialer sets the function that makes connections, for example through a proxy. network is "tcp" or "unix".
func WithDialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(c *config) { c.dial = dial }
}

// WithLogger logs changes of the health of nodes, and reconnections of streams. Default: nothing is logged.
func WithLogger(logger *slog.Logger) Option { return func(c *config) { c.logger = logger } }
