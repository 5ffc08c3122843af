package service

import (
	"context"

	"github.com/yourorg/userservice/service/feed"
)

// statusEvent is what a status stream waited for.
type statusEvent uint8

const (
	changesReady statusEvent = iota
	responseReady
	messagesEnded
	progressTick
	draining
	contextDone
)

// run sends changes, and the responses to the messages of in, until the stream ends. in is nil for a stream without messages.
func (w *statusWriter) run(ctx context.Context, in *statusReader) error {
	err := w.serve(ctx, in)
	return w.endError(ctx, err)
}

func (w *statusWriter) serve(ctx context.Context, in *statusReader) error {
	defer func() {
		if w.beat != nil {
			w.beat.Stop()
		}
	}()
	var responses chan pendingResponse
	if in != nil {
		responses = in.responses
	}
	w.flush.Cork()
	for {
		if err := w.beforeWait(len(responses) > 0 || len(w.subscription.Wake()) > 0); err != nil {
			return err
		}
		response, event := w.wait(ctx, responses)
		err := w.finishDirect()
		if err != nil {
			return err
		}
		switch event {
		case changesReady:
			w.flush.Cork()
			err = w.sendChanges(ctx)
		case responseReady:
			w.flush.Cork()
			err = w.respond(ctx, in, &response)
		case messagesEnded:
			w.flush.Cork()
			return w.finalError(in)
		case progressTick:
			w.progressDue = true
		case draining:
			if in == nil {
				return w.subscription.Drained()
			}
			return w.drain(ctx, in)
		case contextDone:
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// wait waits for the next event. Meanwhile the feed may deliver changes.
func (w *statusWriter) wait(ctx context.Context, responses <-chan pendingResponse) (pendingResponse, statusEvent) {
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-w.subscription.Wake():
	case response, more := <-responses:
		if !more {
			return response, messagesEnded
		}
		return response, responseReady
	case <-w.ticks():
		return pendingResponse{}, progressTick
	case <-w.service.feed.Draining():
		return pendingResponse{}, draining
	case <-ctx.Done():
		return pendingResponse{}, contextDone
	}
	return pendingResponse{}, changesReady
}

var _ feed.Direct = (*statusWriter)(nil)
