package server

import (
	"context"
	"net/http"

	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// handler returns what the public port serves, but for the guard around it. store is
// the store as calls see it.
func (s *Server) handler(store user.Store) (http.Handler, error) {
	validator, err := intercept.NewValidator(s.protoFiles()...)
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
	l := links{
		observers: watching, errors: intercept.NewErrors(s.log), log: s.log, store: store, feed: s.feed, validator: validator,
		policy: s.callers.policy, limits: s.limits, longestCall: s.cfg.MaxCallDuration,
		messages: s.newMessages(), compressors: transport.NewCompressors(),
	}
	rpc := rpcMux(rpcs, s.health, s.handlerOptions(l, s.tooLarge, chain(l)), s.handlerOptions(l, s.tooLarge, plainChain(l)))
	l.errors = l.errors.KeepConnectErrors()
	for i := range s.services {
		rpc.Handle(s.services[i].New(s.handlerOptions(l, intercept.NewPlainTooLargeError, chain(l))))
	}
	resources, err := s.resources(rpc, l)
	if err != nil {
		return nil, err
	}
	identified := s.callers.middleware(noteRefusal(s.metrics), s.limits)
	allowed, err := parseOrigins(s.cfg.CORSOrigin)
	if err != nil {
		return nil, err
	}
	return crossOrigin(allowed, s.refuse, s.limits.admit(identified(s.limits.slow(
		s.withMessages(l.messages, routes(rpc, resources, s.callers, s.services)))))), nil
}

// newGuard returns the guard of the public port.
func (s *Server) newGuard() *transport.Guard {
	watch, enter := newRequestWatch(s.log, s.metrics, s.services), requestContext(s.tracing)
	streams := streamedResponses(s.services)
	opts := transport.GuardOptions{
		StallTimeout:    s.cfg.StallTimeout,
		BodyTimeout:     s.cfg.BodyTimeout,
		MaxMessageBytes: func(r *http.Request) int64 { return s.limits.messageBytes(r.URL.Path) },
		TooLarge:        s.tooLargeOf,
		BodyTimedOut:    late,
		InvalidBody:     newBodyError,
		IsStream:        s.limits.openEnded,
		Context: func(r *http.Request, x *transport.Exchange) context.Context {
			if streams(r) {
				// Proxies must not wait for the end of such a response, nor keep it.
				x.Header().Set("Cache-Control", "no-store")
				x.Header().Set("X-Accel-Buffering", "no")
			}
			return enter(r, x)
		},
		Done:       watch.done,
		Memory:     s.limits.memory,
		Scheduler:  s.limits.scheduler,
		Account:    s.limits.account,
		Overloaded: s.limits.overloaded,
		Logger:     s.log,
	}
	return transport.NewGuard(opts)
}

// tooLarge counts a message that is too large, and gives the answer to it. It is called
// once for each: where one limit has stopped a message no other sees it.
func (s *Server) tooLarge(limit int64) error {
	s.metrics.RequestRejected(string(user.MessageTooLarge))
	return intercept.NewTooLargeError(limit)
}

// withFlusher lets a stream say when it is to be flushed.
func withFlusher(ctx context.Context, x *transport.Exchange) context.Context {
	return service.WithFlusher(ctx, x)
}

var _ service.FlushControl = (*transport.Exchange)(nil)
