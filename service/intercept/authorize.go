package intercept

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/reqinfo"
)

// Authorize is an interceptor that authorizes calls by the policy: the procedure, and for
// unary calls and server streams also the request message. It removes from responses and
// errors the fields that the caller may not read. Messages of client and bidi streams are
// items that fail one by one, so their handlers call auth.AuthorizeMessage.
//
// The server also checks the procedure before it decodes a message. The check is repeated
// here so that a handler mounted without that gate is still protected.
type Authorize struct {
	serverOnly

	policy *auth.Policy
}

// NewAuthorize returns an interceptor for the policy.
func NewAuthorize(policy *auth.Policy) *Authorize { return &Authorize{policy: policy} }

// WrapUnary authorizes unary calls.
func (a *Authorize) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		procedure := req.Spec().Procedure
		if err := a.policy.Authorize(ctx, procedure); err != nil {
			return nil, err
		}
		if err := auth.AuthorizeMessage(ctx, procedure, req.Any()); err != nil {
			return nil, err
		}
		res, err := next(ctx, req)
		if err != nil {
			return nil, auth.RedactError(ctx, err)
		}
		a.policy.Redact(ctx, res.Any())
		return res, nil
	}
}

// WrapStreamingHandler authorizes streams.
func (a *Authorize) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := a.authorize(ctx, conn); err != nil {
			return err
		}
		err := next(ctx, &authorizedConn{StreamingHandlerConn: conn, ctx: ctx, redacted: a.policy.Redactor(ctx)})
		return auth.RedactError(ctx, err)
	}
}

func (a *Authorize) authorize(ctx context.Context, conn connect.StreamingHandlerConn) error {
	return a.policy.Authorize(ctx, conn.Spec().Procedure)
}

// authorizedConn authorizes the request message of a server stream and redacts responses.
type authorizedConn struct {
	connect.StreamingHandlerConn

	ctx      context.Context //nolint:containedctx // Receive has no context parameter
	redacted func(message any) any
}

// Receive receives and authorizes a message.
func (c *authorizedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	if c.Spec().StreamType != connect.StreamTypeServer {
		return nil
	}
	return auth.AuthorizeMessage(c.ctx, c.Spec().Procedure, message)
}

// Send redacts and sends a response.
func (c *authorizedConn) Send(message any) error {
	return c.StreamingHandlerConn.Send(c.redacted(message))
}

// Share implements reqinfo.SharedLayer.
func (c *authorizedConn) Share(message any, _ *reqinfo.SharedSends) connect.StreamingHandlerConn {
	if c.redacted(message) != message {
		return nil
	}
	return c.StreamingHandlerConn
}
