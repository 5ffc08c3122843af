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
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/yourorg/userservice/service/clock"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/store/traced"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// Parts are what a server takes from outside, beside its configuration.
type Parts struct {
	Store   user.Store         // Run closes it
	Storage Storage            // what is known of it
	Logger  *slog.Logger       // required
	Metrics *telemetry.Metrics // nil: of its own; a registry serves one server
	Tracing *telemetry.Tracing // Run ends it; nil: off
	// Listener and AdminListener are used in place of the configured addresses.
	Listener, AdminListener net.Listener
	Clock                   func() time.Time // for housekeeping; nil: time.Now
	Services                []Service        // further services on the public port
}

// Server is the service, put together and listening. Its methods are safe for use by
// many goroutines.
type Server struct {
	cfg      Config
	log      *slog.Logger
	store    user.Store
	metrics  *telemetry.Metrics
	tracing  *telemetry.Tracing
	callers  *callers
	limits   *limits
	feed     *feed.Feed
	health   *health
	clock    func() clock.Status // nil: it is not known
	services []Service
	guard    *transport.Guard
	public   endpoint
	admin    endpoint // its server is nil where there is none

	refuse refusal // of hosts and origins that are not allowed

	connections *transport.Connections // of the public port
	endCalls    context.CancelCauseFunc

	background sync.WaitGroup
	stop       context.CancelFunc // ends what runs in the background
}

// endpoint is a port and what it serves.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// New puts a server together and lets it listen, so that callers who come now wait
// until Run serves them. If it fails, nothing is left but the store and the tracing,
// which are then the caller's to close.
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
	if s.limits, err = newLimits(&s.cfg, s.services, parts.Logger, parts.Metrics); err != nil { //nolint:contextcheck // changes of the level belong to no call
		return nil, err
	}
	s.refuse = refuseLogged(s.log, s.limits.refuse)
	s.limits.open = s.callers.policy.Open
	// What calls ask of the store shows in their traces; what the server asks for its
	// own sake belongs to no call.
	store := parts.Store
	if parts.Tracing.Enabled() {
		store = traced.New(store, parts.Tracing.Provider(), parts.Storage.System)
	}
	if s.feed, err = feed.Open(ctx, store); err != nil {
		return nil, fmt.Errorf("open feed: %w", err)
	}
	s.health = newHealth(s.feed.Head)
	s.clock = parts.Storage.Clock
	handler, err := s.handler(store)
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, parts); err != nil {
		return nil, err
	}
	s.guard = s.newGuard() //nolint:contextcheck // the guard outlives the context; its log lines belong to no call
	if err := s.watch(parts.Storage); err != nil {
		s.guard.Close()
		return nil, errors.Join(err, s.closeListeners())
	}
	s.serveWith(ctx, handler)
	s.startBackground(ctx, parts)
	return s, nil
}

// serveWith makes the HTTP servers of the ports.
func (s *Server) serveWith(ctx context.Context, handler http.Handler) {
	options := transport.ServerOptions{
		MaxConcurrentStreams: s.cfg.MaxConcurrentStreams,
		HeaderTimeout:        s.cfg.HeaderTimeout,
		IdleTimeout:          s.cfg.IdleTimeout,
		PingAfter:            s.cfg.KeepaliveTime,
		PingTimeout:          s.cfg.KeepaliveTimeout,
		WriteTimeout:         s.cfg.StallTimeout,
		Logger:               s.log,
	}
	if !s.cfg.identifies() {
		handler = ownHosts(s.public.listener, s.cfg.AllowHost, s.refuse, handler)
	}
	handler = withClientAddress(onSocket(s.public.listener), s.limits.proxies, s.guard.Wrap(recovering(s.log, handler)))
	s.public.server = transport.NewServer(transport.WithTLS(handler), options)
	s.public.server.ConnContext = transport.ConnContext
	s.connections = transport.NewConnections()
	s.public.server.ConnState = s.connections.Track
	// Calls go on when the context of New has ended; drain ends them.
	calls, end := context.WithCancelCause(context.WithoutCancel(ctx))
	s.endCalls = end
	s.public.server.BaseContext = func(net.Listener) context.Context { return calls }
	if s.admin.listener != nil {
		s.admin.server = s.newAdmin()
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
			return errors.Join(fmt.Errorf("--admin-listen: %w (off turns it off)", err), s.public.listener.Close())
		}
	}
	return nil
}

// startBackground starts what runs beside the calls. It has probed the store once when
// it returns: a server that takes its first call knows how it is.
func (s *Server) startBackground(ctx context.Context, parts Parts) {
	// It goes on when the context of New has ended; drain ends it.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	probe := &prober{
		store: s.store, trouble: parts.Storage.Trouble, integrity: parts.Storage.Integrity, health: s.health, log: s.log,
	}
	probe.probe(ctx)
	tidy := &janitor{store: s.store, clock: parts.Clock, log: s.log, metrics: s.metrics}
	s.background.Go(func() { s.callers.run(ctx) })
	s.background.Go(func() { probe.run(ctx) })
	s.background.Go(func() { tidy.run(ctx) })
}

// Addr is where the service listens.
func (s *Server) Addr() net.Addr { return s.public.listener.Addr() }

// Welcome writes where the service listens and what to try.
func (s *Server) Welcome(w io.Writer) {
	tls := s.callers.certificates != nil
	at, where := reachBy(s.Addr().String(), tls), ""
	if onSocket(s.public.listener) {
		at, where = reachSocket(s.Addr().String(), tls), Address(s.public.listener)
	}
	_, _ = fmt.Fprintf(w, "userd listens on %s\n", cmp.Or(where, at.url))
	switch {
	case s.admin.listener == nil:
	case onSocket(s.admin.listener):
		_, _ = fmt.Fprintf(w, "for operators: curl --unix-socket %s http://localhost/readyz\n", s.AdminAddr())
	default:
		_, _ = fmt.Fprintf(w, "for operators: http://%s/readyz\n", s.AdminAddr())
	}
	_, _ = fmt.Fprintln(w)
	writeHints(w, at, s.callers)
}

// ready reports whether calls should be sent here, and what is not served and why. A
// server that cannot tell who calls refuses those calls.
func (s *Server) ready() (ok bool, why string) {
	ok, why = s.health.ready()
	if s.clock != nil {
		if unconfirmed := s.clock().Unconfirmed; unconfirmed != "" {
			why = strings.TrimPrefix(why+"\nclock: "+unconfirmed, "\n")
		}
	}
	if trouble := s.callers.trouble(); trouble != nil {
		return false, strings.TrimPrefix(why+"\ncallers: "+trouble.Error(), "\n")
	}
	return ok, why
}

// AdminAddr is where operators ask, nil where they cannot.
func (s *Server) AdminAddr() net.Addr {
	if s.admin.listener == nil {
		return nil
	}
	return s.admin.listener.Addr()
}

// servePublic serves the service.
func (s *Server) servePublic(listener net.Listener) error {
	var secure *tls.Config
	if s.callers.certificates != nil {
		secure = s.callers.certificates.Config()
	}
	return s.public.server.Serve(s.limits.listener(listener, secure))
}

// Run serves until the context ends, or until a port fails, and then stops in good
// order; it returns when nothing of the server is left, or with an error when the time for
// that is over. It is to be called once.
func (s *Server) Run(ctx context.Context) error {
	s.log.LogAttrs(ctx, slog.LevelInfo, "listening",
		slog.String("address", Address(s.public.listener)), slog.String("epoch", s.feed.Head().Epoch),
		slog.Int64("position", s.feed.Head().Position))
	if s.admin.listener != nil {
		at := Address(s.admin.listener)
		s.log.LogAttrs(ctx, slog.LevelInfo, "listening for operators", slog.String("address", at))
		if !loopback(at) {
			s.log.LogAttrs(ctx, slog.LevelWarn, "other machines can reach the port for operators, which asks nobody who they are "+
				"and shows profiles of the memory: keep it behind a firewall", slog.String("address", at))
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
		serve(netutil.LimitListener(s.admin.listener, adminConnections), s.admin.server.Serve)
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
