package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// requestState is the context of a request, with the state that its layers share. Value returns it by
// reqinfo.Key.
type requestState struct {
	context.Context //nolint:containedctx // it is one

	exchange *transport.Exchange // nil without a guard

	messages codec.Request

	auth  auth.State
	log   intercept.RequestLog
	trace *telemetry.CallerTrace // nil: no trace
}

// Value returns the value of a layer, or of the parent.
func (s *requestState) Value(key any) any {
	switch key.(type) {
	case reqinfo.Key[*budget.Reservation]:
		return s.exchange.Memory()
	case reqinfo.Key[*fair.Slot]:
		return s.exchange.Slot()
	case reqinfo.Key[*transport.Exchange], reqinfo.Key[user.Caller], reqinfo.Key[intercept.Body], reqinfo.Key[intercept.Response],
		reqinfo.Key[reqinfo.FlushControl]:
		return s.exchange
	case reqinfo.Key[reqinfo.ResponseHeader]:
		return reqinfo.ResponseHeader(s.exchange.Header())
	case reqinfo.Key[*codec.Request]:
		return &s.messages
	case reqinfo.Key[intercept.Messages]:
		if in := s.messages.Incoming(); in != nil {
			return in
		}
		return nil
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
	_ intercept.Response   = (*transport.Exchange)(nil)
	_ intercept.Messages   = (*codec.Incoming)(nil)
	_ reqinfo.FlushControl = (*transport.Exchange)(nil)
)

// requestContext returns the function that makes the context of a request.
func requestContext(tracing *telemetry.Tracing) func(context.Context, *http.Request, *transport.Exchange) context.Context {
	return func(ctx context.Context, r *http.Request, x *transport.Exchange) context.Context {
		state := &requestState{Context: ctx, exchange: x, trace: tracing.CallerTrace(r.Header)}
		if strings.HasPrefix(r.URL.Path, protocol.RESTPrefix) {
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
		intercept.LogOf(r.Context()).AuthFailure = refused
	}
}

// notRPC marks the requests of the handler as no RPCs, so that their success is not logged as a failed call.
func notRPC(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		intercept.LogOf(r.Context()).NotCall = true
		next.ServeHTTP(w, r)
	})
}
