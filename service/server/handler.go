package server

import (
	"context"
	"net/http"

	"github.com/yourorg/userservice/service"
	"github.com/yourorg/userservice/service/browser"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
	"github.com/yourorg/userservice/service/validate"
)

// handler returns the handler of the public listener without the guard, and the checks before it. store is the store used by
// calls.
func (s *Server) handler(store user.Store) (http.Handler, []check, error) {
	validator, err := validate.New(s.protoFiles()...)
	if err != nil {
		return nil, nil, err
	}
	limit := int64(s.cfg.MaxMessageBytes)
	rpcs, err := service.New(store, s.feed, service.Options{
		MaxMessageBytes: int(limit),
		MaxStreamItems:  s.cfg.MaxStreamItems,
		Retention:       s.cfg.Retention,
		Logger:          s.log,
		Validator:       validator,
	})
	if err != nil {
		return nil, nil, err
	}
	observers, err := s.newObservers()
	if err != nil {
		return nil, nil, err
	}
	l := links{
		observers: observers, errors: intercept.NewErrors(s.log), log: s.log, store: store, feed: s.feed, validator: validator,
		policy: s.callers.policy, limits: s.limits, maxCallDuration: s.cfg.MaxCallDuration,
		messages: s.newMessages(), compressors: codec.NewCompressors(),
	}
	procedures := rpcMux(rpcs, s.health, s.handlerOptions(l, s.newTooLargeError, chain(l)), s.handlerOptions(l, s.newTooLargeError, plainChain(l)))
	methods, streams := rpc.UserService(rpcs, chain(l)...), rpc.UserStreams(rpcs, chain(l)...)
	l.errors = l.errors.KeepConnectErrors()
	for i := range s.services {
		procedures.Handle(s.services[i].New(s.handlerOptions(l, intercept.NewPlainTooLargeError, chain(l))))
	}
	calls := rpc.NewHandler(rpc.Options{
		Methods: methods, Streams: streams, Next: procedures, Authorize: l.policy.Authorize, MaxMessageBytes: s.limits.MaxMessageBytes, Compressors: l.compressors,
	})
	resources, err := s.resources(procedures, methods, l)
	if err != nil {
		return nil, nil, err
	}
	allowed, err := browser.ParseOrigins(s.cfg.CORSOrigin)
	if err != nil {
		return nil, nil, err
	}
	return l.messages.Handler(routes(calls, resources, s.callers, s.services)), []check{
		browser.CrossOrigin(allowed, s.refuse), s.limits.Admit,
		s.callers.authenticate(recordAuthFailure(s.metrics), s.limits), s.limits.LimitRate,
	}, nil
}

// newGuard returns the guard of the public listener.
func (s *Server) newGuard() *transport.Guard {
	newContext := requestContext(s.tracing)
	streams := streamedResponses(s.services)
	opts := transport.GuardOptions{
		StallTimeout:    s.cfg.StallTimeout,
		BodyTimeout:     s.cfg.BodyTimeout,
		MaxMessageBytes: func(r *http.Request) int64 { return s.limits.MaxMessageBytes(r.URL.Path) },
		TooLarge:        s.newTooLargeErrorFor,
		BodyTimedOut:    newBodyTimeoutError,
		InvalidBody:     newBodyError,
		IsStream:        streamingBody(s.services),
		Context: func(ctx context.Context, r *http.Request, x *transport.Exchange) context.Context {
			if streams(r) {
				// Proxies must neither buffer nor cache a stream.
				x.Header().Set("Cache-Control", "no-store")
				x.Header().Set("X-Accel-Buffering", "no")
			}
			return newContext(ctx, r, x)
		},
		Recovered:  recovered(s.log),
		Done:       func(r *http.Request, x *transport.Exchange) { s.observer.RequestDone(r, x) },
		Memory:     s.limits.Memory(),
		Scheduler:  s.limits.Scheduler(),
		Class:      s.limits.Class,
		Overloaded: s.limits.Overloaded,
		Logger:     s.log,
	}
	return transport.NewGuard(opts)
}

// newTooLargeError counts a message that is too large and returns the error for it. It is called once
// for each such message.
func (s *Server) newTooLargeError(limit int64) error {
	s.metrics.RequestRejected(string(user.MessageTooLarge))
	return intercept.NewTooLargeError(limit)
}
