package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	conformancev1 "github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1"
	"github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1/conformancev1connect"
)

// service implements ConformanceService: it responds with the data, headers, trailers and error
// of the response definition in the request, after its delay, and echoes the request. See
// service.proto of the runner.
type service struct {
	conformancev1connect.UnimplementedConformanceServiceHandler
}

// Unary responds to one request.
func (service) Unary(
	ctx context.Context, req *connect.Request[conformancev1.UnaryRequest],
) (*connect.Response[conformancev1.UnaryResponse], error) {
	echo := echoOf(req.Header(), req.Peer())
	payload, err := unary(ctx, req.Msg.GetResponseDefinition(), echo, req.Msg)
	return respond(&conformancev1.UnaryResponse{Payload: payload}, req.Msg.GetResponseDefinition(), err)
}

// IdempotentUnary responds to one request, which may be an HTTP GET.
func (service) IdempotentUnary(
	ctx context.Context, req *connect.Request[conformancev1.IdempotentUnaryRequest],
) (*connect.Response[conformancev1.IdempotentUnaryResponse], error) {
	echo := echoOf(req.Header(), req.Peer())
	payload, err := unary(ctx, req.Msg.GetResponseDefinition(), echo, req.Msg)
	return respond(&conformancev1.IdempotentUnaryResponse{Payload: payload}, req.Msg.GetResponseDefinition(), err)
}

// ClientStream responds after the last message. The first message has the response definition.
func (service) ClientStream(
	ctx context.Context, stream *connect.ClientStream[conformancev1.ClientStreamRequest],
) (*connect.Response[conformancev1.ClientStreamResponse], error) {
	var requests []proto.Message
	for stream.Receive() {
		requests = append(requests, proto.Clone(stream.Msg()))
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	var definition *conformancev1.UnaryResponseDefinition
	if len(requests) > 0 {
		definition = requests[0].(*conformancev1.ClientStreamRequest).GetResponseDefinition()
	}
	payload, err := unary(ctx, definition, echoOf(stream.RequestHeader(), stream.Peer()), requests...)
	return respond(&conformancev1.ClientStreamResponse{Payload: payload}, definition, err)
}

// ServerStream sends the messages of the definition. The first one echoes the request.
func (service) ServerStream(
	ctx context.Context, req *connect.Request[conformancev1.ServerStreamRequest],
	stream *connect.ServerStream[conformancev1.ServerStreamResponse],
) error {
	out := &responder{
		definition: req.Msg.GetResponseDefinition(), echo: echoOf(req.Header(), req.Peer()),
		send: func(payload *conformancev1.ConformancePayload) error {
			return stream.Send(&conformancev1.ServerStreamResponse{Payload: payload})
		},
	}
	if err := out.received(req.Msg); err != nil {
		return err
	}
	return out.start(stream.ResponseHeader(), stream.ResponseTrailer(), func() error { return stream.Send(nil) }).finish(ctx)
}

// BidiStream sends the messages of the first request's definition: one after each request if the
// stream is full duplex, the remaining ones after the last request.
func (service) BidiStream(
	ctx context.Context, stream *connect.BidiStream[conformancev1.BidiStreamRequest, conformancev1.BidiStreamResponse],
) error {
	out := &responder{
		echo: echoOf(stream.RequestHeader(), stream.Peer()),
		send: func(payload *conformancev1.ConformancePayload) error {
			return stream.Send(&conformancev1.BidiStreamResponse{Payload: payload})
		},
	}
	sendHeader := func() error { return stream.Send(nil) }
	fullDuplex := false
	for first := true; ; first = false {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := out.received(req); err != nil {
			return err
		}
		if first {
			out.definition, fullDuplex = req.GetResponseDefinition(), req.GetFullDuplex()
		}
		if !fullDuplex {
			continue
		}
		if first {
			out.start(stream.ResponseHeader(), stream.ResponseTrailer(), sendHeader)
		}
		if out.done() {
			break
		}
		if err := out.next(ctx); err != nil {
			return err
		}
	}
	if !fullDuplex {
		out.start(stream.ResponseHeader(), stream.ResponseTrailer(), sendHeader)
	}
	return out.finish(ctx)
}

// responder sends the messages of a definition one by one.
type responder struct {
	definition *conformancev1.StreamResponseDefinition
	echo       *requestInfo
	send       func(*conformancev1.ConformancePayload) error
	requests   []*anypb.Any // since the last response
	sent       int
	err        error
}

func (r *responder) received(message proto.Message) error {
	packed, err := anypb.New(message)
	r.requests = append(r.requests, packed)
	return err
}

// start sets the header and the trailer, and sends the header if messages follow.
func (r *responder) start(header, trailer http.Header, sendHeader func() error) *responder {
	setHeaders(header, r.definition.GetResponseHeaders())
	setHeaders(trailer, r.definition.GetResponseTrailers())
	if !r.done() {
		r.err = sendHeader()
	}
	return r
}

func (r *responder) done() bool { return r.sent >= len(r.definition.GetResponseData()) }

// next sends one message. The first echoes the whole request, later ones only the messages
// received since.
func (r *responder) next(ctx context.Context) error {
	if r.err != nil {
		return r.err
	}
	payload := &conformancev1.ConformancePayload{Data: r.definition.GetResponseData()[r.sent]}
	switch {
	case r.sent == 0:
		payload.RequestInfo = r.echo.with(r.requests)
	case len(r.requests) > 0:
		payload.RequestInfo = &conformancev1.ConformancePayload_RequestInfo{Requests: r.requests}
	}
	r.requests = nil
	r.sent++
	if err := wait(ctx, r.definition.GetResponseDelayMs()); err != nil {
		return err
	}
	return r.send(payload)
}

// finish sends the remaining messages and returns the error of the definition.
func (r *responder) finish(ctx context.Context) error {
	for !r.done() {
		if err := r.next(ctx); err != nil {
			return err
		}
	}
	if r.definition.GetError() == nil {
		return r.err
	}
	if r.sent > 0 {
		return newError(r.definition.GetError(), nil)
	}
	return newError(r.definition.GetError(), r.echo.with(r.requests))
}

// unary returns the payload of a response, or the error of the definition.
func unary(
	ctx context.Context, definition *conformancev1.UnaryResponseDefinition, echo *requestInfo, requests ...proto.Message,
) (*conformancev1.ConformancePayload, error) {
	packed := make([]*anypb.Any, len(requests))
	for i := range requests {
		var err error
		if packed[i], err = anypb.New(requests[i]); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, definition.GetResponseDelayMs()); err != nil {
		return nil, err
	}
	info := echo.with(packed)
	if definition.GetError() != nil {
		err := newError(definition.GetError(), info)
		setHeaders(err.Meta(), definition.GetResponseHeaders())
		setHeaders(err.Meta(), definition.GetResponseTrailers())
		return nil, err
	}
	return &conformancev1.ConformancePayload{Data: definition.GetResponseData(), RequestInfo: info}, nil
}

func respond[T any](message *T, definition *conformancev1.UnaryResponseDefinition, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	response := connect.NewResponse(message)
	setHeaders(response.Header(), definition.GetResponseHeaders())
	setHeaders(response.Trailer(), definition.GetResponseTrailers())
	return response, nil
}

// newError returns the error of a definition, with the request as a detail if info is not nil.
func newError(definition *conformancev1.Error, info *conformancev1.ConformancePayload_RequestInfo) *connect.Error {
	err := connect.NewError(connect.Code(definition.GetCode()), errors.New(definition.GetMessage()))
	details := make([]proto.Message, 0, len(definition.GetDetails())+1)
	for _, detail := range definition.GetDetails() {
		details = append(details, detail)
	}
	if info != nil {
		details = append(details, info)
	}
	for _, detail := range details {
		packed, failure := connect.NewErrorDetail(detail)
		if failure != nil {
			return connect.NewError(connect.CodeInternal, failure)
		}
		err.AddDetail(packed)
	}
	return err
}

// requestInfo is the part of a request that responses echo, except for the messages.
type requestInfo struct {
	headers []*conformancev1.Header
	timeout *int64 // milliseconds
	query   []*conformancev1.Header
}

func echoOf(header http.Header, peer connect.Peer) *requestInfo {
	return &requestInfo{
		headers: headersOf(header), timeout: timeoutOf(header), query: headersOf(http.Header(peer.Query)),
	}
}

func (i *requestInfo) with(requests []*anypb.Any) *conformancev1.ConformancePayload_RequestInfo {
	info := &conformancev1.ConformancePayload_RequestInfo{
		RequestHeaders: i.headers, TimeoutMs: i.timeout, Requests: requests,
	}
	if len(i.query) > 0 {
		info.ConnectGetInfo = &conformancev1.ConformancePayload_ConnectGetInfo{QueryParams: i.query}
	}
	return info
}

// timeoutOf returns the client's timeout header in milliseconds. The deadline of the context may
// also be the server's.
func timeoutOf(header http.Header) *int64 {
	if text := header.Get("Connect-Timeout-Ms"); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return &n
		}
	}
	text := header.Get("Grpc-Timeout")
	units := map[string]time.Duration{
		"H": time.Hour, "M": time.Minute, "S": time.Second, "m": time.Millisecond, "u": time.Microsecond, "n": time.Nanosecond,
	}
	for suffix, unit := range units {
		digits, ok := strings.CutSuffix(text, suffix)
		if n, err := strconv.ParseInt(digits, 10, 64); ok && err == nil {
			ms := (time.Duration(n) * unit).Milliseconds()
			return &ms
		}
	}
	return nil
}

func headersOf(header http.Header) []*conformancev1.Header {
	list := make([]*conformancev1.Header, 0, len(header))
	for name, values := range header {
		list = append(list, &conformancev1.Header{Name: name, Value: values})
	}
	return list
}

func setHeaders(to http.Header, headers []*conformancev1.Header) {
	for _, h := range headers {
		for _, value := range h.GetValue() {
			to.Add(h.GetName(), value)
		}
	}
}

// wait waits for the delay or the end of the context.
func wait(ctx context.Context, milliseconds uint32) error {
	select {
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
