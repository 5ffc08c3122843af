package http2

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
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
}

// server is the HTTP/2 part of an http.Server.
type server struct {
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
	shutdown bool
}

// Configure makes an http.Server use this package for HTTP/2, over TLS and with prior knowledge. It must be called
// before the server is used, with all other fields set. It sets TLSNextProto, and Protocols if it is nil. It
// uses the fields of http.Server and of http.HTTP2Config, except CountError and those of clients.
func Configure(hs *http.Server, opts Options) {
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
}

func newServer(hs *http.Server, opts Options) *server {
	config := hs.HTTP2
	if config == nil {
		config = new(http.HTTP2Config)
	}
	idle := hs.IdleTimeout
	if idle == 0 {
		idle = hs.ReadTimeout
	}
	s := &server{
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
func (s *server) now() monotonic { return time.Since(s.start) + 1 }

func (s *server) serveTLS(_ *http.Server, c *tls.Conn, h http.Handler) {
	state := c.ConnectionState()
	s.serve(c, &state, h, true)
}

// serveUnencrypted serves a connection of which net/http has read the preface. net/http passes it in the form
// of a *tls.Conn.
func (s *server) serveUnencrypted(_ *http.Server, c *tls.Conn, h http.Handler) {
	inner, ok := c.NetConn().(interface{ UnencryptedNetConn() net.Conn })
	if !ok {
		_ = c.NetConn().Close() // not called by net/http
		return
	}
	s.serve(inner.UnencryptedNetConn(), nil, h, false)
}

func (s *server) serve(nc net.Conn, state *tls.ConnectionState, h http.Handler, preface bool) {
	ctx := context.Background()
	if base, ok := h.(interface{ BaseContext() context.Context }); ok {
		ctx = base.BaseContext()
	}
	c := s.newConn(nc, state, h)
	c.ctx, c.cancel = context.WithCancel(context.WithValue(ctx, http.LocalAddrContextKey, nc.LocalAddr()))
	if !s.add(c) {
		_ = nc.Close()
		return
	}
	c.serve(preface)
}

func (s *server) newConn(nc net.Conn, state *tls.ConnectionState, h http.Handler) *conn {
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
	c.in = input{src: nc, maxFrame: s.maxFrame}
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
	c.budget.limits, c.budget.now = c.hooks.Frames, s.now
	c.lastRead.Store(int64(c.opened))
	c.timer = time.AfterFunc(time.Hour, c.onTimer)
	return c
}

// add registers a connection. It returns false after a shutdown.
func (s *server) add(c *conn) bool {
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

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.workers.connClosed()
}

// shutDown starts the graceful shutdown of all connections.
func (s *server) shutDown() {
	s.mu.Lock()
	s.shutdown = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Shutdown()
	}
}

func (s *server) connState(c *conn, state http.ConnState) {
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
	stack := make([]byte, 64<<10)
	stack = stack[:runtime.Stack(stack, false)]
	const format = "http2: panic serving %v: %v\n%s"
	if log := c.srv.http.ErrorLog; log != nil {
		log.Printf(format, c.remoteAddr, value, stack)
		return
	}
	//nolint:sloglint // net/http logs to the default logger too
	slog.Error("http2: panic serving request", slog.String("peer", c.remoteAddr), slog.Any("panic", value), slog.String("stack", string(stack)))
}
