package service

import (
	"slices"

	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/reqinfo"
)

// directChanges is the number of changes that one Deliver sends.
const directChanges = 8

// directDelivery is the state of a statusWriter whose changes other goroutines deliver while it waits.
type directDelivery struct {
	control reqinfo.DirectControl
	shared  reqinfo.SharedSends // known after the first change
	unsent  []feed.StatusChange // that FinishDirect must write
	failure error               // of Deliver
}

// deliverDirectly makes the feed send changes while the stream waits, if the stream can be written without waiting.
func (w *statusWriter) deliverDirectly() {
	if control, ok := w.flush.(reqinfo.DirectControl); ok {
		w.direct.control = control
		w.subscription.DeliverBy(w)
	}
}

// Deliver sends changes on the goroutine of the feed. It implements feed.Direct.
func (w *statusWriter) Deliver() (sent, flush bool) {
	if !w.mu.TryLock() { // the stream does not wait, or has ended
		return false, false
	}
	defer w.mu.Unlock()
	if len(w.direct.unsent) > 0 || w.direct.failure != nil || !w.direct.control.BeginDirect() {
		return false, false
	}
	var buf [directChanges]feed.StatusChange
	changes := w.subscription.PollPending(buf[:])
	w.direct.failure = panics.Catch(func() error { return w.sendAll(changes, w.sendDirect) }) // no interceptor covers this goroutine
	queued, flush := w.direct.control.EndDirect()
	if !queued {
		w.direct.unsent = slices.Clone(changes)
	}
	return queued && w.direct.failure == nil, flush
}

// sendDirect is sendChange, but writes what another stream has written for the change, if the layers of both treat it alike.
func (w *statusWriter) sendDirect(change *feed.StatusChange) error {
	message, direct := w.service.sharedStatusChange(change), &w.direct
	if message.GetFailure() != nil {
		return w.sendChange(change) // some callers may not read all of it
	}
	if frame := message.frame(direct.shared.Form); frame != nil {
		if err := direct.shared.Err(); err != nil {
			return w.sendError(change.Position, err)
		}
		direct.control.WriteDirect(frame)
		direct.shared.Sent()
		return nil
	}
	start := len(direct.control.WrittenDirect())
	if err := w.sendChange(change); err != nil {
		return err
	}
	direct.shared = reqinfo.SharedSendsOf(w.conn, message)
	message.setFrame(direct.shared.Form, direct.control.WrittenDirect()[start:])
	return nil
}

// Flush sends the output of Deliver. It implements feed.Direct.
func (w *statusWriter) Flush() { w.direct.control.FlushDirect() }

// finishDirect completes Deliver on the goroutine of the stream.
func (w *statusWriter) finishDirect() error {
	if unsent := w.direct.unsent; len(unsent) > 0 {
		w.direct.unsent = nil
		if written, err := w.direct.control.FinishDirect(); err != nil {
			return w.sendError(unsent[min(written, len(unsent)-1)].Position, err)
		}
	}
	return w.direct.failure
}
