package intercept

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/user"
)

// Responses is an interceptor that reserves the memory of unary responses. Streams reserve each page.
type Responses struct{ serverOnly }

// responseCopies is the number of copies of a response until its handler returns: the message and the
// encoder buffers. codec.Outgoing reserves the encoded response.
const responseCopies = 2

// WrapUnary reserves the response once its size is known.
func (Responses) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			return nil, err
		}
		message, ok := res.Any().(proto.Message)
		if !ok {
			return res, nil
		}
		memory := budget.FromContext(ctx)
		// Replace the estimate of the handler.
		memory.Shrink(budget.Response, memory.Held(budget.Response))
		if size := int64(proto.Size(message)); size > smallResponse && memory.Grow(budget.Response, responseCopies*size) != nil {
			return nil, user.NewOverloadedError()
		}
		return res, nil
	}
}

// smallResponse is the size covered by the base cost of a request.
const smallResponse = 4 << 10

// WrapStreamingHandler returns next as it is.
func (Responses) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
