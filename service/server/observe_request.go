package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// note is what the parts of the server tell each other of a request that may never
// become a call. It is for the goroutine of the request.
type note struct {
	refused  *auth.RefusedError  // by what asks who is calling
	limited  *user.Error         // by a limit, or by the policy before there was a call
	caller   string              // the subject, once it is known
	plain    bool                // it asks for a page or a permission of browsers, and never is a call
	exchange *transport.Exchange // nil where no guard is around
	incoming *transport.Incoming // nil where no RPC reads the body
	outgoing *transport.Outgoing // nil where no RPC writes the response
}

type noteKey struct{}

// noteOf returns the note of a request, one that nobody reads where there is none.
func noteOf(ctx context.Context) *note {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		return n
	}
	return new(note)
}

// requestContext returns what makes the context of a request. Its parts tell each other
// through it: the interceptors say that they have seen the request, and can end the
// reading of its body; a stream says when it is to be flushed; what refuses a caller
// says why; and every line has the trace that the caller names.
func requestContext(tracing *telemetry.Tracing) func(*http.Request, *transport.Exchange) context.Context {
	return func(r *http.Request, x *transport.Exchange) context.Context {
		ctx := context.WithValue(tracing.WithCaller(r.Context(), r.Header), noteKey{}, &note{exchange: x})
		seen := new(intercept.RequestLog)
		if strings.HasPrefix(r.URL.Path, rest.Prefix) {
			seen.Protocol = "rest"
		}
		ctx = intercept.WithBody(intercept.WithRequestLog(ctx, seen), x)
		ctx = fair.NewContext(budget.NewContext(ctx, x.Memory()), x.Slot())
		return withFlusher(ctx, x)
	}
}

// noteRefusal counts refused credentials and notes why, for the line of the request.
func noteRefusal(metrics *telemetry.Metrics) func(*http.Request, *auth.RefusedError) {
	return func(r *http.Request, refused *auth.RefusedError) {
		metrics.AuthenticationFailed(string(refused.Cause))
		noteOf(r.Context()).refused = refused
	}
}

// notePlain notes that what the handler answers is no call and was not meant to be one.
func notePlain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noteOf(r.Context()).plain = true
		next.ServeHTTP(w, r)
	})
}

// requestWatch counts requests, and logs those that never become a call.
type requestWatch struct {
	log     *slog.Logger
	metrics *telemetry.Metrics
	known   map[string]bool    // the paths that are procedures
	limited *intercept.Sampler // of what a limit refuses, by its reason
	failed  *intercept.Sampler // of what else fails, by protocol and cause
}

// newRequestWatch returns what is told of every request.
func newRequestWatch(log *slog.Logger, metrics *telemetry.Metrics, further []Service) *requestWatch {
	return &requestWatch{
		log: log, metrics: metrics, known: procedures(further),
		limited: intercept.NewSampler(sampleEvery, 1), failed: intercept.NewSampler(sampleEvery, intercept.FailureBurst),
	}
}

// done is told of a request when its handler has returned.
func (w *requestWatch) done(r *http.Request, x *transport.Exchange) {
	n, seen := noteOf(r.Context()), intercept.IsLogged(r.Context())
	status := x.Status()
	called := seen || n.plain && status < http.StatusBadRequest
	w.metrics.HTTPDone(r, n.status(status), headerToCount(x), called)
	if !seen || x.Panicked() {
		w.line(r, x, n)
	}
}

// status is the status to count. A refused stream over Connect is answered 200, with
// the refusal in the body.
func (n *note) status(sent int) int {
	switch {
	case sent != http.StatusOK:
	case n.refused != nil:
		return http.StatusUnauthorized
	case n.limited != nil && n.limited.Code == user.Unavailable:
		return http.StatusServiceUnavailable
	case n.limited != nil && n.limited.Code == user.PermissionDenied:
		return http.StatusForbidden
	case n.limited != nil && n.limited.Code == user.Unauthenticated:
		return http.StatusUnauthorized
	case n.limited != nil:
		return http.StatusTooManyRequests
	}
	return sent
}

// headerToCount returns the header of a response with the gRPC status to count: a body
// that the caller got wrong is the caller's error, although gRPC has INTERNAL for some.
func headerToCount(x *transport.Exchange) http.Header {
	if x.InvalidBody() && telemetry.GRPCStatus(x.Header()) == int(connect.CodeInternal) {
		return http.Header{"Grpc-Status": {strconv.Itoa(int(connect.CodeInvalidArgument))}}
	}
	return x.Header()
}

// line logs a request that no interceptor has seen: an unknown path, a wrong method, a
// message that cannot be decoded, a caller who was refused. Of requests that fail for one
// cause it logs some a second, with how many were skipped, and no more of a text than its
// beginning: a flood of requests must not become a flood of lines.
func (w *requestWatch) line(r *http.Request, x *transport.Exchange, n *note) {
	ctx, status := r.Context(), n.status(x.Status())
	code := codeOf(status, telemetry.GRPCStatus(headerToCount(x)))
	level := levelOf(status, code)
	if !w.log.Enabled(ctx, level) {
		return
	}
	protocol := telemetry.Protocol(r)
	skipped, taken := int64(0), true
	switch now := time.Now(); {
	case n.limited != nil && n.limited.Code != user.PermissionDenied && n.limited.Code != user.Unauthenticated:
		skipped, taken = w.limited.Take(string(n.limited.Reason), now)
	case level < slog.LevelError:
		skipped, taken = w.failed.Take(protocol+" "+n.cause(code), now)
	}
	if !taken {
		return
	}
	attrs := []slog.Attr{slog.String("method", intercept.Clip(r.Method)), slog.String("path", intercept.Clip(r.URL.Path))}
	if w.isProcedure(r.URL.Path) {
		attrs = append(attrs, slog.String("procedure", r.URL.Path))
	}
	attrs = append(attrs,
		slog.String("protocol", protocol), slog.String("http", r.Proto),
		slog.Int("status", x.Status()), slog.String("code", code),
		slog.Duration("duration", time.Since(x.StartTime())), slog.String("peer", r.RemoteAddr))
	w.log.LogAttrs(ctx, level, "request", append(attrs, n.attrs(skipped)...)...)
}

// cause is why a request failed, in one of few words.
func (n *note) cause(code string) string {
	switch {
	case n.refused != nil:
		return string(n.refused.Cause)
	case n.limited != nil:
		return string(n.limited.Reason)
	}
	return code
}

func (w *requestWatch) isProcedure(path string) bool {
	_, ok := w.known[path]
	return ok
}

// attrs are what the parts of the server have noted.
func (n *note) attrs(skipped int64) (attrs []slog.Attr) {
	if n.caller != "" {
		attrs = append(attrs, slog.String("caller", n.caller))
	}
	if n.refused != nil {
		attrs = append(attrs, slog.String("refused", string(n.refused.Cause)))
		if n.refused.Detail != nil {
			attrs = append(attrs, slog.Any("error", n.refused.Detail))
		}
	}
	if n.limited != nil {
		attrs = append(attrs, slog.String("reason", string(n.limited.Reason)))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", skipped))
	}
	return attrs
}

// levelOf gives the level of a line. What goes well is no news here, and what a caller
// asks for that is not spoken, a method or a version of HTTP, is the caller's fault.
func levelOf(status int, code string) slog.Level {
	switch {
	case status == http.StatusServiceUnavailable:
		return slog.LevelWarn
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return slog.LevelInfo
	case status >= http.StatusInternalServerError:
		return slog.LevelError
	case code != codeOK:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

const codeOK = "ok"

// statusCodes are the codes that lines of calls would have, by the status of HTTP where
// no call was made.
var statusCodes = map[int]connect.Code{ // never changed
	http.StatusBadRequest: connect.CodeInvalidArgument, http.StatusUnauthorized: connect.CodeUnauthenticated,
	http.StatusForbidden: connect.CodePermissionDenied, http.StatusNotFound: connect.CodeNotFound,
	http.StatusMethodNotAllowed: connect.CodeUnimplemented, http.StatusNotAcceptable: connect.CodeInvalidArgument,
	http.StatusConflict: connect.CodeAborted, http.StatusPreconditionFailed: connect.CodeFailedPrecondition,
	http.StatusRequestEntityTooLarge: connect.CodeResourceExhausted, http.StatusUnsupportedMediaType: connect.CodeInvalidArgument,
	http.StatusTooManyRequests: connect.CodeResourceExhausted, http.StatusInternalServerError: connect.CodeInternal,
	http.StatusNotImplemented: connect.CodeUnimplemented, http.StatusServiceUnavailable: connect.CodeUnavailable,
	http.StatusGatewayTimeout: connect.CodeDeadlineExceeded, http.StatusHTTPVersionNotSupported: connect.CodeUnimplemented,
}

// codeOf gives the code of an answer, from the status of gRPC where there is one.
func codeOf(status, grpcStatus int) string {
	if grpcStatus > 0 {
		return connect.Code(grpcStatus).String()
	}
	if code, ok := statusCodes[status]; ok {
		return code.String()
	}
	if status < http.StatusBadRequest {
		return codeOK
	}
	return connect.CodeUnknown.String()
}
