package server

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	// burstTime is how much of a caller's rate may be used at once, where the
	// configuration does not say.
	burstTime = 2
	// leastMemory is the smallest limit of the memory that leaves room for calls.
	leastMemory = 48 << 20

	// plainBytes bounds the messages of health and reflection, which callers without
	// credentials may send. Their names are short.
	plainBytes = 4 << 10

	healthPath     = "/grpc.health.v1.Health/"
	healthWatch    = healthPath + "Watch"
	reflectionPath = "/grpc.reflection."

	memoryAuto, memoryOff = "auto", "off"
)

// LimitConfig says how much callers may ask for.
type LimitConfig struct {
	MaxConnections        int           `default:"10000" help:"Connections at a time. Further ones are told so in their own protocol, and with TLS are closed without a word, before the handshake. 0: no limit."`
	MaxConnectionsPerPeer int           `default:"0" help:"Connections at a time from one address, or from one /64 of IPv6. 0: no limit. A trusted proxy has none."`
	MaxStreamsPerCaller   int           `default:"10000" help:"Streams that one caller may have open over all connections. A caller is a subject, or an address where nobody is known. 0: no limit."`
	MaxRequestsPerSecond  int           `default:"0" help:"Requests that one caller may make. 0: no limit."`
	MaxRequestBurst       int           `default:"0" help:"Requests that one caller may make at once. 0: those of two seconds."`
	MaxStreamBytes        Bytes         `default:"1GiB" help:"Largest client stream, all its messages together. 0: no limit."`
	MaxControlFrames      int           `default:"100" help:"HTTP/2 frames a second, of each kind, that a connection may send beyond what its calls give reason for, ten times as many at once: RST_STREAM, PING, WINDOW_UPDATE, CONTINUATION, empty DATA and others; of SETTINGS a tenth. 0: no limit."`
	KeepaliveMinTime      time.Duration `default:"5s" help:"Shortest average interval between a client's own pings while nothing is sent to it; a client that pings more often is disconnected with too_many_pings. 0: no limit."`
	MemoryLimit           string        `default:"auto" placeholder:"SIZE|auto|off" help:"Memory that the process may use. Near it new calls are refused, before the system ends the process. auto: GOMEMLIMIT, else nine tenths of the container's limit, else three quarters of the machine's memory."`
}

func (c *LimitConfig) validateLimits() error {
	_, err := c.memoryLimit()
	return errors.Join(
		within("max-connections", c.MaxConnections, 0, math.MaxInt32),
		within("max-connections-per-peer", c.MaxConnectionsPerPeer, 0, math.MaxInt32),
		within("max-streams-per-caller", c.MaxStreamsPerCaller, 0, math.MaxInt32),
		within("max-requests-per-second", c.MaxRequestsPerSecond, 0, 1_000_000),
		within("max-request-burst", c.MaxRequestBurst, 0, 10_000_000),
		within("max-stream-bytes", c.MaxStreamBytes, 0, 1<<50),
		within("max-control-frames", c.MaxControlFrames, 0, 1_000_000),
		within("keepalive-min-time", c.KeepaliveMinTime, 0, 24*time.Hour),
		err,
	)
}

// memoryLimit gives the limit in bytes, 0 for none.
func (c *LimitConfig) memoryLimit() (int64, error) {
	switch c.MemoryLimit {
	case memoryAuto:
		return budget.ProcessMemoryLimit(), nil
	case memoryOff, "":
		return 0, nil
	}
	var limit Bytes
	if err := limit.UnmarshalText([]byte(c.MemoryLimit)); err != nil {
		return 0, fmt.Errorf("--memory-limit=%s: %w", c.MemoryLimit, err)
	}
	return int64(limit), within("memory-limit", limit, leastMemory, 1<<50)
}

// limits keep the configured limits of connections, requests, streams and memory. Those
// of messages are kept below, by the guard and the codecs.
type limits struct {
	cfg    *Config
	memory *budget.Budget  // nil: no limit
	rate   *transport.Rate // nil: no limit
	// scheduler shares the processors among callers.
	scheduler *fair.Scheduler
	streams   *intercept.StreamLimits
	// watches are the streams of the services beside the one proper. They count by
	// themselves: whoever is at his limit may still ask how the server is.
	watches *intercept.StreamLimits
	conns   *connWatch
	// open reports whether a path is served without credentials.
	open func(path string) bool
	// openEnded reports whether a request's body is a stream.
	openEnded func(*http.Request) bool
	// counted is told the reason of each request that is refused.
	counted  func(reason string)
	refusals *refusals
	proxies  trustedProxies
}

// newLimits builds what the configuration asks for. It tells the runtime of the memory
// limit, so that garbage is collected in time.
func newLimits(cfg *Config, further []Service, log *slog.Logger, metrics *telemetry.Metrics) (*limits, error) {
	l := &limits{cfg: cfg, counted: metrics.RequestRejected, refusals: newRefusals(), scheduler: fair.NewScheduler(), openEnded: openEnded(further)}
	var err error
	if l.proxies, err = parseTrustedProxies(cfg.TrustedProxy); err != nil {
		return nil, err
	}
	if l.conns, err = newConnWatch(log, metrics.Registry()); err != nil {
		return nil, fmt.Errorf("observe the connections: %w", err)
	}
	limit, err := cfg.memoryLimit()
	if err != nil {
		return nil, err
	}
	if limit > 0 {
		l.memory = newBudget(limit, log)
		debug.SetMemoryLimit(l.memory.RuntimeLimit())
	}
	if err := registerBudget(l.memory, metrics.Registry()); err != nil {
		return nil, fmt.Errorf("observe the memory budget: %w", err)
	}
	if rate := cfg.MaxRequestsPerSecond; rate > 0 {
		burst := cfg.MaxRequestBurst
		if burst == 0 {
			burst = burstTime * rate
		}
		l.rate = transport.NewRate(float64(rate), burst)
	}
	l.streams = intercept.NewStreamLimits(intercept.StreamLimitOptions{
		PerCaller: cfg.MaxStreamsPerCaller, Bytes: int64(cfg.MaxStreamBytes), Peer: transport.Peer,
	})
	l.watches = intercept.NewStreamLimits(intercept.StreamLimitOptions{
		PerCaller: cfg.MaxStreamsPerCaller, Peer: transport.Peer,
	})
	return l, nil
}

// messageBytes returns how large a message of the procedure may be, as it arrives and
// after decompression.
func (l *limits) messageBytes(procedure string) int64 {
	limit := int64(l.cfg.MaxMessageBytes)
	if strings.HasPrefix(procedure, healthPath) || strings.HasPrefix(procedure, reflectionPath) {
		return min(limit, plainBytes)
	}
	return limit
}

// slow returns the handler as callers reach it who do not ask too often. It belongs
// inside what finds out who is calling. Health is always answered: a balancer that is
// refused would take the server for dead.
func (l *limits) slow(next http.Handler) http.Handler {
	if l.rate == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, healthPath) {
			next.ServeHTTP(w, r)
			return
		}
		if !l.tooMany(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// tooMany answers a caller who asks too often, and reports whether it has. Who is not
// recognized counts by the address; those of the same address who are do not.
func (l *limits) tooMany(w http.ResponseWriter, r *http.Request) bool {
	if l.rate == nil {
		return false
	}
	wait, ok := l.rate.Take(intercept.CallerKey(r.Context(), r.RemoteAddr, transport.Peer))
	if !ok {
		l.refuse(w, r, newRateLimitedError(wait))
	}
	return !ok
}

func newRateLimitedError(wait time.Duration) *user.Error {
	return &user.Error{
		Code: user.ResourceExhausted, Reason: user.RateLimited, RetryAfter: wait,
		Message: "the caller makes more requests than it may",
	}
}

// refuse answers in the caller's own protocol, without a look at the body.
func (l *limits) refuse(w http.ResponseWriter, r *http.Request, err *user.Error) {
	fair.FromContext(r.Context()).Acquire()
	l.counted(string(err.Reason))
	noteOf(r.Context()).limited = err
	l.refusals.refuse(w, r, err)
}
