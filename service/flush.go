package service

import (
	"context"
	"errors"

	"github.com/yourorg/userservice/service/user"
)

// FlushControl batches the writes of a stream. By default each message is flushed on its own,
// which costs a system call. Only the goroutine that writes the stream may use it.
type FlushControl interface {
	// Cork buffers writes until Uncork, or until the buffer is full.
	Cork()
	// Uncork flushes the buffer and ends buffering. A stream must call it before it blocks.
	Uncork()
}

type flushKey struct{}

// WithFlusher returns a context with the flush control of a stream.
func WithFlusher(ctx context.Context, control FlushControl) context.Context {
	return context.WithValue(ctx, flushKey{}, control)
}

// flusher returns the flush control of a stream, or one that does nothing.
func flusher(ctx context.Context) FlushControl {
	if control, ok := ctx.Value(flushKey{}).(FlushControl); ok {
		return control
	}
	return noFlushControl{}
}

type noFlushControl struct{}

// Cork does nothing.
func (noFlushControl) Cork() {}

// Uncork does nothing.
func (noFlushControl) Uncork() {}

// stallError converts the error of a stalled write to an error with the position after which
// the client can resume. It returns any other error unchanged.
func (s *Service) stallError(err error, position int64) error {
	var stalled interface{ Stalled() bool }
	if !errors.As(err, &stalled) || !stalled.Stalled() {
		return err
	}
	epoch := s.feed.Head().Epoch
	if s.feed.IsDraining() {
		return user.NewDrainingError(epoch, position)
	}
	return user.NewStalledError(epoch, position)
}
