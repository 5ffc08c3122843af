package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/yourorg/userservice/service/admin"
	"github.com/yourorg/userservice/service/browser"
	"github.com/yourorg/userservice/service/telemetry"
)

// Opening serves the admin listener while the index of an older store is built, which may take minutes: the
// process is alive, and not ready. Failures to listen are reported by New.
type Opening struct {
	cfg      Config
	metrics  *telemetry.Metrics
	log      *slog.Logger
	listener net.Listener // nil: not listening yet
	server   *http.Server // nil: not serving
	ended    chan struct{}
	reason   atomic.Pointer[string]
}

// NewOpening returns an Opening. It listens as configured if listener is nil.
func NewOpening(cfg Config, listener net.Listener, metrics *telemetry.Metrics, log *slog.Logger) *Opening {
	return &Opening{cfg: cfg, listener: listener, metrics: metrics, log: log, ended: make(chan struct{})}
}

// Indexing serves, and reports the number of users indexed as the reason why the server is not ready.
func (o *Opening) Indexing(ctx context.Context, done, total int) {
	reason := fmt.Sprintf("indexing: %d of %d users", done, total)
	if o.reason.Swap(&reason) == nil {
		o.serve(ctx)
	}
}

func (o *Opening) serve(ctx context.Context) {
	if o.listener == nil && o.cfg.hasAdmin() && o.cfg.validateAdmin() == nil {
		o.listener, _ = listen(ctx, o.cfg.AdminListen, o.cfg.SocketMode) // see Opening
	}
	interrupt, ok := o.listener.(deadliner)
	if !ok {
		return
	}
	ready := func() (bool, string) { return false, *o.reason.Load() }
	o.server = admin.NewServer(checked(admin.Routes(ready, o.metrics.Handler(o.log)),
		browser.CheckHost(o.listener, o.cfg.AllowHost, browser.RefuseText)), o.log)
	go func() {
		defer close(o.ended)
		err := o.server.Serve(netutil.LimitListener(openListener{o.listener, interrupt}, admin.MaxConnections))
		if !errors.Is(err, http.ErrServerClosed) {
			o.log.LogAttrs(ctx, slog.LevelWarn, "admin server failed", slog.Any("error", err))
		}
	}()
}

// Addr returns the address of the listener. It must listen.
func (o *Opening) Addr() net.Addr { return o.listener.Addr() }

// End ends serving. It returns the listener for Parts, nil if there is none.
func (o *Opening) End() net.Listener {
	if o.server != nil {
		_ = o.server.Close() // of connections
		<-o.ended
		_ = o.listener.(deadliner).SetDeadline(time.Time{}) //nolint:errcheck // checked by serve
	}
	return o.listener
}

type deadliner interface{ SetDeadline(t time.Time) error }

// openListener is a listener that remains open: Close only ends Accept.
type openListener struct {
	net.Listener

	deadliner deadliner
}

// Close ends Accept.
func (l openListener) Close() error { return l.deadliner.SetDeadline(time.Unix(1, 0)) }
