package service

import (
	"context"
	"errors"

	"github.com/yourorg/userservice/service/user"
)

// FlushControl says when what a stream has written is sent. Without it every
// message is sent by itself, which costs a turn through the connection and a
// write to the network each.
//
// It is used by the one goroutine that writes the stream's messages.
type FlushControl interface {
	// Hold keeps what is written from now on until Release is called or a buffer
	// is full. A stream holds while its next message is at hand already.
	Hold()
	// Release sends what was kept, and lets every further message go at once. It
	// is to be called before waiting for anything.
	Release()
}

type flushKey struct{}

// WithFlusher returns a context whose stream is sent as the control says.
func WithFlusher(ctx context.Context, control FlushControl) context.Context {
	return context.WithValue(ctx, flushKey{}, control)
}

// flusher returns the control of a stream; where there is none every message goes
// at once.
func flusher(ctx context.Context) FlushControl {
	if control, ok := ctx.Value(flushKey{}).(FlushControl); ok {
		return control
	}
	return sendAtOnce{}
}

type sendAtOnce struct{}

// Hold does nothing.
func (sendAtOnce) Hold() {}

// Release does nothing: there is nothing kept.
func (sendAtOnce) Release() {}

// unsent gives the error of a message that could not be sent since its reader consumed
// nothing: it says after which position the reader can resume. Every other error is kept.
func (s *Service) unsent(err error, position int64) error {
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
