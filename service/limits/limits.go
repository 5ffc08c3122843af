// Package limits enforces the limits of connections, requests, streams and memory, and counts and logs rejections.
// The sizes of messages are enforced by packages transport and codec.
package limits

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/yourorg/userservice/service/forwarded"
	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/protocol"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// maxPlainBytes bounds the messages of health and reflection, which anonymous callers may send.
const maxPlainBytes = 4 << 10

// Options are the limits. 0 means no limit, unless stated otherwise.
type Options struct {
	MessageBytes       int64 // of a message, before and after decompression; required
	Connections        int
	ConnsPerPeer       int // of an address, except Proxies
	StreamsPerConn     int // of an HTTP/2 connection; required
	StreamsPerCaller   int
	StreamBytes        int64 // total size of the messages of a client stream
	RequestRate        int   // requests per second of a caller
	RequestBurst       int
	ControlFrames      int // excess HTTP/2 control frames per second of a connection and frame type
	MinPingInterval    time.Duration
	StallTimeout       time.Duration // required
	ConnectionAge      time.Duration
	ConnectionAgeGrace time.Duration // after ConnectionAge
	Memory             int64         // of the process

	// Anonymous is set if authentication is disabled, so that an unauthenticated peer is not a second-class caller.
	Anonymous bool
	Proxies   forwarded.Proxies
	// Open reports whether a path is served without credentials.
	Open func(path string) bool
	// IsStream reports whether the body of a request is a stream.
	IsStream func(*http.Request) bool
	// Rejected counts a rejected request by its reason.
	Rejected func(reason string)
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Limits is safe for concurrent use.
type Limits struct {
	opts      Options
	memory    *budget.Budget  // nil: no limit
	rate      *transport.Rate // nil: no limit
	scheduler *fair.Scheduler // shares the processors among callers
	streams   *intercept.StreamLimits
	watches   *intercept.StreamLimits
	conns     *connMetrics
}

// New returns the limits, registers their metrics and sets the memory limit of the Go runtime.
func New(opts Options) (*Limits, error) {
	l := &Limits{opts: opts, scheduler: fair.NewScheduler()}
	var err error
	if l.conns, err = newConnMetrics(opts.Logger, opts.Registry); err != nil {
		return nil, fmt.Errorf("register connection metrics: %w", err)
	}
	if opts.Memory > 0 {
		l.memory = newBudget(opts.Memory, opts.Logger)
		debug.SetMemoryLimit(l.memory.RuntimeLimit())
	}
	if err := registerBudget(l.memory, opts.Registry); err != nil {
		return nil, fmt.Errorf("register memory metrics: %w", err)
	}
	if opts.RequestRate > 0 {
		l.rate = transport.NewRate(float64(opts.RequestRate), opts.RequestBurst)
	}
	l.streams = intercept.NewStreamLimits(intercept.StreamLimitOptions{PerCaller: opts.StreamsPerCaller, Bytes: opts.StreamBytes})
	l.watches = intercept.NewStreamLimits(intercept.StreamLimitOptions{PerCaller: opts.StreamsPerCaller})
	return l, nil
}

// Memory returns the memory budget, nil if there is no limit.
func (l *Limits) Memory() *budget.Budget { return l.memory }

// Scheduler returns the scheduler that shares the processors among callers.
func (l *Limits) Scheduler() *fair.Scheduler { return l.scheduler }

// Streams returns the limits of the number and the size of streams.
func (l *Limits) Streams() *intercept.StreamLimits { return l.streams }

// Watches returns the limits of the streams of health and reflection, which are separate, so that a caller at its
// stream limit can still check health.
func (l *Limits) Watches() *intercept.StreamLimits { return l.watches }

// MaxMessageBytes returns the size limit of messages of the procedure, compressed and decompressed.
func (l *Limits) MaxMessageBytes(procedure string) int64 {
	limit := l.opts.MessageBytes
	if strings.HasPrefix(procedure, protocol.HealthPath) || strings.HasPrefix(procedure, protocol.ReflectionPath) {
		return min(limit, maxPlainBytes)
	}
	return limit
}

// LimitRate enforces the request rate of the caller, and reports whether the request goes on. It belongs after the
// authentication. Health checks are exempt, because load balancers treat a rejection as a failure.
func (l *Limits) LimitRate(w http.ResponseWriter, r *http.Request) bool {
	return l.rate == nil || strings.HasPrefix(r.URL.Path, protocol.HealthPath) || !l.RejectExcess(w, r)
}

// RejectExcess rejects a request beyond the rate of its caller, and reports whether it did. Requests
// without an authenticated caller count by address.
func (l *Limits) RejectExcess(w http.ResponseWriter, r *http.Request) bool {
	if l.rate == nil {
		return false
	}
	wait, ok := l.rate.Take(user.CallerFromContext(r.Context()))
	if !ok {
		l.Refuse(w, r, newRateLimitedError(wait))
	}
	return !ok
}

func newRateLimitedError(wait time.Duration) *user.Error {
	return &user.Error{
		Code: user.ResourceExhausted, Reason: user.RateLimited, RetryAfter: wait,
		Message: "request rate limit of the caller exceeded",
	}
}

// Refuse rejects a request in its protocol, without reading the body.
func (l *Limits) Refuse(w http.ResponseWriter, r *http.Request, err *user.Error) {
	l.opts.Rejected(string(err.Reason))
	intercept.LogOf(r.Context()).Rejected = err
	httperror.Write(w, r, err)
}
