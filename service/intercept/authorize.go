package intercept

import (
	"context"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
)

// Authorize asks the policy whether the caller in the context may make the call, and
// then, for unary calls and server streams, whether the caller may ask what the request
// asks. What the caller may not see is taken out of responses and errors. The messages of client and bidi streams are items: what an item needs beside the
// call itself is that item's failure, so their handlers ask, by auth.AuthorizeMessage.
//
// It goes by the procedure that the handler was made for, not by the request's path. The
// server asks the policy before the message is decoded, too; here it is asked so that a
// handler that is mounted without that is not open.
type Authorize struct {
	serverOnly

	policy *auth.Policy
}

// NewAuthorize returns an interceptor that asks the policy.
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
		if err := a.policy.Authorize(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		err := next(ctx, &authorizedConn{StreamingHandlerConn: conn, ctx: ctx, policy: a.policy})
		return auth.RedactError(ctx, err)
	}
}

// authorizedConn lets the one request of a server stream pass only if the caller may ask
// what it asks, and responses with what the caller may see.
type authorizedConn struct {
	connect.StreamingHandlerConn

	ctx    context.Context //nolint:containedctx // the stream's own; Receive is given none
	policy *auth.Policy
}

// Receive receives the request and asks for it.
func (c *authorizedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	if c.Spec().StreamType != connect.StreamTypeServer {
		return nil
	}
	return auth.AuthorizeMessage(c.ctx, c.Spec().Procedure, message)
}

// Send sends what the caller may see of a response.
func (c *authorizedConn) Send(message any) error {
	c.policy.Redact(c.ctx, message)
	return c.StreamingHandlerConn.Send(message)
}
