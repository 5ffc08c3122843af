package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// The context of a request has the values of all layers, also in derived contexts. The authentication
// sets the caller in it, for contexts derived before too.
func TestRequestStateHasEachValue(t *testing.T) {
	t.Parallel()
	guard := transport.NewGuard(transport.GuardOptions{
		StallTimeout: time.Minute, BodyTimeout: time.Minute, Context: requestContext(telemetry.DisabledTracing()),
		Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(guard.Close)
	type parentKey struct{}
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), parentKey{}, "parent"), http.MethodGet, "/api/v1/users", http.NoBody)
	r.RemoteAddr = "192.0.2.7:99"
	authenticate := auth.Middleware(auth.MiddlewareOptions{
		Policy:       auth.NewPolicy(auth.ReflectionOff),
		Authenticate: func(*http.Request) (auth.Caller, error) { return auth.Caller{Subject: "ada"}, nil },
	})
	guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer, cancel := context.WithCancel(r.Context())
		defer cancel()
		authenticate(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for _, ctx := range []context.Context{outer, r.Context()} {
				for name, missing := range map[string]bool{
					"memory":        reqinfo.From[*budget.Reservation](ctx) == nil,
					"slot":          reqinfo.From[*fair.Slot](ctx) == nil,
					"body":          reqinfo.From[intercept.Body](ctx) == nil,
					"flush control": reqinfo.From[reqinfo.FlushControl](ctx) == nil,
					"log":           intercept.Protocol(ctx, connect.Peer{}) != "rest",
					"state":         reqinfo.From[*transport.Exchange](ctx) == nil,
					"parent":        ctx.Value(parentKey{}) != "parent",
				} {
					if missing {
						t.Errorf("context of the request has no value: %s", name)
					}
				}
				if got := user.CallerFromContext(ctx); got != "192.0.2.7" {
					t.Errorf("CallerFromContext(ctx) = %q, want the address", got)
				}
				if got := auth.FromContext(ctx).Subject; got != "ada" {
					t.Errorf("auth.FromContext(ctx) = %q, want ada", got)
				}
			}
		})).ServeHTTP(w, r)
	})).ServeHTTP(httptest.NewRecorder(), r)
}
