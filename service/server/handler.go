package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
)

// handler returns what the public port serves, but for the guard around it.
func (s *Server) handler() (http.Handler, error) {
	validator, err := intercept.NewValidator(userv1.File_user_v1_user_service_proto)
	if err != nil {
		return nil, err
	}
	limit := int64(s.cfg.MaxMessageBytes)
	rpcs := service.New(s.store, s.feed, service.Options{
		MaxMessageBytes: int(limit),
		MaxStreamItems:  s.cfg.MaxStreamItems,
		Retention:       s.cfg.Retention,
		Logger:          s.log,
		Validate:        intercept.Item(validator),
	})
	policy := auth.NewPolicy(auth.ReflectionOpen)
	rpc := rpcMux(rpcs, s.health,
		handlerOptions(limit, chain(s.log, s.store, s.feed, validator, policy)),
		handlerOptions(limit, plainChain(s.log, policy)))
	resources, err := s.resources(rpc)
	if err != nil {
		return nil, err
	}
	identified := auth.Middleware(auth.MiddlewareOptions{
		Policy: policy, Pages: []string{"/", "/openapi.yaml"},
	})
	return crossOrigin(s.cfg.CORSOrigin, identified(routes(rpc, resources)))
}

// newGuard returns the guard of the public port.
func newGuard(cfg Config, log *slog.Logger) *transport.Guard {
	return transport.NewGuard(transport.GuardOptions{
		StallTimeout:    cfg.StallTimeout,
		BodyTimeout:     bodyTimeout,
		MaxMessageBytes: int64(cfg.MaxMessageBytes),
		TooLarge:        tooLarge,
		Streams:         openEnded(),
		Context: func(ctx context.Context, x *transport.Exchange) context.Context {
			// The interceptors say that they have seen the request, a stream says
			// when it is to be flushed.
			return service.WithFlusher(intercept.WithSeen(ctx, new(intercept.Seen)), x)
		},
		Done:   logUnseen(log),
		Logger: log,
	})
}

// logUnseen returns a function that logs the requests that no interceptor has seen:
// unknown paths, wrong methods, messages that cannot be decoded.
func logUnseen(log *slog.Logger) func(*http.Request, *transport.Exchange) {
	return func(r *http.Request, x *transport.Exchange) {
		ctx := r.Context()
		if intercept.IsSeen(ctx) {
			return
		}
		status, level := x.Status(), slog.LevelDebug
		code := x.Header().Get(http.TrailerPrefix + "Grpc-Status")
		switch {
		case status >= http.StatusInternalServerError:
			level = slog.LevelError
		case status >= http.StatusBadRequest, code != "" && code != "0":
			level = slog.LevelInfo
		}
		if !log.Enabled(ctx, level) {
			return
		}
		attrs := []slog.Attr{
			slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.String("protocol", r.Proto), slog.Int("status", status),
			slog.Duration("duration", time.Since(x.Born())), slog.String("peer", r.RemoteAddr),
		}
		if code != "" {
			attrs = append(attrs, slog.String("grpc_status", code))
		}
		log.LogAttrs(ctx, level, "request", attrs...)
	}
}

var _ service.FlushControl = (*transport.Exchange)(nil)
