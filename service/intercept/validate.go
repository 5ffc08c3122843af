package intercept

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/reqinfo"
)

// Validator validates a message, see package validate.
type Validator interface {
	Validate(message proto.Message) error
}

// Validate is an interceptor that validates the requests of unary calls and server streams.
// Items of client and bidi streams fail one by one, so their handlers validate them.
type Validate struct {
	serverOnly

	validator Validator
}

// NewValidate returns an interceptor for the validator.
func NewValidate(validator Validator) *Validate {
	return &Validate{validator: validator}
}

// WrapUnary validates the request.
func (v *Validate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if message, ok := req.Any().(proto.Message); ok {
			if err := v.validator.Validate(message); err != nil {
				return nil, err
			}
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler validates the request of a server stream.
func (v *Validate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, v.validated(conn))
	}
}

//go:noinline // for the stack of a waiting stream
func (v *Validate) validated(conn connect.StreamingHandlerConn) connect.StreamingHandlerConn {
	if conn.Spec().StreamType != connect.StreamTypeServer {
		return conn
	}
	return &validatedConn{StreamingHandlerConn: conn, validator: v.validator}
}

type validatedConn struct {
	connect.StreamingHandlerConn

	validator Validator
}

// Receive receives and validates a message.
func (c *validatedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	if message, ok := message.(proto.Message); ok {
		return onNewGoroutine(func() error { return c.validator.Validate(message) })
	}
	return nil
}

// onNewGoroutine runs do on a new goroutine and waits for it. Validation needs a deep stack, which a
// waiting stream would otherwise keep (about 4 KiB).
func onNewGoroutine(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- panics.Catch(do) }()
	return <-done
}

// Share implements reqinfo.SharedLayer.
func (c *validatedConn) Share(any, *reqinfo.SharedSends) connect.StreamingHandlerConn {
	return c.StreamingHandlerConn
}
