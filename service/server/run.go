package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/yourorg/userservice/service/admin"
	"github.com/yourorg/userservice/service/browser"
	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/forwarded"
	"github.com/yourorg/userservice/service/health"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/janitor"
	"github.com/yourorg/userservice/service/limits"
	"github.com/yourorg/userservice/service/store/traced"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// Parts are the dependencies of a server.
type Parts struct {
	Store   user.Store         // closed by Run
	Storage Storage            // properties of Store
	Logger  *slog.Logger       // required
	Metrics *telemetry.Metrics // for one server only; nil: new metrics
	Tracing *telemetry.Tracing // shut down by Run; nil: disabled
	// Listener and AdminListener, if set, replace the configured addresses.
	Listener, AdminListener net.Listener
	Clock                   func() time.Time // for housekeeping; nil: time.Now
	Services                []Service        // additional services on the public listener
}

// Server is a listening server. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	store    user.Store
	metrics  *telemetry.Metrics
	tracing  *telemetry.Tracing
	callers  *callers
	limits   *limits.Limits
	proxies  forwarded.Proxies
	feed     *feed.Feed
	health   *health.Health
	clock    func() clock.Status // nil: unknown
	services []Service
	guard    *transport.Guard
	observer *intercept.Observer
	public   endpoint[*transport.Server]
	admin    endpoint[*http.Server] // zero if disabled

	refuse browser.Refusal // for hosts and origins that are not allowed

	connections *transport.Connections // of the public listener
	endCalls    context.CancelCauseFunc

	background sync.WaitGroup
	stop       context.CancelFunc // stops the background work
}

// endpoint is a listener and its HTTP server.
type endpoint[S any] struct {
	listener net.Listener
	server   S
}

// New returns a listening server. Connections wait until Run serves them. If New fails, the caller must
// close the store and the tracing.
func New(ctx context.Context, cfg Config, parts Parts) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Clock == nil {
		parts.Clock = time.Now
	}
	if parts.Metrics == nil {
		parts.Metrics = telemetry.NewMetrics(telemetry.Build{})
	}
	if parts.Tracing == nil {
		parts.Tracing = telemetry.DisabledTracing()
	}
	s := &Server{cfg: cfg, log: parts.Logger, store: parts.Store, metrics: parts.Metrics, tracing: parts.Tracing, services: parts.Services}
	var err error
	if s.callers, err = loadCallers(ctx, &cfg, s.services, parts.Logger, parts.Metrics.Registry()); err != nil {
		return nil, err
	}
	if s.proxies, err = forwarded.Parse(cfg.TrustedProxy); err != nil {
		return nil, err
	}
	if s.limits, err = s.newLimits(); err != nil { //nolint:contextcheck // the log lines of the memory level belong to no call
		return nil, err
	}
	s.refuse = browser.LogRefusals(s.log, s.limits.Refuse)
	// Only store operations of calls are traced, not those of background work.
	store := parts.Store
	if parts.Tracing.Enabled() {
		store = traced.New(store, parts.Tracing.Provider(), parts.Storage.System)
	}
	if s.feed, err = feed.Open(ctx, store); err != nil {
		return nil, fmt.Errorf("open feed: %w", err)
	}
	s.feed.SetMemory(s.limits.ReserveShared)
	s.health = health.New(s.feed.Head)
	s.clock = parts.Storage.Clock
	handler, checks, err := s.handler(store)
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, parts); err != nil {
		return nil, err
	}
	s.guard = s.newGuard() //nolint:contextcheck // the guard outlives the context; its log lines belong to no call
	if err := s.registerSources(parts.Storage); err != nil {
		s.guard.Close()
		return nil, errors.Join(err, s.closeListeners())
	}
	s.serveWith(handler, checks) //nolint:contextcheck // calls outlive the context of New
	s.startBackground(ctx, parts)
	return s, nil
}

// serveWith creates the HTTP servers.
func (s *Server) serveWith(handler http.Handler, checks []check) {
	options := transport.ServerOptions{
		StdHTTP2:             s.cfg.HTTP2 == http2Std,
		MaxConcurrentStreams: s.cfg.MaxConcurrentStreams,
		HeaderTimeout:        s.cfg.HeaderTimeout,
		IdleTimeout:          s.cfg.IdleTimeout,
		PingAfter:            s.cfg.KeepaliveTime,
		PingTimeout:          s.cfg.KeepaliveTimeout,
		WriteTimeout:         s.cfg.StallTimeout,
		Logger:               s.log,
	}
	if !s.cfg.authenticates() {
		checks = slices.Insert(checks, 0, browser.CheckHost(s.public.listener, s.cfg.AllowHost, s.refuse))
	}
	handler = forwarded.Handler(isUnixSocket(s.public.listener), s.proxies, s.guard.Wrap(checked(handler, checks...)))
	s.public.server = transport.NewServer(handler, options)
	s.public.server.ConnContext = transport.ConnContext
	s.connections = transport.NewConnections()
	s.public.server.ConnState = s.connections.Track
	// Calls outlive the context of New; finishCalls cancels them. They have none of its values, which each lookup of a
	// value would pass.
	calls, end := context.WithCancelCause(context.Background())
	s.endCalls = end
	s.public.server.BaseContext = func(net.Listener) context.Context { return calls }
	if s.admin.listener != nil {
		s.admin.server = admin.NewServer(checked(admin.Routes(s.ready, s.metrics.Handler(s.log)),
			browser.CheckHost(s.admin.listener, s.cfg.AllowHost, browser.RefuseText)), s.log)
	}
}

func (s *Server) closeListeners() error {
	err := s.public.listener.Close()
	if s.admin.listener != nil {
		err = errors.Join(err, s.admin.listener.Close())
	}
	return err
}

func (s *Server) listen(ctx context.Context, parts Parts) (err error) {
	if s.public.listener = parts.Listener; s.public.listener == nil {
		if s.public.listener, err = listen(ctx, s.cfg.Listen, s.cfg.SocketMode); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	if s.admin.listener = parts.AdminListener; s.admin.listener == nil && s.cfg.hasAdmin() {
		if s.admin.listener, err = listen(ctx, s.cfg.AdminListen, s.cfg.SocketMode); err != nil {
			return errors.Join(fmt.Errorf("--admin-listen: %w (off disables it)", err), s.public.listener.Close())
		}
	}
	return nil
}

// startBackground probes the store once, so that the health is known before the first call, and starts
// the background work.
func (s *Server) startBackground(ctx context.Context, parts Parts) {
	// Background work outlives the context of New; stopBackground ends it.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	probe := &health.Prober{
		Store: s.store, WriteFailures: parts.Storage.WriteFailures, Integrity: parts.Storage.Integrity, Health: s.health, Log: s.log,
	}
	probe.Probe(ctx)
	cleaner := &janitor.Janitor{Store: s.store, Clock: parts.Clock, Log: s.log, Metrics: s.metrics, LogRetention: s.cfg.LogRetention}
	s.background.Go(func() { s.callers.run(ctx) })
	s.background.Go(func() { probe.Run(ctx) })
	s.background.Go(func() { cleaner.Run(ctx) })
}

// Addr returns the address of the public listener.
func (s *Server) Addr() net.Addr { return s.public.listener.Addr() }

// Welcome writes the addresses of the server and example commands.
func (s *Server) Welcome(w io.Writer) {
	tls := s.callers.certificates != nil
	at, where := tcpCommands(s.Addr().String(), tls), ""
	if isUnixSocket(s.public.listener) {
		at, where = socketCommands(s.Addr().String(), tls), Address(s.public.listener)
	}
	_, _ = fmt.Fprintf(w, "userd is listening on %s\n", cmp.Or(where, at.url))
	switch {
	case s.admin.listener == nil:
	case isUnixSocket(s.admin.listener):
		_, _ = fmt.Fprintf(w, "admin listener: curl --unix-socket %s http://localhost/readyz\n", s.AdminAddr())
	default:
		_, _ = fmt.Fprintf(w, "admin listener: http://%s/readyz\n", s.AdminAddr())
	}
	_, _ = fmt.Fprintln(w)
	writeHints(w, at, s.callers)
}

// ready reports readiness, and the reasons why the server is not ready or degraded, one a line. A server
// that cannot authenticate callers is not ready.
func (s *Server) ready() (ok bool, reason string) {
	ok, reason = s.health.Ready()
	if s.clock != nil {
		if unconfirmed := s.clock().Unconfirmed; unconfirmed != "" {
			reason = strings.TrimPrefix(reason+"\nclock: "+unconfirmed, "\n")
		}
	}
	if err := s.callers.err(); err != nil {
		return false, strings.TrimPrefix(reason+"\ncallers: "+err.Error(), "\n")
	}
	return ok, reason
}

// AdminAddr returns the address of the admin listener, nil if disabled.
func (s *Server) AdminAddr() net.Addr {
	if s.admin.listener == nil {
		return nil
	}
	return s.admin.listener.Addr()
}

func (s *Server) servePublic(listener net.Listener) error {
	var secure *tls.Config
	if s.callers.certificates != nil {
		secure = s.callers.certificates.Config()
	}
	return s.public.server.Serve(s.limits.Listener(listener, secure))
}

// Run serves until ctx is done or a listener fails, and then shuts down. It returns an error if a
// listener fails or the shutdown does not complete within its timeout. It must be called once.
func (s *Server) Run(ctx context.Context) error {
	s.log.LogAttrs(ctx, slog.LevelInfo, "listening",
		slog.String("addr", Address(s.public.listener)), slog.String("epoch", s.feed.Head().Epoch),
		slog.Int64("position", s.feed.Head().Position))
	if s.admin.listener != nil {
		addr := Address(s.admin.listener)
		s.log.LogAttrs(ctx, slog.LevelInfo, "admin server listening", slog.String("addr", addr))
		if !loopback(addr) {
			s.log.LogAttrs(ctx, slog.LevelWarn, "admin listener reachable from other machines without authentication", slog.String("addr", addr))
		}
	}
	failed := make(chan error, 2)
	var serving sync.WaitGroup
	serve := func(listener net.Listener, serve func(net.Listener) error) {
		serving.Go(func() {
			if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", listener.Addr(), err)
			}
		})
	}
	serve(s.public.listener, s.servePublic)
	if s.admin.server != nil {
		serve(netutil.LimitListener(s.admin.listener, admin.MaxConnections), s.admin.server.Serve)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	err = errors.Join(err, s.drain(context.WithoutCancel(ctx)))
	serving.Wait()
	return err
}
