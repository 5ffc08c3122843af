package intercept

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
)

// slow is how long a unary call may take without being worth a line above debug.
const slow = time.Second

// Log writes one line a call. It belongs outside Errors, where the code of the
// answer is known.
type Log struct {
	serverOnly

	log *slog.Logger
}

// NewLog returns an interceptor that writes to the logger.
func NewLog(log *slog.Logger) *Log { return &Log{log: log} }

// WrapUnary logs unary calls.
func (l *Log) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		markSeen(ctx)
		began := time.Now()
		res, err := next(ctx, req)
		l.line(ctx, req.Spec(), req.Peer(), time.Since(began), err)
		return res, err
	}
}

// WrapStreamingHandler logs streams when they end.
func (l *Log) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		markSeen(ctx)
		began := time.Now()
		err := next(ctx, conn)
		l.line(ctx, conn.Spec(), conn.Peer(), time.Since(began), err)
		return err
	}
}

func (l *Log) line(ctx context.Context, spec connect.Spec, peer connect.Peer, took time.Duration, err error) {
	level := levelOf(spec, took, err)
	if !l.log.Enabled(ctx, level) {
		return
	}
	code, attrs := "ok", make([]slog.Attr, 0, 8)
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	attrs = append(attrs,
		slog.String("procedure", spec.Procedure),
		slog.String("protocol", peer.Protocol),
		slog.String("code", code),
		slog.Duration("duration", took),
		slog.String("peer", peer.Addr),
	)
	if caller := auth.FromContext(ctx).Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	l.log.LogAttrs(ctx, level, "call", attrs...)
}

func levelOf(spec connect.Spec, took time.Duration, err error) slog.Level {
	if err == nil {
		if spec.StreamType == connect.StreamTypeUnary && took >= slow {
			return slog.LevelInfo
		}
		return slog.LevelDebug
	}
	switch connect.CodeOf(err) {
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return slog.LevelError
	case connect.CodeUnavailable, connect.CodeResourceExhausted, connect.CodeDeadlineExceeded:
		return slog.LevelWarn
	case connect.CodeCanceled: // callers go away; that is how most streams end
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}

// Seen is where Log marks that it has seen a request. Refusals below the
// interceptors, such as a message that cannot be decoded, it does not see; whoever
// serves the request logs those.
type Seen struct{ yes atomic.Bool }

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

func markSeen(ctx context.Context) {
	if s, ok := ctx.Value(seenKey{}).(*Seen); ok {
		s.yes.Store(true)
	}
}
