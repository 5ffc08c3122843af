package limits

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/http2"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// maxConnLines is the maximum number of log lines about connections per second and reason.
const maxConnLines = 5

// Listener returns a listener that enforces the limits of connections and terminates TLS.
func (l *Limits) Listener(inner net.Listener, secure *tls.Config) *transport.Listener {
	listener := transport.Listen(inner, transport.ListenOptions{
		StallTimeout:   l.opts.StallTimeout,
		TLS:            secure,
		MaxConnections: l.maxConnections(l.conns.log),
		MaxPerPeer:     l.opts.ConnsPerPeer,
		Exempt:         l.opts.Proxies.TrustsAddr,
		Memory:         l.memory,
		Scheduler:      l.scheduler,
		Class:          l.peerClass(),
		MaxAge:         l.opts.ConnectionAge,
		AgeGrace:       l.opts.ConnectionAgeGrace,
		AgeError:       user.NewConnectionAgeError(),

		Frames: http2.FrameLimits{
			PerSecond: l.opts.ControlFrames,
			// A client may cancel all streams of a connection at once, twice.
			ResetBurst:      2 * l.opts.StreamsPerConn,
			MinPingInterval: l.opts.MinPingInterval,
		},
		OnReject:         l.conns.rejected,
		OnClose:          l.conns.goAway,
		OnHandshakeError: l.conns.handshakeFailed,
		OnNoRequest:      l.conns.invalid,
	})
	l.conns.listener.Store(listener)
	return listener
}

// connMetrics logs and counts rejected, closed and invalid connections.
type connMetrics struct {
	log           *slog.Logger
	lines         *transport.Rate
	listener      atomic.Pointer[transport.Listener]
	invalidTotal  prometheus.Counter
	rejectedTotal map[transport.RejectReason]prometheus.Counter
	goAwayTotal   map[http2.CloseReason]prometheus.Counter
}

func newConnMetrics(log *slog.Logger, registry prometheus.Registerer) (*connMetrics, error) {
	w := &connMetrics{
		log: log, lines: transport.NewRate(maxConnLines, maxConnLines),
		rejectedTotal: make(map[transport.RejectReason]prometheus.Counter),
		goAwayTotal:   make(map[http2.CloseReason]prometheus.Counter),
		invalidTotal: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "userd_connections_invalid_total",
			Help: "Total number of HTTP/1 connections that sent data but no valid request.",
		}),
	}
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_connections_rejected_total", Help: "Total number of connections rejected by a connection limit, by reason.",
	}, []string{"reason"})
	for _, reason := range transport.RejectReasons() {
		w.rejectedTotal[reason] = rejected.WithLabelValues(string(reason))
	}
	goAway := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_connections_goaway_total", Help: "Total number of HTTP/2 connections closed with GOAWAY because of abusive frames, timeouts or memory pressure, by reason.",
	}, []string{"reason"})
	for _, cause := range http2.CloseReasons() {
		w.goAwayTotal[cause] = goAway.WithLabelValues(string(cause))
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "userd_connections", Help: "Number of open client connections.",
	}, func() float64 {
		if listener := w.listener.Load(); listener != nil {
			return float64(listener.Open())
		}
		return 0
	})
	return w, errors.Join(registry.Register(rejected), registry.Register(goAway), registry.Register(open), registry.Register(w.invalidTotal))
}

func (w *connMetrics) rejected(peer net.Addr, reason transport.RejectReason) {
	w.rejectedTotal[reason].Inc()
	w.logConn(slog.LevelWarn, "connection rejected", string(reason), peer, slog.String("reason", string(reason)))
}

func (w *connMetrics) goAway(peer net.Addr, cause http2.CloseReason) {
	w.goAwayTotal[cause].Inc()
	level := slog.LevelWarn
	if cause == http2.CloseAge {
		level = slog.LevelDebug
	}
	w.logConn(level, "connection closed with GOAWAY", string(cause), peer, slog.String("reason", string(cause)))
}

// invalid records a connection without a valid request: net/http closed it before a handler ran. protocol is that of the
// peer, if it is known and not HTTP.
func (w *connMetrics) invalid(peer net.Addr, protocol string) {
	w.invalidTotal.Inc()
	var attrs []slog.Attr
	if protocol != "" {
		attrs = append(attrs, slog.String("reason", "expected HTTP, got "+protocol))
	}
	w.logConn(slog.LevelInfo, "connection without valid request", "invalid"+protocol, peer, attrs...)
}

func (w *connMetrics) handshakeFailed(peer net.Addr, err error) {
	w.logConn(slog.LevelInfo, "TLS handshake failed", "handshake", peer, slog.Any("error", err))
}

// logConn logs an event of a connection, at most maxConnLines a second for each key.
func (w *connMetrics) logConn(level slog.Level, message, key string, peer net.Addr, attrs ...slog.Attr) {
	if _, ok := w.lines.Take(key); ok {
		w.log.LogAttrs(context.Background(), level, message, append(attrs, slog.String("peer", peer.String()))...)
	}
}
