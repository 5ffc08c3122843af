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

	"github.com/yourorg/userservice/service/httperror"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	// burstSeconds is the default burst, in seconds of the request rate.
	burstSeconds   = 2
	minMemoryLimit = 48 << 20

	// maxPlainBytes bounds the messages of health and reflection, which anonymous callers may send.
	maxPlainBytes = 4 << 10

	healthPath     = "/grpc.health.v1.Health/"
	healthWatch    = healthPath + "Watch"
	reflectionPath = "/grpc.reflection."

	memoryAuto, memoryOff = "auto", "off"
)

// LimitConfig is the configuration of limits.
type LimitConfig struct {
	MaxMessageBytes       Bytes         `default:"4MiB" help:"Maximum size of a request or response message after decompression."`
	MaxConcurrentStreams  int           `default:"1000" help:"Maximum concurrent streams of an HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS)."`
	MaxConnections        int           `default:"10000" help:"Maximum open connections (0: unlimited)."`
	MaxConnectionsPerPeer int           `default:"0" help:"Maximum open connections of an address or IPv6 /64, except trusted proxies (0: unlimited)."`
	MaxStreamsPerCaller   int           `default:"10000" help:"Maximum open streams of a caller, over all connections (0: unlimited)."`
	MaxRequestsPerSecond  int           `default:"0" help:"Maximum requests per second of a caller (0: unlimited)."`
	MaxRequestBurst       int           `default:"0" help:"Maximum burst of requests of a caller (0: two seconds of --max-requests-per-second)."`
	MaxStreamBytes        Bytes         `default:"1GiB" help:"Maximum total size of the messages of a client stream (0: unlimited)."`
	MaxStreamItems        int           `default:"100000" help:"Maximum items of a client stream."`
	MaxControlFrames      int           `default:"100" help:"Maximum excess HTTP/2 control frames per second of a connection and frame type, with a burst of ten times that (0: unlimited)."`
	KeepaliveMinTime      time.Duration `default:"5s" help:"Minimum average interval of client PINGs on an idle connection; exceeding it closes the connection with too_many_pings (0: unlimited)."`
	MemoryLimit           string        `default:"auto" help:"Memory limit of the process: SIZE, off, or auto (GOMEMLIMIT, else 9/10 of the cgroup limit, else 3/4 of the machine)."`
}

func (c *LimitConfig) validateLimits() error {
	_, err := c.memoryLimit()
	return errors.Join(
		inRange("max-connections", c.MaxConnections, 0, math.MaxInt32),
		inRange("max-connections-per-peer", c.MaxConnectionsPerPeer, 0, math.MaxInt32),
		inRange("max-streams-per-caller", c.MaxStreamsPerCaller, 0, math.MaxInt32),
		inRange("max-requests-per-second", c.MaxRequestsPerSecond, 0, 1_000_000),
		inRange("max-request-burst", c.MaxRequestBurst, 0, 10_000_000),
		inRange("max-stream-bytes", c.MaxStreamBytes, 0, 1<<50),
		inRange("max-control-frames", c.MaxControlFrames, 0, 1_000_000),
		inRange("keepalive-min-time", c.KeepaliveMinTime, 0, 24*time.Hour),
		err,
	)
}

// memoryLimit returns the limit in bytes, 0 for none.
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
	return int64(limit), inRange("memory-limit", limit, minMemoryLimit, 1<<50)
}

// limits enforces the limits of connections, requests, streams and memory. The message limits are
// enforced in package transport.
type limits struct {
	cfg       *Config
	memory    *budget.Budget  // nil: no limit
	rate      *transport.Rate // nil: no limit
	scheduler *fair.Scheduler // shares the processors among callers
	streams   *intercept.StreamLimits
	// watches limits the streams of health and reflection separately, so that a caller at its
	// stream limit can still check health.
	watches *intercept.StreamLimits
	conns   *connMetrics
	// open reports whether a path is served without credentials.
	open func(path string) bool
	// streamingBody reports whether the body of a request is a stream.
	streamingBody func(*http.Request) bool
	// countRejected counts a rejected request by its reason.
	countRejected func(reason string)
	proxies       trustedProxies
}

// newLimits returns the configured limits and sets the memory limit of the Go runtime.
func newLimits(cfg *Config, additional []Service, log *slog.Logger, metrics *telemetry.Metrics) (*limits, error) {
	l := &limits{cfg: cfg, countRejected: metrics.RequestRejected, scheduler: fair.NewScheduler(), streamingBody: streamingBody(additional)}
	var err error
	if l.proxies, err = parseTrustedProxies(cfg.TrustedProxy); err != nil {
		return nil, err
	}
	if l.conns, err = newConnMetrics(log, metrics.Registry()); err != nil {
		return nil, fmt.Errorf("register connection metrics: %w", err)
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
		return nil, fmt.Errorf("register memory metrics: %w", err)
	}
	if rate := cfg.MaxRequestsPerSecond; rate > 0 {
		burst := cfg.MaxRequestBurst
		if burst == 0 {
			burst = burstSeconds * rate
		}
		l.rate = transport.NewRate(float64(rate), burst)
	}
	l.streams = intercept.NewStreamLimits(intercept.StreamLimitOptions{
		PerCaller: cfg.MaxStreamsPerCaller, Bytes: int64(cfg.MaxStreamBytes),
	})
	l.watches = intercept.NewStreamLimits(intercept.StreamLimitOptions{PerCaller: cfg.MaxStreamsPerCaller})
	return l, nil
}

// maxMessageBytes returns the size limit of messages of the procedure, compressed and decompressed.
func (l *limits) maxMessageBytes(procedure string) int64 {
	limit := int64(l.cfg.MaxMessageBytes)
	if strings.HasPrefix(procedure, healthPath) || strings.HasPrefix(procedure, reflectionPath) {
		return min(limit, maxPlainBytes)
	}
	return limit
}

// limitRate enforces the request rate of callers. It belongs inside the authentication. Health checks are
// exempt, because load balancers treat a rejection as a failure.
func (l *limits) limitRate(next http.Handler) http.Handler {
	if l.rate == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, healthPath) {
			next.ServeHTTP(w, r)
			return
		}
		if !l.rejectExcess(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// rejectExcess rejects a request beyond the rate of its caller, and reports whether it did. Requests
// without an authenticated caller count by address.
func (l *limits) rejectExcess(w http.ResponseWriter, r *http.Request) bool {
	if l.rate == nil {
		return false
	}
	wait, ok := l.rate.Take(user.CallerFromContext(r.Context()))
	if !ok {
		l.refuse(w, r, newRateLimitedError(wait))
	}
	return !ok
}

func newRateLimitedError(wait time.Duration) *user.Error {
	return &user.Error{
		Code: user.ResourceExhausted, Reason: user.RateLimited, RetryAfter: wait,
		Message: "request rate limit of the caller exceeded",
	}
}

// refuse rejects a request in its protocol, without reading the body.
func (l *limits) refuse(w http.ResponseWriter, r *http.Request, err *user.Error) {
	l.countRejected(string(err.Reason))
	stateOf(r.Context()).limited = err
	httperror.Write(w, r, err)
}
