package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	conformancev1 "github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1"
	"github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1/conformancev1connect"
)

// conformanceCall is one call of the client under test.
type conformanceCall struct {
	rpc     conformancev1connect.ConformanceServiceClient
	request *conformancev1.ClientCompatRequest
	result  *conformancev1.ClientResponseResult
	ctx     context.Context //nolint:containedctx // of this call
	cancel  context.CancelFunc
}

func (c *conformanceCall) run() error {
	switch c.request.GetMethod() {
	case "Unary":
		return callUnary(c, c.rpc.Unary)
	case "IdempotentUnary":
		return callUnary(c, c.rpc.IdempotentUnary)
	case "Unimplemented":
		return callUnary(c, c.rpc.Unimplemented)
	case "ServerStream":
		return c.serverStream()
	case "ClientStream":
		return c.clientStream()
	case "BidiStream":
		return c.bidiStream()
	default:
		return fmt.Errorf("unknown method %q", c.request.GetMethod())
	}
}

// cancelAfterSend cancels the call after its delay, if the request says so.
func (c *conformanceCall) cancelAfterSend() {
	if after, ok := c.request.GetCancel().GetCancelTiming().(*conformancev1.ClientCompatRequest_Cancel_AfterCloseSendMs); ok {
		time.AfterFunc(time.Duration(after.AfterCloseSendMs)*time.Millisecond, c.cancel)
	}
}

// cancelBeforeClose cancels the call, if the request says so.
func (c *conformanceCall) cancelBeforeClose() {
	if _, ok := c.request.GetCancel().GetCancelTiming().(*conformancev1.ClientCompatRequest_Cancel_BeforeCloseSend); ok {
		c.cancel()
	}
}

// received records a payload, and cancels the call after the number of them that the request says.
func (c *conformanceCall) received(payload *conformancev1.ConformancePayload) {
	c.result.Payloads = append(c.result.Payloads, payload)
	after, ok := c.request.GetCancel().GetCancelTiming().(*conformancev1.ClientCompatRequest_Cancel_AfterNumResponses)
	if ok && len(c.result.GetPayloads()) == int(after.AfterNumResponses) {
		c.cancel()
	}
}

// fail records the error of the call, and its metadata if there was no response.
func (c *conformanceCall) fail(err error) {
	c.result.Error = errorToProto(err)
	if failure := new(connect.Error); errors.As(err, &failure) && len(c.result.GetResponseHeaders()) == 0 {
		c.result.ResponseHeaders = headersToProto(failure.Meta())
		c.result.ResponseTrailers = headersToProto(failure.Meta())
	}
}

// response is a message with a payload.
type response interface {
	GetPayload() *conformancev1.ConformancePayload
}

// message decodes a request message.
func message[T any, M interface {
	*T
	proto.Message
}](c *conformanceCall, i int) (M, error) {
	m := M(new(T))
	return m, c.request.GetRequestMessages()[i].UnmarshalTo(m)
}

func callUnary[Req, Res any, M interface {
	*Req
	proto.Message
}](c *conformanceCall, rpc func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)) error {
	m, err := message[Req, M](c, 0)
	if err != nil {
		return err
	}
	request := connect.NewRequest((*Req)(m))
	addRequestHeaders(request.Header(), c.request)
	c.cancelAfterSend()
	result, err := rpc(c.ctx, request)
	if err != nil {
		c.fail(err)
		return nil
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersToProto(result.Header()), headersToProto(result.Trailer())
	if r, ok := any(result.Msg).(response); ok {
		c.received(r.GetPayload())
	}
	return nil
}

func (c *conformanceCall) serverStream() error {
	m, err := message[conformancev1.ServerStreamRequest](c, 0)
	if err != nil {
		return err
	}
	request := connect.NewRequest(m)
	addRequestHeaders(request.Header(), c.request)
	stream, err := c.rpc.ServerStream(c.ctx, request)
	if err != nil {
		c.fail(err)
		return nil
	}
	c.cancelAfterSend()
	for stream.Receive() {
		c.received(stream.Msg().GetPayload())
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersToProto(stream.ResponseHeader()), headersToProto(stream.ResponseTrailer())
	if stream.Err() != nil {
		c.fail(stream.Err())
	}
	return stream.Close()
}

func (c *conformanceCall) clientStream() error {
	stream := c.rpc.ClientStream(c.ctx)
	addRequestHeaders(stream.RequestHeader(), c.request)
	for i := range c.request.GetRequestMessages() {
		m, err := message[conformancev1.ClientStreamRequest](c, i)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(c.request.GetRequestDelayMs()) * time.Millisecond)
		if err := stream.Send(m); err != nil && errors.Is(err, io.EOF) {
			c.result.NumUnsentRequests = int32(len(c.request.GetRequestMessages()) - i)
			break
		}
	}
	c.cancelBeforeClose()
	c.cancelAfterSend()
	result, err := stream.CloseAndReceive()
	if err != nil {
		c.fail(err)
		return nil
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersToProto(result.Header()), headersToProto(result.Trailer())
	c.received(result.Msg.GetPayload())
	return nil
}

func (c *conformanceCall) bidiStream() error {
	stream := c.rpc.BidiStream(c.ctx)
	addRequestHeaders(stream.RequestHeader(), c.request)
	err := c.sendBidi(stream)
	if err == nil {
		c.cancelBeforeClose()
		if err := stream.CloseRequest(); err != nil {
			return err
		}
		c.cancelAfterSend()
		for err == nil {
			err = c.receiveBidi(stream)
		}
	}
	c.result.ResponseHeaders, c.result.ResponseTrailers = headersToProto(stream.ResponseHeader()), headersToProto(stream.ResponseTrailer())
	if !errors.Is(err, io.EOF) {
		c.fail(err)
	}
	_ = stream.CloseResponse() // its error is the one received
	return nil
}

type bidiStream = connect.BidiStreamForClient[conformancev1.BidiStreamRequest, conformancev1.BidiStreamResponse]

// sendBidi sends the messages. Full duplex, it receives a response for each. It returns the error of the stream.
func (c *conformanceCall) sendBidi(stream *bidiStream) error {
	for i := range c.request.GetRequestMessages() {
		m, err := message[conformancev1.BidiStreamRequest](c, i)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(c.request.GetRequestDelayMs()) * time.Millisecond)
		if err := stream.Send(m); err != nil && errors.Is(err, io.EOF) {
			c.result.NumUnsentRequests = int32(len(c.request.GetRequestMessages()) - i)
			_, err = stream.Receive()
			return err
		}
		if c.request.GetStreamType() == conformancev1.StreamType_STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM {
			if err := c.receiveBidi(stream); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *conformanceCall) receiveBidi(stream *bidiStream) error {
	m, err := stream.Receive()
	if err == nil {
		c.received(m.GetPayload())
	}
	return err
}
