package intercept

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

const (
	// slowCall is the duration above which a successful call is always logged.
	slowCall = time.Second
	// failureBurst is the number of failures of one kind that are logged in each second.
	failureBurst = 20
	// maxErrorBytes is the maximum length of a logged error.
	maxErrorBytes = 256
	// maxRequestIDBytes is the maximum length of a logged request id. Longer ids are omitted.
	maxRequestIDBytes = 128
)

// Log is an interceptor that logs one line for each call. It belongs outside Errors, where
// the final code is known.
//
// Fast successful calls and streams that end at a shutdown are sampled; a line has the number
// of skipped calls, and the other calls are logged at debug level. Errors caused by callers
// are limited to failureBurst per second for each procedure and code. All other calls are
// always logged.
type Log struct {
	serverOnly

	log      *slog.Logger
	sampler  *throttle.Throttle // nil: log at debug level only
	failures *throttle.Throttle
}

// NewLog returns a logging interceptor. A nil sampler logs fast successful calls at debug
// level only, for example health checks.
func NewLog(log *slog.Logger, sampler *throttle.Throttle) *Log {
	return &Log{log: log, sampler: sampler, failures: throttle.New(time.Second, failureBurst)}
}

// WrapUnary logs unary calls.
func (l *Log) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		markLogged(ctx)
		start := time.Now()
		res, err := next(ctx, req)
		level, skipped, ok := l.level(ctx, req.Spec(), start, err)
		if ok {
			l.line(ctx, finishedCall{
				spec: req.Spec(), peer: req.Peer(), level: level, skipped: skipped, start: start, err: err,
				requestID: requestID(req.Any(), req.Header()),
			})
		}
		return res, err
	}
}

// WrapStreamingHandler logs streams when they end.
func (l *Log) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		markLogged(ctx)
		start := time.Now()
		err := next(ctx, conn)
		level, skipped, ok := l.level(ctx, conn.Spec(), start, err)
		if ok {
			l.line(ctx, finishedCall{
				spec: conn.Spec(), peer: conn.Peer(), level: level, skipped: skipped, start: start, err: err,
				requestID: requestID(nil, conn.RequestHeader()),
			})
		}
		return err
	}
}

type finishedCall struct {
	spec      connect.Spec
	peer      connect.Peer
	level     slog.Level
	skipped   int64
	start     time.Time
	err       error
	requestID string
}

// level returns the level of a finished call, and whether it is logged.
func (l *Log) level(ctx context.Context, spec connect.Spec, start time.Time, err error) (level slog.Level, skipped int64, ok bool) {
	level = levelOf(err, spec)
	now, taken := time.Now(), true
	switch {
	case level == slog.LevelInfo && (succeeded(err) && now.Sub(start) < slowCall || isDraining(err)):
		if taken = false; l.sampler != nil {
			skipped, taken = l.sampler.Allow(spec.Procedure, now)
		}
	case level < slog.LevelError && !succeeded(err):
		skipped, taken = l.failures.Allow(spec.Procedure+" "+recordedCode(err).String(), now)
	}
	if !taken {
		level = slog.LevelDebug
	}
	return level, skipped, l.log.Enabled(ctx, level)
}

func (l *Log) line(ctx context.Context, call finishedCall) {
	code, attrs := "ok", make([]slog.Attr, 0, 10)
	if !succeeded(call.err) {
		code = recordedCode(call.err).String()
	}
	attrs = append(attrs,
		slog.String("procedure", call.spec.Procedure),
		slog.String("protocol", Protocol(ctx, call.peer)),
		slog.String("code", code),
		slog.Duration("duration", time.Since(call.start)),
		slog.String("peer", call.peer.Addr),
	)
	if caller := auth.FromContext(ctx).Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	if call.requestID != "" {
		attrs = append(attrs, slog.String("request_id", call.requestID))
	}
	switch {
	case succeeded(call.err) && call.err != nil:
		attrs = append(attrs, slog.Bool("not_modified", true))
	case call.err != nil:
		attrs = append(attrs, slog.String("error", rpcstatus.Truncate(call.err.Error(), maxErrorBytes)))
	}
	if call.skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", call.skipped))
	}
	l.log.LogAttrs(ctx, call.level, "finished call", attrs...)
}

// requestID returns the idempotency key of the request, or else its X-Request-Id header.
func requestID(message any, header http.Header) string {
	id := ""
	if m, ok := message.(interface{ GetRequestId() string }); ok {
		id = m.GetRequestId()
	}
	if id == "" {
		id = header.Get("X-Request-Id")
	}
	if len(id) > maxRequestIDBytes {
		return ""
	}
	return id
}

func isDraining(err error) bool {
	var connectErr *connect.Error
	if connect.CodeOf(err) != connect.CodeUnavailable || !errors.As(err, &connectErr) {
		return false
	}
	for _, detail := range connectErr.Details() {
		value, err := detail.Value()
		if info, ok := value.(*errdetails.ErrorInfo); err == nil && ok {
			return info.GetReason() == string(user.ServerDraining)
		}
	}
	return false
}

// succeeded reports whether a call succeeded. A 304 response is a success, although connect
// represents it as an error.
func succeeded(err error) bool { return err == nil || connect.IsNotModifiedError(err) }

func levelOf(err error, spec connect.Spec) slog.Level {
	if succeeded(err) || isDraining(err) {
		return slog.LevelInfo
	}
	switch recordedCode(err) {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return slog.LevelError
	case connect.CodeUnavailable, connect.CodeResourceExhausted:
		return slog.LevelWarn
	case connect.CodeDeadlineExceeded:
		// The deadline of a stream is chosen by its client.
		if spec.StreamType == connect.StreamTypeUnary {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	default:
		return slog.LevelInfo
	}
}

// RequestLog records whether Log has logged a request. Requests that fail below the interceptors,
// for example with an undecodable message, must be logged elsewhere.
type RequestLog struct {
	// Protocol overrides the protocol of the call. REST requests reach the interceptors as
	// Connect calls.
	Protocol string

	logged atomic.Bool
}

type requestLogKey struct{}

// WithRequestLog returns a context in which Log updates s.
func WithRequestLog(ctx context.Context, s *RequestLog) context.Context {
	return context.WithValue(ctx, requestLogKey{}, s)
}

// IsLogged reports whether Log has logged the request of the context.
func IsLogged(ctx context.Context) bool {
	s, ok := ctx.Value(requestLogKey{}).(*RequestLog)
	return ok && s.logged.Load()
}

// Protocol returns the protocol of a call: grpc, grpcweb, connect or rest.
func Protocol(ctx context.Context, peer connect.Peer) string {
	if s, ok := ctx.Value(requestLogKey{}).(*RequestLog); ok && s.Protocol != "" {
		return s.Protocol
	}
	return peer.Protocol
}

func markLogged(ctx context.Context) {
	if s, ok := ctx.Value(requestLogKey{}).(*RequestLog); ok {
		s.logged.Store(true)
	}
}
