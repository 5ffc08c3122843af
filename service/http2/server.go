package http2

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2/hpack"
)

const (
	defaultMaxStreams   = 250
	defaultStreamWindow = 64 << 10
	defaultConnWindow   = 1 << 20
	// usualFields is the number of fields for which the header list size has room beyond
	// http.Server.MaxHeaderBytes, as in net/http.
	usualFields = 10
)

// Options are the settings that http.Server does not have. The zero value sets no limits of its own.
type Options struct {
	// Frames limits frames that do not advance any stream.
	Frames FrameLimits
	// MaxHeaderFields is the maximum number of fields of a header list. 0: no limit.
	MaxHeaderFields int
	// MaxAge closes a connection gracefully at that age, with a jitter of 10 %. 0: no limit.
	MaxAge time.Duration
	// Hooks, if set, returns the hooks of a connection.
	Hooks func(net.Conn, Control) Hooks
}

// Control ends a connection. Its methods do not block.
type Control interface {
	// Shutdown sends GOAWAY. The connection ends when its streams have ended.
	Shutdown()
	// End sends GOAWAY and ends the connection with all its streams.
	End(CloseReason)
}

// Hooks are the limits and callbacks of one connection.
type Hooks struct {
	Frames  FrameLimits       // in place of Options.Frames
	Meter   Meter             // nil: memory is not accounted
	OnClose func(CloseReason) // called when the connection exceeded a limit; nil: none

	// Context, if set, is the base context of requests, and detaches the connection: it is served on a goroutine of its own,
	// so that net/http releases its 8 KiB of buffers. The goroutine of net/http then closes the net.Conn, which
	// must ignore one call of Close. http.Server tracks a detached connection no longer: see Server.Wait and Server.Close.
	// http.Server.ConnState gets http.StateClosed twice: when net/http has released the connection, and at its end.
	Context context.Context //nolint:containedctx // handed over
	// Raw, if set, returns the file of the connection, on which reads bypass the net.Conn; nil: not now. AfterRead, if set, is called
	// after each of them.
	Raw       func() syscall.RawConn
	AfterRead func()
	// Accepted, if set, returns a number that changes when the peer accepts a part of a write of the net.Conn.
	Accepted func() int64
	// ShortReads says that reads of a few bytes cost no system call, as over TLS.
	ShortReads bool
}

// Server is the HTTP/2 part of an http.Server.
type Server struct {
	http *http.Server
	opts Options

	anyCipherSuite           bool
	maxStreams               int
	maxFrame                 uint32
	maxHeaderList            int64
	maxHeaderFields          int
	streamWindow, connWindow int64

	readTimeout, writeTimeout time.Duration // of requests and responses
	headerTimeout             time.Duration
	idleTimeout               time.Duration
	pingAfter, pingTimeout    time.Duration
	stallTimeout, tick        time.Duration

	start   time.Time
	date    dateCache
	workers workers

	mu       sync.Mutex
	conns    map[*conn]struct{}
	empty    chan struct{} // closed when there are no connections; nil: Wait is not called
	shutdown bool
}

// Configure makes an http.Server use this package for HTTP/2, over TLS and with prior knowledge. It must be called
// before the server is used, with all other fields set. It sets TLSNextProto, and Protocols if it is nil. It
// uses the fields of http.Server and of http.HTTP2Config, except CountError and those of clients.
func Configure(hs *http.Server, opts Options) *Server {
	s := newServer(hs, opts)
	if hs.Protocols == nil {
		hs.Protocols = new(http.Protocols)
		hs.Protocols.SetHTTP1(true)
		hs.Protocols.SetHTTP2(true)
	}
	if hs.TLSNextProto == nil {
		hs.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
	}
	hs.TLSNextProto["h2"] = s.serveTLS
	hs.TLSNextProto["unencrypted_http2"] = s.serveUnencrypted
	hs.RegisterOnShutdown(s.shutDown)
	return s
}

func newServer(hs *http.Server, opts Options) *Server {
	config := hs.HTTP2
	if config == nil {
		config = new(http.HTTP2Config)
	}
	idle := hs.IdleTimeout
	if idle == 0 {
		idle = hs.ReadTimeout
	}
	s := &Server{
		http: hs, opts: opts, start: time.Now(), conns: make(map[*conn]struct{}),
		anyCipherSuite:  config.PermitProhibitedCipherSuites,
		maxStreams:      cmp.Or(max(config.MaxConcurrentStreams, 0), defaultMaxStreams),
		maxFrame:        uint32(min(max(config.MaxReadFrameSize, minMaxFrame), maxMaxFrame)),
		maxHeaderList:   int64(cmp.Or(max(hs.MaxHeaderBytes, 0), http.DefaultMaxHeaderBytes)) + usualFields*fieldOverhead,
		maxHeaderFields: opts.MaxHeaderFields,
		streamWindow:    int64(cmp.Or(max(config.MaxReceiveBufferPerStream, 0), defaultStreamWindow)),
		connWindow:      max(int64(cmp.Or(max(config.MaxReceiveBufferPerConnection, 0), defaultConnWindow)), initialWindow),
		readTimeout:     hs.ReadTimeout,
		writeTimeout:    hs.WriteTimeout,
		headerTimeout:   cmp.Or(hs.ReadHeaderTimeout, hs.ReadTimeout),
		idleTimeout:     idle,
		pingAfter:       config.SendPingTimeout,
		pingTimeout:     cmp.Or(config.PingTimeout, 15*time.Second),
		stallTimeout:    config.WriteByteTimeout,
	}
	s.tick = time.Second
	if s.stallTimeout > 0 {
		s.tick = s.stallTimeout / stallChecks
	}
	s.workers.now = s.now
	return s
}

// now returns the time since the start of the server, at least 1.
func (s *Server) now() monotonic { return time.Since(s.start) + 1 }

func (s *Server) serveTLS(_ *http.Server, c *tls.Conn, h http.Handler) {
	state := c.ConnectionState()
	s.serve(c, &state, h, true)
}

// serveUnencrypted serves a connection of which net/http has read the preface. net/http passes it in the form
// of a *tls.Conn.
func (s *Server) serveUnencrypted(_ *http.Server, c *tls.Conn, h http.Handler) {
	inner, ok := c.NetConn().(interface{ UnencryptedNetConn() net.Conn })
	if !ok {
		_ = c.NetConn().Close() // not called by net/http
		return
	}
	s.serve(inner.UnencryptedNetConn(), nil, h, false)
}

func (s *Server) serve(nc net.Conn, state *tls.ConnectionState, h http.Handler, preface bool) {
	c := s.newConn(nc, state, h)
	ctx := c.hooks.Context
	detached := ctx != nil
	if base, ok := h.(interface{ BaseContext() context.Context }); ok && !detached {
		ctx = base.BaseContext()
	}
	if ctx == nil {
		ctx = context.Background()
	}
	c.ctx, c.cancel = context.WithCancel(context.WithValue(ctx, http.LocalAddrContextKey, nc.LocalAddr()))
	switch {
	case !s.add(c):
		_ = nc.Close()
		if detached {
			s.connState(c, http.StateClosed)
		}
	case detached:
		go func() {
			defer s.remove(c)
			defer s.connState(c, http.StateClosed)
			defer func() { _ = nc.Close() }()
			defer func() {
				if v := recover(); v != nil {
					s.logPanic(c.remoteAddr, v)
				}
			}()
			c.serve(preface)
		}()
	default:
		defer s.remove(c)
		c.serve(preface)
	}
}

func (s *Server) newConn(nc net.Conn, state *tls.ConnectionState, h http.Handler) *conn {
	c := &conn{
		srv: s, net: nc, handler: h, tlsState: state, opened: s.now(),
		streams: make(map[uint32]*stream), recvWindow: initialWindow, sendWindow: initialWindow, peerInitial: initialWindow,
		peerMaxFrame: minMaxFrame,
	}
	if addr := nc.RemoteAddr(); addr != nil {
		c.remoteAddr = addr.String()
	}
	if s.opts.MaxAge > 0 {
		c.maxAge = s.opts.MaxAge*9/10 + rand.N(s.opts.MaxAge/5+1) //nolint:gosec // jitter
	}
	c.decoder = hpack.NewDecoder(maxEncoderTable, c.field)
	c.encoder = hpack.NewEncoder(headerWriter{c})
	c.changed.L = &c.mu
	c.hooks = Hooks{Frames: s.opts.Frames}
	if s.opts.Hooks != nil {
		c.hooks = s.opts.Hooks(nc, c)
	}
	if c.hooks.Meter == nil {
		c.hooks.Meter = noMeter{}
	}
	c.in.init(c)
	c.budget.limits, c.budget.now = c.hooks.Frames, s.now
	c.lastRead.Store(int64(c.opened))
	c.timer = time.AfterFunc(time.Hour, c.onTimer)
	return c
}

// add registers a connection. It returns false after a shutdown.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutdown {
		c.timer.Stop()
		c.cancel()
		return false
	}
	s.conns[c] = struct{}{}
	s.workers.connOpened()
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.empty != nil && len(s.conns) == 0 {
		close(s.empty)
		s.empty = nil
	}
	s.workers.connClosed()
}

// Wait waits until all connections have ended, also the detached ones. Call it after http.Server.Shutdown.
func (s *Server) Wait(ctx context.Context) error {
	s.mu.Lock()
	if s.empty == nil && len(s.conns) > 0 {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	if empty == nil {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all connections, also the detached ones.
func (s *Server) Close() {
	for _, c := range s.stop() {
		c.mu.Lock()
		c.abort()
		c.mu.Unlock()
	}
}

// stop refuses further connections and returns the present ones.
func (s *Server) stop() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutdown = true
	return slices.Collect(maps.Keys(s.conns))
}

// shutDown starts the graceful shutdown of all connections.
func (s *Server) shutDown() {
	for _, c := range s.stop() {
		c.Shutdown()
	}
}

func (s *Server) connState(c *conn, state http.ConnState) {
	if s.http.ConnState != nil {
		s.http.ConnState(c.net, state)
	}
}

// serve runs the handler of a stream.
func (st *stream) serve() {
	c := st.conn
	returned := false
	defer func() {
		if !returned {
			st.panicked(recover())
		}
		if st.w.observer != nil {
			st.w.observer.Sent()
		}
		c.mu.Lock()
		c.handlerEnded()
		c.mu.Unlock()
		st.cancel()
		if st.req.MultipartForm != nil {
			_ = st.req.MultipartForm.RemoveAll() // as in net/http
		}
		c.flush()
	}()
	st.handler.ServeHTTP(&st.w, st.req)
	returned = true
	st.w.finish()
}

// panicked resets the stream of a handler that panicked.
func (st *stream) panicked(value any) {
	c := st.conn
	c.mu.Lock()
	st.w.ended = true
	c.resetStream(st, errInternal, errResetByUs)
	c.mu.Unlock()
	st.w.releaseBuffer()
	if err, ok := value.(error); ok && errors.Is(err, http.ErrAbortHandler) || value == nil {
		return
	}
	c.srv.logPanic(c.remoteAddr, value)
}

func (s *Server) logPanic(peer string, value any) {
	stack := make([]byte, 64<<10)
	stack = stack[:runtime.Stack(stack, false)]
	const format = "http2: panic serving %v: %v\n%s"
	if log := s.http.ErrorLog; log != nil {
		log.Printf(format, peer, value, stack)
		return
	}
	//nolint:sloglint // net/http logs to the default logger too
	slog.Error("http2: panic serving request", slog.String("peer", peer), slog.Any("panic", value), slog.String("stack", string(stack)))
}
