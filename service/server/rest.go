package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/yourorg/userservice/service/intercept"

	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/user"
)

// resources returns the REST handler on top of the RPC handler.
func (s *Server) resources(procedures http.Handler, methods rpc.Methods, l links) (http.Handler, error) {
	handler, err := rest.New(rest.Options{
		Methods:         methods,
		Handler:         procedures,
		MaxMessageBytes: int64(s.cfg.MaxMessageBytes),
		Refused:         l.calls.Refused,
		Messages:        l.messages,
		Compressors:     l.compressors,
		Authorize: func(ctx context.Context, procedure string) error {
			err := l.policy.Authorize(ctx, procedure)
			if refused, ok := user.AsError(err); ok {
				intercept.LogOf(ctx).Rejected = refused
			}
			return err
		},
		Logger: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up REST: %w", err)
	}
	return handler, nil
}
