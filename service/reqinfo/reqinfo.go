// Package reqinfo finds the state of a request in its context. A value is identified by its type.
//
// The server makes one context that returns the values of all layers by [Key], in place of one context
// for each. [With] replaces a single value for a part of the call, or sets it where there is no server.
package reqinfo

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
)

// Key is the context key of the value of type T.
type Key[T any] struct{}

// With returns a context with the value of type T.
func With[T any](ctx context.Context, value T) context.Context {
	return context.WithValue(ctx, Key[T]{}, value)
}

// From returns the value of type T, or the zero value if the context has none.
func From[T any](ctx context.Context) T {
	value, _ := ctx.Value(Key[T]{}).(T)
	return value
}

// ResponseHeader in the context of a call is the header of its response.
type ResponseHeader http.Header

// HeaderOfResponse returns the header of the response of a call, also of an error. It may be set until the first message is sent.
func HeaderOfResponse(ctx context.Context) http.Header {
	if header := From[ResponseHeader](ctx); header != nil {
		return http.Header(header)
	}
	if info, ok := connect.CallInfoForHandlerContext(ctx); ok { // without the server
		return info.ResponseHeader()
	}
	return make(http.Header)
}

// FlushControl in the context of a stream batches its writes. By default each message is flushed on its own,
// which costs a system call. Only the goroutine that writes the stream may use it.
type FlushControl interface {
	// Cork buffers writes until Uncork, or until the buffer is full.
	Cork()
	// Uncork flushes the buffer, ends buffering and releases the slot of the request. A stream must call it before it blocks.
	Uncork()
	// IsCorked reports whether the stream has more to write before it blocks.
	IsCorked() bool
}

// DirectControl is a FlushControl with which another goroutine can write the stream while the goroutine that writes it waits. It
// is for short messages: such a write never waits.
type DirectControl interface {
	FlushControl

	// DirectConnection identifies the connection: FlushDirect is for all its streams. It is nil if only the goroutine of the stream can
	// write it.
	DirectConnection() any
	// BeginDirect starts a write. It returns false if the goroutine of the stream must write.
	BeginDirect() bool
	// WriteDirect writes encoded messages in place of the layers above. p must not be modified afterwards.
	WriteDirect(p []byte)
	// WrittenDirect returns what was written since BeginDirect. It is valid until the next write or EndDirect.
	WrittenDirect() []byte
	// EndDirect queues what was written, and reports whether it did, and whether FlushDirect must be called. If queued is false, the
	// goroutine of the stream must call FinishDirect before it writes.
	EndDirect() (queued, flush bool)
	// FinishDirect writes what EndDirect could not queue, and returns the number of messages written.
	FinishDirect() (messages int, err error)
	// FlushDirect makes what was queued be sent, also on other streams of the connection. Any goroutine may call it at any time.
	FlushDirect()
}
