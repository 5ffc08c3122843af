package service

import (
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/reqinfo"
)

// directChanges is the number of changes that one Deliver sends.
const directChanges = 8

// directDelivery is the state of a statusWriter whose changes other goroutines deliver while it waits.
type directDelivery struct {
	control reqinfo.DirectControl
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
func (w *statusWriter) Deliver() (delivered bool) {
	if !w.mu.TryLock() { // the stream does not wait, or has ended
		return false
	}
	defer w.mu.Unlock()
	if len(w.direct.unsent) > 0 || w.direct.failure != nil || !w.direct.control.BeginDirect() {
		return false
	}
	changes := w.subscription.PollPending(directChanges)
	w.direct.failure = panics.Catch(func() error { return w.sendAll(changes) }) // no interceptor covers this goroutine
	if !w.direct.control.EndDirect() {
		w.direct.unsent = changes
	}
	return len(w.direct.unsent) == 0 && w.direct.failure == nil
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
