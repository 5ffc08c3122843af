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
	"github.com/yourorg/userservice/service/user"
)

const (
	// slow is how long a call may take without being worth a line of its own.
	slow = time.Second
	// longestID bounds the request ids that are logged: what is longer is none.
	longestID = 128
)

// Log writes one line a call. It belongs outside Errors, where the code of the
// answer is known.
//
// Of the calls that went well and fast it writes those that the sampler takes, each
// with how many were skipped since the last; the others show at debug. Streams that end
// since the server stops count as such. Of the failures of callers it writes FailureBurst a
// second for each procedure and code. Everything else is always written.
type Log struct {
	serverOnly

	log      *slog.Logger
	sampler  *Sampler // nil: takes none
	failures *Sampler
}

// NewLog returns an interceptor that writes to the logger. Without a sampler calls that
// went well and fast show at debug only, which is right for what balancers ask all the
// time.
func NewLog(log *slog.Logger, sampler *Sampler) *Log {
	return &Log{log: log, sampler: sampler, failures: NewSampler(time.Second, FailureBurst)}
}

// WrapUnary logs unary calls.
func (l *Log) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		markSeen(ctx)
		began := time.Now()
		res, err := next(ctx, req)
		level, skipped, ok := l.level(ctx, req.Spec(), began, err)
		if ok {
			l.line(ctx, logged{
				spec: req.Spec(), peer: req.Peer(), level: level, skipped: skipped, began: began, err: err,
				requestID: requestID(req.Any(), req.Header()),
			})
		}
		return res, err
	}
}

// WrapStreamingHandler logs streams when they end.
func (l *Log) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		markSeen(ctx)
		began := time.Now()
		err := next(ctx, conn)
		level, skipped, ok := l.level(ctx, conn.Spec(), began, err)
		if ok {
			l.line(ctx, logged{
				spec: conn.Spec(), peer: conn.Peer(), level: level, skipped: skipped, began: began, err: err,
				requestID: requestID(nil, conn.RequestHeader()),
			})
		}
		return err
	}
}

// logged is a call that is worth a line.
type logged struct {
	spec      connect.Spec
	peer      connect.Peer
	level     slog.Level
	skipped   int64
	began     time.Time
	err       error
	requestID string
}

// level says whether a call that has ended is worth a line, and at which level.
func (l *Log) level(ctx context.Context, spec connect.Spec, began time.Time, err error) (level slog.Level, skipped int64, ok bool) {
	level = levelOf(err, spec)
	now, taken := time.Now(), true
	switch {
	case level == slog.LevelInfo && (isGood(err) && now.Sub(began) < slow || isDraining(err)):
		if taken = false; l.sampler != nil {
			skipped, taken = l.sampler.Take(spec.Procedure, now)
		}
	case level < slog.LevelError && !isGood(err):
		skipped, taken = l.failures.Take(spec.Procedure+" "+recordedCode(err).String(), now)
	}
	if !taken {
		level = slog.LevelDebug
	}
	return level, skipped, l.log.Enabled(ctx, level)
}

func (l *Log) line(ctx context.Context, call logged) {
	code, attrs := "ok", make([]slog.Attr, 0, 10)
	if !isGood(call.err) {
		code = recordedCode(call.err).String()
	}
	attrs = append(attrs,
		slog.String("procedure", call.spec.Procedure),
		slog.String("protocol", Protocol(ctx, call.peer)),
		slog.String("code", code),
		slog.Duration("duration", time.Since(call.began)),
		slog.String("peer", call.peer.Addr),
	)
	if caller := auth.FromContext(ctx).Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	if call.requestID != "" {
		attrs = append(attrs, slog.String("request_id", call.requestID))
	}
	switch {
	case isGood(call.err) && call.err != nil:
		attrs = append(attrs, slog.Bool("not_modified", true))
	case call.err != nil:
		attrs = append(attrs, slog.String("error", Clip(call.err.Error())))
	}
	if call.skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", call.skipped))
	}
	l.log.LogAttrs(ctx, call.level, "call", attrs...)
}

// requestID is what the caller knows the request by: the id that makes it safe to
// repeat, or else what a proxy in front has given it.
func requestID(message any, header http.Header) string {
	id := ""
	if m, ok := message.(interface{ GetRequestId() string }); ok {
		id = m.GetRequestId()
	}
	if id == "" {
		id = header.Get("X-Request-Id")
	}
	if len(id) > longestID {
		return ""
	}
	return id
}

// isDraining reports whether a call ended because the server stops. There may be
// thousands of such streams, and all of them end so.
func isDraining(err error) bool {
	var answer *connect.Error
	if connect.CodeOf(err) != connect.CodeUnavailable || !errors.As(err, &answer) {
		return false
	}
	for _, detail := range answer.Details() {
		value, err := detail.Value()
		if info, ok := value.(*errdetails.ErrorInfo); err == nil && ok {
			return info.GetReason() == string(user.ServerDraining)
		}
	}
	return false
}

// isGood reports whether a call went well. That the caller has the answer already, which
// travels as an error, is no failure.
func isGood(err error) bool { return err == nil || connect.IsNotModifiedError(err) }

func levelOf(err error, spec connect.Spec) slog.Level {
	if isGood(err) || isDraining(err) {
		return slog.LevelInfo
	}
	switch recordedCode(err) {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return slog.LevelError
	case connect.CodeUnavailable, connect.CodeResourceExhausted:
		return slog.LevelWarn
	case connect.CodeDeadlineExceeded:
		// The deadline of a stream is its caller's way to say how long it wants to listen.
		if spec.StreamType == connect.StreamTypeUnary {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	default:
		return slog.LevelInfo
	}
}

// Seen is where Log marks that it has seen a request. Refusals below the
// interceptors, such as a message that cannot be decoded, it does not see; whoever
// serves the request logs those.
type Seen struct {
	// Protocol is what the caller speaks where the call itself does not tell: REST is
	// turned into Connect before it gets here.
	Protocol string

	yes atomic.Bool
}

type seenKey struct{}

// WithSeen returns a context in which Log marks s.
func WithSeen(ctx context.Context, s *Seen) context.Context {
	return context.WithValue(ctx, seenKey{}, s)
}

// IsSeen reports whether Log has seen the request of the context.
func IsSeen(ctx context.Context) bool {
	s, ok := ctx.Value(seenKey{}).(*Seen)
	return ok && s.yes.Load()
}

// Protocol is what the caller of a call speaks: grpc, grpcweb, connect or rest.
func Protocol(ctx context.Context, peer connect.Peer) string {
	if s, ok := ctx.Value(seenKey{}).(*Seen); ok && s.Protocol != "" {
		return s.Protocol
	}
	return peer.Protocol
}

func markSeen(ctx context.Context) {
	if s, ok := ctx.Value(seenKey{}).(*Seen); ok {
		s.yes.Store(true)
	}
}
