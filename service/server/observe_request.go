package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// requestState is the context of a request, with the state that its layers share. Value returns it by
// reqinfo.Key. The first group of fields is for the log line of a request that does not become a call;
// only the goroutine of the request may use it.
type requestState struct {
	context.Context //nolint:containedctx // it is one

	refused  *auth.RefusedError  // authentication failure
	limited  *user.Error         // rejection by a limit, or by the policy before the call
	notRPC   bool                // page, document or preflight
	exchange *transport.Exchange // nil without a guard
	incoming *codec.Incoming     // nil if no RPC reads the body
	outgoing *codec.Outgoing     // nil if no RPC writes the response

	auth  auth.State
	log   intercept.RequestLog
	trace *telemetry.CallerTrace // nil: no trace
}

// Value returns the value of a layer, or of the parent.
func (s *requestState) Value(key any) any {
	switch key.(type) {
	case reqinfo.Key[*requestState]:
		return s
	case reqinfo.Key[*budget.Reservation]:
		return s.exchange.Memory()
	case reqinfo.Key[*fair.Slot]:
		return s.exchange.Slot()
	case reqinfo.Key[user.Caller], reqinfo.Key[intercept.Body], reqinfo.Key[reqinfo.FlushControl]:
		return s.exchange
	case reqinfo.Key[*auth.State]:
		return &s.auth
	case reqinfo.Key[*intercept.RequestLog]:
		return &s.log
	case reqinfo.Key[*telemetry.CallerTrace]:
		return s.trace
	}
	return s.Context.Value(key)
}

// The type assertions of reqinfo.From must succeed.
var (
	_ user.Caller          = (*transport.Exchange)(nil)
	_ intercept.Body       = (*transport.Exchange)(nil)
	_ reqinfo.FlushControl = (*transport.Exchange)(nil)
)

// stateOf returns the state of the request, or an unused one if the context has none.
func stateOf(ctx context.Context) *requestState {
	if state := reqinfo.From[*requestState](ctx); state != nil {
		return state
	}
	return new(requestState)
}

// requestContext returns the function that makes the context of a request.
func requestContext(tracing *telemetry.Tracing) func(*http.Request, *transport.Exchange) context.Context {
	return func(r *http.Request, x *transport.Exchange) context.Context {
		state := &requestState{Context: r.Context(), exchange: x, trace: tracing.CallerTrace(r.Header)}
		if isREST(r) {
			state.log.Protocol = "rest"
		}
		return state
	}
}

// recordAuthFailure returns a hook that counts an authentication failure and records it in the request state.
func recordAuthFailure(metrics *telemetry.Metrics) func(*http.Request, *auth.RefusedError) {
	metrics.AddAuthenticationCauses(auth.Causes()...)
	return func(r *http.Request, refused *auth.RefusedError) {
		metrics.AuthenticationFailed(string(refused.Cause))
		stateOf(r.Context()).refused = refused
	}
}

// notRPC marks the requests of the handler as no RPCs, so that their success is not logged as a failed call.
func notRPC(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stateOf(r.Context()).notRPC = true
		next.ServeHTTP(w, r)
	})
}

// requestLog counts requests, and logs those that do not become a call.
type requestLog struct {
	log        *slog.Logger
	metrics    *telemetry.Metrics
	procedures map[string]bool
	limited    *throttle.Throttle // of rejections by limits, by reason
	failed     *throttle.Throttle // of other failures, by protocol and cause
}

func newRequestLog(log *slog.Logger, metrics *telemetry.Metrics, additional []Service) *requestLog {
	return &requestLog{
		log: log, metrics: metrics, procedures: procedures(additional),
		limited: throttle.New(sampleInterval, 1), failed: throttle.New(sampleInterval, failureBurst),
	}
}

// done is called when the handler of the request has returned.
func (w *requestLog) done(r *http.Request, x *transport.Exchange) {
	state, logged := stateOf(r.Context()), intercept.IsLogged(r.Context())
	status := x.Status()
	called := logged || state.notRPC && status < http.StatusBadRequest
	w.metrics.HTTPDone(r, state.status(status), headerToCount(x), called)
	if !logged || x.Panicked() {
		w.write(r, x, state)
	}
}

// status returns the HTTP status to count. A rejected Connect stream has status 200 and the error in its body.
func (s *requestState) status(sent int) int {
	switch {
	case sent != http.StatusOK:
	case s.refused != nil:
		return http.StatusUnauthorized
	case s.limited != nil:
		return rpcstatus.HTTPStatus(s.limited.Code, s.limited.Reason)
	}
	return sent
}

// headerToCount returns the response header with the gRPC status to count: INVALID_ARGUMENT for an
// invalid body, for which gRPC may specify INTERNAL.
func headerToCount(x *transport.Exchange) http.Header {
	if x.InvalidBody() && telemetry.GRPCStatus(x.Header()) == int(connect.CodeInternal) {
		return http.Header{"Grpc-Status": {strconv.Itoa(int(connect.CodeInvalidArgument))}}
	}
	return x.Header()
}

// write logs a request that no interceptor has logged: unknown path or method, undecodable message,
// rejected caller. Lines are sampled by cause, with the number of skipped ones, and texts are truncated.
func (w *requestLog) write(r *http.Request, x *transport.Exchange, s *requestState) {
	ctx, status := r.Context(), s.status(x.Status())
	code := codeOf(status, telemetry.GRPCStatus(headerToCount(x)))
	level := levelOf(status, code)
	if !w.log.Enabled(ctx, level) {
		return
	}
	spoken := protocol.Of(r).String()
	skipped, sampled := int64(0), true
	switch now := time.Now(); {
	case s.limited != nil && s.limited.Code != user.PermissionDenied && s.limited.Code != user.Unauthenticated:
		skipped, sampled = w.limited.Allow(string(s.limited.Reason), now)
	case level < slog.LevelError:
		skipped, sampled = w.failed.Allow(spoken+" "+s.cause(code), now)
	}
	if !sampled {
		return
	}
	attrs := []slog.Attr{slog.String("method", rpcstatus.Truncate(r.Method, maxLogged)), slog.String("path", rpcstatus.Truncate(r.URL.Path, maxLogged))}
	if _, ok := w.procedures[r.URL.Path]; ok {
		attrs = append(attrs, slog.String("procedure", r.URL.Path))
	}
	attrs = append(attrs,
		slog.String("protocol", spoken), slog.String("http", r.Proto),
		slog.Int("status", x.Status()), slog.String("code", code),
		slog.Duration("duration", time.Since(x.StartTime())), slog.String("peer", r.RemoteAddr))
	w.log.LogAttrs(ctx, level, "finished request", append(attrs, s.attrs(skipped)...)...)
}

// cause returns why the request failed, from a fixed set of words.
func (s *requestState) cause(code string) string {
	switch {
	case s.refused != nil:
		return string(s.refused.Cause)
	case s.limited != nil:
		return string(s.limited.Reason)
	}
	return code
}

// attrs returns the log attributes of the state.
func (s *requestState) attrs(skipped int64) (attrs []slog.Attr) {
	if caller := s.auth.Caller().Subject; caller != "" {
		attrs = append(attrs, slog.String("caller", caller))
	}
	if s.refused != nil {
		attrs = append(attrs, slog.String("auth_failure", string(s.refused.Cause)))
		if s.refused.Detail != nil {
			attrs = append(attrs, slog.Any("error", s.refused.Detail))
		}
	}
	if s.limited != nil {
		attrs = append(attrs, slog.String("reason", string(s.limited.Reason)))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("skipped", skipped))
	}
	return attrs
}

// levelOf returns the log level. Successes are logged at debug, unsupported methods and HTTP versions
// at info like other client errors.
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

// codeOf returns the code of a response, from its gRPC status if it has one.
func codeOf(status, grpcStatus int) string {
	code := connect.Code(grpcStatus)
	if code == 0 {
		code = connect.Code(rpcstatus.CodeOf(status))
	}
	if code == 0 {
		return codeOK
	}
	return code.String()
}
