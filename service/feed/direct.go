package feed

import "slices"

// deliveries is the number of subscriptions that are delivered before their output is sent.
const deliveries = 256

// Direct sends the changes of a subscription on the goroutine of the feed, so that the goroutine of its stream need not be
// scheduled for each change.
type Direct interface {
	// Deliver sends the changes of PollPending, and reports whether it did. It must not wait. If it returns false, the stream is
	// woken.
	Deliver() bool
	// Flush makes the output of Deliver be sent. It must not wait. It may be called after the end of the stream.
	Flush()
}

// DeliverBy makes changes be delivered by d. It must be called before the subscription has users.
func (s *Subscription) DeliverBy(d Direct) { s.direct = d }

// notify delivers a change or wakes the stream. It requires both locks.
func (s *Subscription) notify() {
	switch {
	case s.direct == nil:
		s.signal()
	case !s.queued:
		s.queued = true
		s.feed.ready = append(s.feed.ready, s)
	}
}

// deliverReady delivers the changes of the ready subscriptions until there are none.
func (f *Feed) deliverReady() {
	var batch []*Subscription
	for {
		f.mu.Lock()
		batch, f.ready = f.ready, batch[:0]
		f.delivering = len(batch) > 0
		f.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for some := range slices.Chunk(batch, deliveries) {
			for _, s := range some {
				s.deliver()
			}
			for _, s := range some {
				s.direct.Flush()
			}
		}
		clear(batch)
	}
}

func (s *Subscription) deliver() {
	s.mu.Lock()
	s.queued = false // a later change queues it again
	s.mu.Unlock()
	if !s.direct.Deliver() {
		s.signal()
	}
}
