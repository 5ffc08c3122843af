package client_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
	"github.com/yourorg/userservice/service/servertest"
)

// faultyNet makes connections that fail.
type faultyNet struct {
	dial func(context.Context) (net.Conn, error)

	mu     sync.Mutex
	random *rand.Rand
	left   int // connections that still fail
	cuts   int // connections that failed
	// Bytes in both directions after which a connection fails: closed, or half-open, which means silent.
	minBytes, maxBytes int
	halfOpen           bool
}

func newFaultyNet(t *testing.T, s *servertest.Server, failures, minBytes, maxBytes int) *faultyNet {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &faultyNet{dial: s.Dial, random: rand.New(rand.NewPCG(seed, 0)), left: failures, minBytes: minBytes, maxBytes: maxBytes}
}

// failures returns how many connections have failed.
func (f *faultyNet) failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cuts
}

func (f *faultyNet) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := f.dial(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return conn, nil
	}
	f.left--
	c := &faultyConn{Conn: conn, net: f, halfOpen: f.halfOpen, closed: make(chan struct{})}
	c.bytes.Store(int64(f.minBytes + f.random.IntN(f.maxBytes-f.minBytes)))
	return c, nil
}

// faultyConn fails after a number of bytes, also within a frame.
type faultyConn struct {
	net.Conn

	net      *faultyNet
	bytes    atomic.Int64 // left
	failed   sync.Once
	halfOpen bool
	closed   chan struct{}
	close    sync.Once
}

// allowed returns how many of n bytes pass.
func (c *faultyConn) allowed(n int) int {
	left := c.bytes.Add(-int64(n)) + int64(n)
	if left >= int64(n) {
		return n
	}
	c.failed.Do(func() {
		c.net.mu.Lock()
		c.net.cuts++
		c.net.mu.Unlock()
	})
	return int(max(0, left))
}

func (c *faultyConn) fail(n int) (int, error) {
	if c.halfOpen {
		<-c.closed // silence until this end closes
	}
	_ = c.Conn.Close()
	return n, net.ErrClosed
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if passed := c.allowed(n); passed < n {
		return c.fail(0)
	}
	return n, err
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if passed := c.allowed(len(p)); passed < len(p) {
		n, _ := c.Conn.Write(p[:passed])
		if c.halfOpen {
			return len(p), nil // swallowed
		}
		return c.fail(n)
	}
	return c.Conn.Write(p)
}

func (c *faultyConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// fast retries without long delays.
func fast() client.Option {
	return func(c *client.Config) {
		client.WithRetry(client.RetryPolicy{Attempts: 10, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})(c)
		client.WithBreaker(client.BreakerPolicy{Failures: 50, Open: time.Millisecond})(c)
	}
}

// newFaultyClient returns a client with failing connections.
func newFaultyClient(t *testing.T, f *faultyNet, options ...client.Option) *client.Client {
	t.Helper()
	options = append([]client.Option{client.WithDialer(f.Dial), fast(), client.WithKeepalive(200*time.Millisecond, 200*time.Millisecond)}, options...)
	c, err := client.New([]string{"http://userd.test"}, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// plant is an interceptor that makes planted faults of the client: it changes the messages that are sent, and loses
// messages that are received. stream counts the streams, from 1.
type plant struct {
	change func(stream int64, message any)
	lose   func(stream int64, message any) bool

	streams atomic.Int64
}

func (p *plant) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (p *plant) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (p *plant) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &plantedConn{StreamingClientConn: next(ctx, spec), plant: p, stream: p.streams.Add(1)}
	}
}

type plantedConn struct {
	connect.StreamingClientConn

	plant  *plant
	stream int64
}

func (p *plantedConn) Send(message any) error {
	if message != nil && p.plant.change != nil {
		p.plant.change(p.stream, message)
	}
	return p.StreamingClientConn.Send(message)
}

func (p *plantedConn) Receive(message any) error {
	err := p.StreamingClientConn.Receive(message)
	if err == nil && p.plant.lose != nil && p.plant.lose(p.stream, message) {
		return p.StreamingClientConn.Receive(message)
	}
	return err
}

// mutedNet makes connections whose traffic can be held back.
type mutedNet struct {
	dial func(context.Context) (net.Conn, error)

	mu        sync.Mutex
	conns     []*mutedConn
	swallowed chan struct{} // closed when a write was swallowed
}

func (m *mutedNet) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &mutedConn{Conn: conn, net: m, closed: make(chan struct{})}
	m.conns = append(m.conns, c)
	return c, nil
}

// mute holds back what the server sends on the present connections and, unless forward is set, what it gets.
func (m *mutedNet) mute(forward bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.swallowed = make(chan struct{})
	for _, c := range m.conns {
		c.reads.Store(true)
		c.writes.Store(!forward)
	}
}

// cut closes the muted connections.
func (m *mutedNet) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
}

type mutedConn struct {
	net.Conn

	net           *mutedNet
	reads, writes atomic.Bool
	closed        chan struct{}
	close         sync.Once
	first         sync.Once
}

func (c *mutedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.reads.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *mutedConn) Write(p []byte) (int, error) {
	if c.writes.Load() {
		c.first.Do(func() { close(c.net.swallowed) })
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *mutedConn) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// slowNet makes connections that pass 100 bytes at a time, each 100 ms, in the bubble of a test.
type slowNet struct {
	dial  func(context.Context) (net.Conn, error)
	conns atomic.Int64
}

func (s *slowNet) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := s.dial(ctx)
	s.conns.Add(1)
	return slowConn{conn}, err
}

type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return c.Conn.Read(p[:min(len(p), 100)])
}

// lostResponses loses the first responses of client streams, whose items the server has applied.
type lostResponses struct{ left atomic.Int64 }

func (l *lostResponses) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (l *lostResponses) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (l *lostResponses) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if spec.StreamType != connect.StreamTypeClient {
			return conn
		}
		return &lossyConn{conn, l}
	}
}

type lossyConn struct {
	connect.StreamingClientConn

	lost *lostResponses
}

func (c *lossyConn) Receive(message any) error {
	err := c.StreamingClientConn.Receive(message)
	if err == nil && c.lost.left.Add(-1) >= 0 {
		return connect.NewError(connect.CodeUnavailable, errors.New("response lost"))
	}
	return err
}
