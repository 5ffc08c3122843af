package main

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
)

// epoch is an interceptor that reads the epoch of the log from the headers of responses. A position is valid in its
// epoch only, and rows do not have it.
type epoch struct {
	mu    sync.Mutex
	value string
}

func (e *epoch) get() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.value
}

func (e *epoch) set(header http.Header) {
	value, _, ok := strings.Cut(header.Get("Userd-Position"), ":")
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.value = value
}

// WrapUnary implements connect.Interceptor.
func (e *epoch) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		if err == nil {
			e.set(response.Header())
		}
		return response, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (e *epoch) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return epochConn{StreamingClientConn: next(ctx, spec), epoch: e}
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (e *epoch) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type epochConn struct {
	connect.StreamingClientConn

	epoch *epoch
}

// Receive implements connect.StreamingClientConn.
func (c epochConn) Receive(message any) error {
	err := c.StreamingClientConn.Receive(message)
	if err == nil {
		c.epoch.set(c.ResponseHeader())
	}
	return err
}
