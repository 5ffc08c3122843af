package intercept

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/rpcstatus"
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

// level returns the level of the line of a finished call, and whether it is logged.
func (o *Observer) level(ctx context.Context, c *observed, reason user.Reason) (level slog.Level, skipped int64, ok bool) {
	now, taken, spec := time.Now(), true, c.call.Spec()
	draining := c.code == connect.CodeUnavailable && reason == user.ServerDraining
	if level = levelOf(c.code, spec); draining {
		level = slog.LevelInfo
	}
	switch {
	case c.code == codeOK && now.Sub(c.start) < slowCall || draining:
		if taken = false; o.sampler != nil {
			skipped, taken = o.sampler.Allow(spec.Procedure, now)
		}
	case level < slog.LevelError && c.code != codeOK:
		skipped, taken = o.failures.Allow(spec.Procedure+" "+c.code.String(), now)
	}
	if !taken {
		level = slog.LevelDebug
	}
	return level, skipped, o.log.Enabled(ctx, level)
}

func (o *Observer) line(ctx context.Context, c *observed, level slog.Level, skipped int64, requestID string, reason user.Reason, err error) {
	code, attrs, peer := okText, make([]slog.Attr, 0, 11), c.call.Peer()
	if c.code != codeOK {
		code = c.code.String()
	}
	attrs = append(attrs,
		slog.String("procedure", c.call.Spec().Procedure),
		slog.String("protocol", Protocol(ctx, peer)),
		slog.String("code", code),
		slog.Duration("duration", time.Since(c.start)),
		slog.String("peer", peer.Addr),
	)
	if caller := auth.FromContext(ctx).Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	if requestID != "" {
		attrs = append(attrs, slog.String("request_id", requestID))
	}
	if reason != "" {
		attrs = append(attrs, slog.String("reason", string(reason)))
	}
	switch {
	case c.code == codeOK && err != nil:
		attrs = append(attrs, slog.Bool("not_modified", true))
	case err != nil:
		attrs = append(attrs, slog.String("error", rpcstatus.Truncate(err.Error(), maxErrorBytes)))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", skipped))
	}
	o.log.LogAttrs(ctx, level, "finished call", attrs...)
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

func levelOf(code connect.Code, spec connect.Spec) slog.Level {
	switch code {
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
