package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/transport"
)

// linesPerCause is how many connections are told of in the log, of each cause, in a
// second: who floods the server shall not flood the log.
const linesPerCause = 5

// listener returns the listener whose connections are within the limits. With TLS it
// speaks that too, so that the frames can be seen; the server above must not.
func (l *limits) listener(inner net.Listener, secure *tls.Config) *transport.Listener {
	listener := transport.Listen(inner, transport.ListenOptions{
		StallTimeout:   l.cfg.StallTimeout,
		TLS:            secure,
		MaxConnections: l.maxConnections(l.conns.log),
		MaxPerPeer:     l.cfg.MaxConnectionsPerPeer,
		Exempt:         l.proxies.trustsAddr,
		Memory:         l.memory,
		Scheduler:      l.scheduler,
		Class:          l.peerClass(),
		HeaderTimeout:  l.cfg.HeaderTimeout,

		MaxConcurrentStreams: l.cfg.MaxConcurrentStreams,
		Frames: transport.FrameLimits{
			PerSecond: l.cfg.MaxControlFrames,
			// All streams of a connection may be given up at once, and once again.
			ResetBurst:      2 * l.cfg.MaxConcurrentStreams,
			MinPingInterval: l.cfg.KeepaliveMinTime,
		},
		OnReject:         l.conns.refusedConn,
		OnClose:          l.conns.overdrawnConn,
		OnHandshakeError: l.conns.notHandshaken,
		OnNoRequest:      l.conns.unservedConn,
	})
	l.conns.open.Store(listener)
	return listener
}

// connWatch logs and counts connections that are refused or sent away.
type connWatch struct {
	log       *slog.Logger
	lines     *transport.Rate
	open      atomic.Pointer[transport.Listener]
	unserved  prometheus.Counter
	refused   map[transport.RejectReason]prometheus.Counter
	overdrawn map[transport.CloseReason]prometheus.Counter
}

// newConnWatch returns a connWatch and registers its metrics.
func newConnWatch(log *slog.Logger, registry prometheus.Registerer) (*connWatch, error) {
	w := &connWatch{
		log: log, lines: transport.NewRate(linesPerCause, linesPerCause),
		refused:   make(map[transport.RejectReason]prometheus.Counter),
		overdrawn: make(map[transport.CloseReason]prometheus.Counter),
		unserved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "userd_connections_invalid_total",
			Help: "Total number of HTTP/1 connections that sent data but no valid request.",
		}),
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_connections_rejected_total", Help: "Total number of connections rejected by a connection limit, by reason.",
	}, []string{"reason"})
	for _, reason := range transport.RejectReasons() {
		w.refused[reason] = refused.WithLabelValues(string(reason))
	}
	sentAway := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_connections_goaway_total", Help: "Total number of HTTP/2 connections closed with GOAWAY because of abusive frames, timeouts or memory pressure, by reason.",
	}, []string{"reason"})
	for _, cause := range transport.CloseReasons() {
		w.overdrawn[cause] = sentAway.WithLabelValues(string(cause))
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "userd_connections", Help: "Number of open client connections.",
	}, func() float64 {
		if listener := w.open.Load(); listener != nil {
			return float64(listener.Open())
		}
		return 0
	})
	return w, errors.Join(registry.Register(refused), registry.Register(sentAway), registry.Register(open), registry.Register(w.unserved))
}

func (w *connWatch) refusedConn(peer net.Addr, reason transport.RejectReason) {
	w.refused[reason].Inc()
	w.line("refused a connection", peer, string(reason))
}

func (w *connWatch) overdrawnConn(peer net.Addr, cause transport.CloseReason) {
	w.overdrawn[cause].Inc()
	text := "sent away a connection that sends too many frames"
	switch cause {
	case transport.CloseMemory:
		text = "connection closed to free memory"
	case transport.CloseHeaderTimeout:
		text = "connection closed: header block did not end in time"
	default:
	}
	w.line(text, peer, string(cause))
}

// unservedConn tells of what net/http answers by itself, such as a header that is too
// large, or what was no request at all.
func (w *connWatch) unservedConn(peer net.Addr) {
	w.unserved.Inc()
	const cause = "unserved"
	if _, ok := w.lines.Take(cause); ok {
		w.log.LogAttrs(context.Background(), slog.LevelInfo, "a connection brought no request that could be served",
			slog.String("peer", peer.String()))
	}
}

func (w *connWatch) notHandshaken(peer net.Addr, err error) {
	const cause = "handshake"
	if _, ok := w.lines.Take(cause); ok {
		w.log.LogAttrs(context.Background(), slog.LevelInfo, "a TLS handshake failed",
			slog.String("peer", peer.String()), slog.Any("error", err))
	}
}

func (w *connWatch) line(what string, peer net.Addr, cause string) {
	if _, ok := w.lines.Take(cause); !ok {
		return
	}
	w.log.LogAttrs(context.Background(), slog.LevelWarn, what,
		slog.String("cause", cause), slog.String("peer", peer.String()))
}
