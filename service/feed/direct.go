package feed

import "slices"

// deliveries is the number of subscriptions that are delivered before their output is sent.
const deliveries = 256

// Direct sends the changes of a subscription on the goroutine of the feed, so that the goroutine of its stream need not be
// scheduled for each change.
type Direct interface {
	// Deliver sends the changes of PollPending, and reports whether it did, and whether Flush must be called. It must not wait. If
	// sent is false, the stream is woken.
	Deliver() (sent, flush bool)
	// Flush makes the output of Deliver be sent, also that of other streams. It must not wait. It may be called after the end of the
	// stream.
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
	var batch, unflushed []*Subscription
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
				if s.deliver() {
					unflushed = append(unflushed, s)
				}
			}
			for _, s := range unflushed {
				s.direct.Flush()
			}
			clear(unflushed)
			unflushed = unflushed[:0]
		}
		clear(batch)
	}
}

// deliver reports whether Flush must be called.
func (s *Subscription) deliver() (flush bool) {
	s.mu.Lock()
	s.queued = false // a later change queues it again
	s.mu.Unlock()
	sent, flush := s.direct.Deliver()
	if !sent {
		s.signal()
	}
	return flush
}
