package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// bodyTimeout is how long the body of a unary call may take to come in.
const bodyTimeout = 30 * time.Second

// Parts are what a server takes from outside, beside its configuration.
type Parts struct {
	Store  user.Store   // Run closes it
	Logger *slog.Logger // required
	// Listener and AdminListener are used in place of the configured addresses.
	Listener, AdminListener net.Listener
	Clock                   func() time.Time // for housekeeping; nil: time.Now
}

// Server is the service, put together and listening. Its methods are safe for use by
// many goroutines.
type Server struct {
	cfg    Config
	log    *slog.Logger
	store  user.Store
	feed   *feed.Feed
	health *health
	guard  *transport.Guard
	public endpoint
	admin  endpoint // its server is nil where there is none

	background sync.WaitGroup
	stop       context.CancelFunc // ends what runs in the background
}

// endpoint is a port and what it serves.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// New puts a server together and lets it listen, so that callers who come now wait
// until Run serves them. If it fails, nothing is left but the store, which is then the
// caller's to close.
func New(ctx context.Context, cfg Config, parts Parts) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Clock == nil {
		parts.Clock = time.Now
	}
	f, err := feed.Open(ctx, parts.Store)
	if err != nil {
		return nil, fmt.Errorf("open feed: %w", err)
	}
	s := &Server{cfg: cfg, log: parts.Logger, store: parts.Store, feed: f}
	s.health = newHealth(f.Head)
	handler, err := s.handler()
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, parts); err != nil {
		return nil, err
	}
	s.guard = newGuard(cfg, parts.Logger) //nolint:contextcheck // the guard outlives the context; its log lines belong to no call
	s.public.server = transport.NewServer(s.guard.Wrap(handler), transport.ServerOptions{
		MaxConcurrentStreams: cfg.MaxConcurrentStreams,
		PingAfter:            cfg.KeepaliveTime,
		PingTimeout:          cfg.KeepaliveTimeout,
		WriteTimeout:         cfg.StallTimeout,
		Logger:               parts.Logger,
	})
	if s.admin.listener != nil {
		s.admin.server = &http.Server{
			Handler: adminRoutes(s.health.ready), ReadHeaderTimeout: 10 * time.Second,
			ErrorLog: slog.NewLogLogger(parts.Logger.Handler(), slog.LevelWarn),
		}
	}
	s.startBackground(ctx, parts)
	return s, nil
}

func (s *Server) listen(ctx context.Context, parts Parts) (err error) {
	var config net.ListenConfig
	if s.public.listener = parts.Listener; s.public.listener == nil {
		if s.public.listener, err = config.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
	}
	if s.admin.listener = parts.AdminListener; s.admin.listener == nil && s.cfg.AdminListen != "" {
		if s.admin.listener, err = config.Listen(ctx, "tcp", s.cfg.AdminListen); err != nil {
			return errors.Join(fmt.Errorf("--admin-listen: %w (empty turns it off)", err), s.public.listener.Close())
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
	probe := &prober{store: s.store, health: s.health, log: s.log}
	probe.probe(ctx)
	tidy := &janitor{store: s.store, clock: parts.Clock, log: s.log}
	s.background.Go(func() { probe.run(ctx) })
	s.background.Go(func() { tidy.run(ctx) })
}

// Addr is where the service listens.
func (s *Server) Addr() net.Addr { return s.public.listener.Addr() }

// Welcome writes where the service listens and what to try.
func (s *Server) Welcome(w io.Writer) {
	_, _ = fmt.Fprintf(w, "userd listens on http://%s\n", s.Addr())
	if s.admin.listener != nil {
		_, _ = fmt.Fprintf(w, "for operators: http://%s/readyz\n", s.admin.listener.Addr())
	}
	_, _ = fmt.Fprintln(w)
	writeHints(w, s.Addr().String())
}

// Run serves until the context ends, or until a port fails, and then stops in good
// order; it returns when nothing of the server is left. It is to be called once.
func (s *Server) Run(ctx context.Context) error {
	s.log.LogAttrs(ctx, slog.LevelInfo, "listening",
		slog.String("address", s.Addr().String()), slog.String("epoch", s.feed.Head().Epoch),
		slog.Int64("position", s.feed.Head().Position))
	failed := make(chan error, 2)
	var serving sync.WaitGroup
	serve := func(server *http.Server, listener net.Listener) {
		serving.Go(func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", listener.Addr(), err)
			}
		})
	}
	serve(s.public.server, transport.Gather(s.public.listener, s.cfg.StallTimeout))
	if s.admin.server != nil {
		serve(s.admin.server, s.admin.listener)
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
