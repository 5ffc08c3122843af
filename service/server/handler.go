package server

import (
	"context"
	"log/slog"
	"net/http"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// handler returns what the public port serves, but for the guard around it. store is
// the store as calls see it.
func (s *Server) handler(store user.Store) (http.Handler, error) {
	validator, err := intercept.NewValidator(userv1.File_user_v1_user_service_proto)
	if err != nil {
		return nil, err
	}
	limit := int64(s.cfg.MaxMessageBytes)
	rpcs := service.New(store, s.feed, service.Options{
		MaxMessageBytes: int(limit),
		MaxStreamItems:  s.cfg.MaxStreamItems,
		Retention:       s.cfg.Retention,
		Logger:          s.log,
		Validate:        intercept.Item(validator),
	})
	watching, err := newObservers(s.log, s.metrics, s.tracing)
	if err != nil {
		return nil, err
	}
	l := links{observers: watching, log: s.log, store: store, feed: s.feed, validator: validator, policy: s.callers.policy, limits: s.limits}
	rpc := rpcMux(rpcs, s.health, handlerOptions(limit, chain(l)), handlerOptions(limit, plainChain(l)))
	resources, err := s.resources(rpc)
	if err != nil {
		return nil, err
	}
	identified := s.callers.middleware(noteRefusal(s.metrics), s.limits.tooMany)
	return crossOrigin(s.cfg.CORSOrigin, s.limits.shed(identified(s.limits.slow(routes(rpc, resources, s.callers)))))
}

// newGuard returns the guard of the public port.
func newGuard(cfg Config, log *slog.Logger, metrics *telemetry.Metrics) *transport.Guard {
	return transport.NewGuard(transport.GuardOptions{
		StallTimeout:    cfg.StallTimeout,
		BodyTimeout:     bodyTimeout,
		MaxMessageBytes: int64(cfg.MaxMessageBytes),
		TooLarge:        tooLarge,
		Streams:         openEnded(),
		Context:         requestContext,
		Done:            requestDone(log, metrics),
		Logger:          log,
	})
}

// withFlusher lets a stream say when it is to be flushed.
func withFlusher(ctx context.Context, x *transport.Exchange) context.Context {
	return service.WithFlusher(ctx, x)
}

var _ service.FlushControl = (*transport.Exchange)(nil)
