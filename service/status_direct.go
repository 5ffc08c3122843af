package service

import (
	"slices"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/reqinfo"
)

// directDelivery is the state of a statusWriter whose changes other goroutines deliver while it waits.
type directDelivery struct {
	control reqinfo.DirectControl
	rest    *directRest  // of the last Deliver; nil: none
	form    reqinfo.Form // known after the first change
	check   func() error // of form; nil: none
}

// directRest is what finishDirect must do.
type directRest struct {
	unsent  []feed.StatusChange // that FinishDirect must write
	failure error               // of Deliver
}

// deliverDirectly makes the feed send changes while the stream waits, if the stream can be written without waiting.
func (w *statusWriter) deliverDirectly() {
	if control, ok := w.flush.(reqinfo.DirectControl); ok && control.DirectConnection() != nil {
		w.direct.control = control
		w.subscription.DeliverBy(w)
	}
}

// Connection identifies the connection of the stream. It implements feed.Direct.
func (w *statusWriter) Connection() any { return w.direct.control.DirectConnection() }

// Deliver sends changes on the goroutine of the feed. It implements feed.Direct.
func (w *statusWriter) Deliver(buf []feed.StatusChange) (sent, flush bool) {
	if !w.mu.TryLock() { // the stream does not wait, or has ended
		return false, false
	}
	defer w.mu.Unlock()
	if w.direct.rest != nil || !w.direct.control.BeginDirect() {
		return false, false
	}
	changes := w.subscription.PollPending(buf)
	failure := panics.Catch(func() error { return w.sendAll(changes, w.sendDirect) }) // no interceptor covers this goroutine
	queued, flush := w.direct.control.EndDirect()
	if queued && failure == nil {
		return true, flush
	}
	w.direct.rest = &directRest{failure: failure}
	if !queued {
		w.direct.rest.unsent = slices.Clone(changes)
	}
	return false, flush
}

// sendDirect is sendChange, but writes what another stream has written for the change, if the layers of both treat it alike.
func (w *statusWriter) sendDirect(change *feed.StatusChange) error {
	message, direct := w.service.sharedStatusChange(change), &w.direct
	if message.GetFailure() != nil {
		return w.sendChange(change) // some callers may not read all of it
	}
	if frame, ok := message.frame(direct.form); ok {
		if direct.check != nil {
			if err := direct.check(); err != nil {
				return w.sendError(change.Position, err)
			}
		}
		direct.control.WriteDirect(frame.data)
		if frame.counter != nil {
			frame.counter.Inc()
		}
		return nil
	}
	start := len(direct.control.WrittenDirect())
	if err := w.sendChange(change); err != nil {
		return err
	}
	shared := reqinfo.SharedSendsOf(w.conn, message)
	direct.form, direct.check = shared.Form, shared.Check
	message.setFrame(&shared, direct.control.WrittenDirect()[start:])
	return nil
}

// Flush sends the output of Deliver. It implements feed.Direct.
func (w *statusWriter) Flush() { w.direct.control.FlushDirect() }

// finishDirect completes Deliver on the goroutine of the stream.
func (w *statusWriter) finishDirect() error {
	rest := w.direct.rest
	if rest == nil {
		return nil
	}
	w.direct.rest = nil
	if len(rest.unsent) > 0 {
		if written, err := w.direct.control.FinishDirect(); err != nil {
			return w.sendError(rest.unsent[min(written, len(rest.unsent)-1)].Position, err)
		}
	}
	return rest.failure
}
