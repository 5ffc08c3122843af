package intercept

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// maxTextBytes is the maximum length of a text of the client in a log line.
const maxTextBytes = 256

// RequestLog in the context of a request records what its layers report for its log line and its count. Only
// the goroutine of the request may set its fields.
type RequestLog struct {
	// Protocol overrides the protocol of the call. REST requests reach the interceptors as
	// Connect calls.
	Protocol string
	// AuthFailure is why the request was not authenticated.
	AuthFailure *auth.RefusedError
	// Rejected is the error with which a limit, or the policy before the call, rejected the request.
	Rejected *user.Error
	// NotCall marks a request of a page or document, whose success is not logged as a failed call.
	NotCall bool

	logged atomic.Bool // an Observer has recorded the call
}

// LogOf returns the log of the request, or an unused one if the context has none.
func LogOf(ctx context.Context) *RequestLog {
	if l := reqinfo.From[*RequestLog](ctx); l != nil {
		return l
	}
	return new(RequestLog)
}

// Protocol returns the protocol of a call: grpc, grpcweb, connect or rest.
func Protocol(ctx context.Context, peer connect.Peer) string {
	if l := reqinfo.From[*RequestLog](ctx); l != nil && l.Protocol != "" {
		return l.Protocol
	}
	return peer.Protocol
}

func markLogged(ctx context.Context) {
	if l := reqinfo.From[*RequestLog](ctx); l != nil {
		l.logged.Store(true)
	}
}

// Response in the context of a request is its response. The methods except Written and IsDirect are for a request whose
// handler has returned.
type Response interface {
	// Written returns the number of bytes written.
	Written() int64
	// IsDirect reports whether another goroutine than the handler's writes, which must not wait.
	IsDirect() bool
	Status() int
	Header() http.Header
	StartTime() time.Time
	// InvalidBody reports whether the client sent an invalid request body.
	InvalidBody() bool
	// Panicked reports whether the handler panicked.
	Panicked() bool
}

// RequestDone counts a request, and logs it if no interceptor has logged it as a call: unknown path or method,
// undecodable message, rejected caller. Lines are sampled by cause, with the number of skipped ones, and texts are
// truncated.
func (o *Observer) RequestDone(r *http.Request, res Response) {
	l := LogOf(r.Context())
	logged, status, header := l.logged.Load(), l.status(res.Status()), headerToCount(res)
	called := logged || (l.NotCall || isPreflight(r)) && res.Status() < http.StatusBadRequest
	o.countRequest(r, status, header, called)
	if !logged || res.Panicked() {
		o.requestLine(r, res, l, status, codeOfStatus(status, protocol.GRPCStatus(header)))
	}
}

// isPreflight reports whether a browser asks which cross-origin requests are allowed.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

func (o *Observer) requestLine(r *http.Request, res Response, l *RequestLog, status int, code string) {
	ctx, level := r.Context(), levelOfStatus(status, code)
	if !o.log.Enabled(ctx, level) {
		return
	}
	spoken := protocol.Of(r).String()
	skipped, sampled := int64(0), true
	switch now := time.Now(); {
	case l.Rejected != nil && l.Rejected.Code != user.PermissionDenied && l.Rejected.Code != user.Unauthenticated:
		skipped, sampled = o.sampler.Allow(string(l.Rejected.Reason), now)
	case level < slog.LevelError:
		skipped, sampled = o.failures.Allow(spoken+" "+l.cause(code), now)
	}
	if !sampled {
		return
	}
	attrs := []slog.Attr{slog.String("method", rpcstatus.Truncate(r.Method, maxTextBytes)), slog.String("path", rpcstatus.Truncate(r.URL.Path, maxTextBytes))}
	if _, ok := o.procedures[r.URL.Path]; ok {
		attrs = append(attrs, slog.String("procedure", r.URL.Path))
	}
	attrs = append(attrs,
		slog.String("protocol", spoken), slog.String("http", r.Proto),
		slog.Int("status", res.Status()), slog.String("code", code),
		slog.Duration("duration", time.Since(res.StartTime())), slog.String("peer", r.RemoteAddr))
	if caller := auth.FromContext(ctx).Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	o.log.LogAttrs(ctx, level, "finished request", append(attrs, l.attrs(skipped)...)...)
}

// status returns the HTTP status to count. A rejected Connect stream has status 200 and the error in its body.
func (l *RequestLog) status(sent int) int {
	switch {
	case sent != http.StatusOK:
	case l.AuthFailure != nil:
		return http.StatusUnauthorized
	case l.Rejected != nil:
		return rpcstatus.HTTPStatus(l.Rejected.Code, l.Rejected.Reason)
	}
	return sent
}

// cause returns why the request failed, from a fixed set of words.
func (l *RequestLog) cause(code string) string {
	switch {
	case l.AuthFailure != nil:
		return string(l.AuthFailure.Cause)
	case l.Rejected != nil:
		return string(l.Rejected.Reason)
	}
	return code
}

func (l *RequestLog) attrs(skipped int64) (attrs []slog.Attr) {
	if l.AuthFailure != nil {
		attrs = append(attrs, slog.String("auth_failure", string(l.AuthFailure.Cause)))
		if l.AuthFailure.Detail != nil {
			attrs = append(attrs, slog.Any("error", l.AuthFailure.Detail))
		}
	}
	if l.Rejected != nil {
		attrs = append(attrs, slog.String("reason", string(l.Rejected.Reason)))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", skipped))
	}
	return attrs
}

// headerToCount returns the response header with the gRPC status to count: INVALID_ARGUMENT for an
// invalid body, for which gRPC may specify INTERNAL.
func headerToCount(res Response) http.Header {
	if res.InvalidBody() && protocol.GRPCStatus(res.Header()) == int(connect.CodeInternal) {
		return http.Header{"Grpc-Status": {strconv.Itoa(int(connect.CodeInvalidArgument))}}
	}
	return res.Header()
}

// levelOfStatus returns the log level. Successes are logged at debug, unsupported methods and HTTP versions
// at info like other client errors.
func levelOfStatus(status int, code string) slog.Level {
	switch {
	case status == http.StatusServiceUnavailable:
		return slog.LevelWarn
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		return slog.LevelInfo
	case status >= http.StatusInternalServerError:
		return slog.LevelError
	case code != okText:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// codeOfStatus returns the code of a response, from its gRPC status if it has one.
func codeOfStatus(status, grpcStatus int) string {
	code := connect.Code(grpcStatus)
	if code == codeOK {
		code = connect.Code(rpcstatus.CodeOf(status))
	}
	if code == codeOK {
		return okText
	}
	return code.String()
}
